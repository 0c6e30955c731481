"""The commands about a run: before it, after it, beside it. A file each; nothing heavy is imported to parse."""

from posttrain.commands import compare, explain, export, plan, replay, view

ADDERS = (plan.add, explain.add, replay.add, view.add, compare.add, export.add)
