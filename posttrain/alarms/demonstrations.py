"""Alarms about methods that bring a prompt's demonstration in: a gate that does not choose, beginnings never outgrown.

Written as those in `rollouts`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import fmean, variance

from posttrain.alarms.history import Finding, History, Settings

GATE_WINDOW = 20
"""Generations before a gate is judged: one that never opens must not have done so in any of the stage's."""

GATE_GROUPS = 60
"""Groups with a demonstration that these must have together: a gate that opens for one of 20 is closed in all of so
many by chance in one of 20 runs."""

ALWAYS = 0.98
"""Share of these groups from which on a gate is as good as always open."""

PREFIX_WINDOW = 10
PREFIX_GAP, PREFIX_GAP_PROBLEM = 0.3, 0.6
"""By how much rollouts that went on from a beginning score more than the others, on a reward's scale of 0 to 1 (of a
larger scale: as a share), by more than two standard errors."""

SHORTENED = 0.8
"""Beginnings of at most so much of the share of the demonstration that they had at first are shorter ones."""

OUTGROWN = 0.05
"""A rise of the reward without a beginning, since the stage began, from which on a policy is outgrowing them."""


def method_gate(history: History) -> Iterator[Finding]:
    """A gate between demonstrations and rollouts that lets no demonstration in, or every one."""
    latest, groups = history.last("method/gate_open", GATE_WINDOW), history.last("method/paired", GATE_WINDOW)
    if len(latest) < GATE_WINDOW or sum(groups) < GATE_GROUPS:
        return
    s, ever = history.settings, history.every("method/gate_open")
    if not any(ever):
        count = int(sum(history.every("method/paired")))
        evidence = (
            f"the gate of {s.method or 'the method'} let no demonstration in, of {count:,} groups with one in "
            f"{len(ever)} generations: this is GRPO alone"
        )
        yield Finding("method_gate", 1.0, "warning", evidence, _let_in(s), "never")
        return
    share = sum(opened * of for opened, of in zip(latest, groups, strict=True)) / sum(groups)
    if share < ALWAYS:
        return
    best = max(history.last("method/best", GATE_WINDOW), default=None)
    out_of_reach = best is not None and s.passing is not None and best < s.passing
    evidence = (
        f"the gate of {s.method or 'the method'} let the demonstration in for {share:.0%} of the "
        f"{int(sum(groups)):,} groups with one of the last {GATE_WINDOW} generations: too few of their rollouts are "
        "solved, everywhere"
    )
    if out_of_reach:
        evidence += f"; the best rollout scored {best:.3g}, and {s.passing:g} is asked of a solved one"
        advice = f"set {s.key('hybrid.method.passing')} to what a right answer scores (now {s.passing:g})"
    else:
        warm = "more warmup.steps" if s.recipe else "a longer warm-up"
        lower = f", or lower {s.key('hybrid.method.gate')} (now {s.gate})" if s.gate else ""
        advice = f"the prompts are too hard for the policy: {warm} or easier prompts{lower}"
    yield Finding("method_gate", 1.0, "problem" if out_of_reach else "warning", evidence, advice, "always")


def _let_in(s: Settings) -> str:
    harder = "take harder prompts, or leave the method out"
    if s.gate is None:
        return harder
    replay = f", after a look at `posttrain replay RUN method.gate={s.gate + 1}`" if s.recipe else ""
    return f"raise {s.key('hybrid.method.gate')} (now {s.gate} of {s.num_generations}){replay}; else {harder}"


def prefix_not_outgrown(history: History) -> Iterator[Finding]:
    """Beginnings that grow shorter while rollouts without one fail as they did."""
    begun, alone = (history.last(f"method/{name}", PREFIX_WINDOW) for name in ("begun_reward", "alone_reward"))
    first, share = history.first("method/begun_share", PREFIX_WINDOW), history.last("method/begun_share", PREFIX_WINDOW)
    every = history.every("method/alone_reward")
    if len(begun) < PREFIX_WINDOW or len(every) < 2 * PREFIX_WINDOW or fmean(first) <= 0.0:
        return
    was, now = fmean(first), fmean(share)
    scale = max(1.0, abs(fmean(begun)), abs(fmean(alone)))
    gap = (fmean(begun) - fmean(alone)) / scale
    error = math.sqrt((variance(begun) + variance(alone)) / PREFIX_WINDOW) / scale
    risen = (fmean(alone) - fmean(every[:PREFIX_WINDOW])) / scale
    if now > SHORTENED * was or gap - 2.0 * error < PREFIX_GAP or risen >= OUTGROWN:
        return
    s = history.settings
    evidence = (
        f"rollouts that go on from the beginning of a demonstration score {fmean(begun):.2f}, the others "
        f"{fmean(alone):.2f}, which is no more than when the stage began, while beginnings went from {was:.0%} to "
        f"{now:.0%} of the demonstration: the policy does not outgrow them"
    )
    warm = "more warmup.steps" if s.recipe else "a longer warm-up"
    longer = f"a longer stage ({s.key('hybrid.steps') if s.recipe else 'max_steps'}), in which they shorten more slowly"
    other = "hybrid.method: hpt" if s.recipe else "HPT()"
    advice = f"{longer}; {warm} first; or {other}, which learns the whole demonstration of what stays unsolved"
    level = "problem" if gap >= PREFIX_GAP_PROBLEM else "warning"
    yield Finding("prefix_not_outgrown", gap / PREFIX_GAP, level, evidence, advice)
