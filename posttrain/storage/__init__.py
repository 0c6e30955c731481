"""Files that are whole or absent: JSON lines, checkpoints with a manifest, locks, pickles that are not trusted.

What is in them does not belong here.

Other rooms import: `checkpoints`, `files`, `lock`, `pickles`.
"""
