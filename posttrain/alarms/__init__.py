"""Troubles of a run that its numbers show while it goes on, each with its evidence and what to try.

`rollout_facts` puts what a generation shows into a line of `steps.jsonl`; `rollouts`, `policy` and `demonstrations`
have one detector a kind, pure functions of the steps so far, `by_source` one of the evaluations; `watch` decides when
to say so. What acts on a run does not belong here, nor what needs torch.

Other rooms import: `by_source`, `rollout_facts`, `watch`.
"""

from posttrain.alarms.history import Settings
from posttrain.alarms.watch import KINDS, Watch, in_words, read, summary

__all__ = ["KINDS", "Settings", "Watch", "in_words", "read", "summary"]
