"""Starting a run on several processes, on one node or several, and how that ends for the one who started it.

What the started processes do does not belong here.

Other rooms import: `launch`, `nodes`.
"""
