"""Alarms about where the policy goes: entropy, distance from its beginning, rewards and their parts among themselves.

Written as those in `rollouts`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import fmean, median

from posttrain.alarms.history import DRIFT_WINDOW, Finding, History, Settings, Window

WINDOW = 5

ENTROPY, ENTROPY_PROBLEM = 0.25, 0.1
"""Entropy as a share of what it was when the stage began. Reward is bought with entropy and ends where there is none
left (Cui et al., arXiv 2505.22617); a sound run on our quickstart keeps a half."""

SOLVED = 0.9
"""Share of all-right groups from which a policy may well be sure of itself."""

KL_WINDOW = 10
KL, KL_PROBLEM = 0.5, 4.0
"""Nats a token from the policy that the stage began with, without a target, in the median of so many steps. On our
quickstart it stays below 0.1, but for some steps above 0.3 from which the policy comes back by itself, and a run there
that is lost for good (GRPO alone, whose completions do not end any more) is around 0.7."""

KL_TARGET, KL_TARGET_PROBLEM = 3.0, 10.0
"""Multiples of `kl_target`. The controller answers from 1 on; this is where it has not held it."""

DRIFT, DRIFT_PROBLEM = 0.1, 0.25
DRIFT_ERRORS = 5.0
"""How much a mean over `DRIFT_WINDOW` generations has to move, on a reward's scale of 0 to 1 (of a larger scale: as a
share); and how many standard errors that must be: the best of all earlier windows is taken, of each pair."""


def entropy_collapse(history: History) -> Iterator[Finding]:
    """Entropy of the policy on its own completions, against the stage's first steps."""
    first, last, s = history.first("entropy", WINDOW), history.last("entropy", WINDOW), history.settings
    if len(history.last("entropy", 2 * WINDOW)) < 2 * WINDOW:
        return
    before, now = median(first), median(last)
    if not before > 0.0 or now >= ENTROPY * before:
        return
    solved = fmean(history.last("dead_right", WINDOW) or [0.0]) >= SOLVED
    level = "problem" if now < ENTROPY_PROBLEM * before and not solved else "warning"
    evidence = (
        f"entropy is {now:.3g} nats a token, {now / before:.0%} of the {before:.3g} that the stage began with"
        + ("; nearly all groups are solved, which explains it" if solved else "")
    )
    advice = (
        f"set {s.key('hybrid.grpo.entropy_coef')} to 0.001 or {s.key('hybrid.grpo.epsilon_high')} to 0.28 (unlikely "
        f"tokens may rise further); or lower {s.key('hybrid.learning_rate')} (now {s.learning_rate:g})"
    )
    yield Finding("entropy_collapse", ENTROPY * before / max(now, 1e-9), level, evidence, advice)


def kl_blow_up(history: History) -> Iterator[Finding]:
    """The KL to the policy that the stage began with: the median of a few steps, for single ones are noisy."""
    s, last = history.settings, history.last("kl", KL_WINDOW)
    gentler = f"lower {s.key('hybrid.learning_rate')} (now {s.learning_rate:g})"
    kl = history.latest.values.get("kl") if history.latest else None
    if kl is not None and not math.isfinite(kl):
        advice = f"{gentler}, set {s.key('hybrid.max_grad_norm')} to 0.1, or train in float32"
        yield Finding("kl_blow_up", math.inf, "problem", f"the KL is {kl}: the policy gives no numbers", advice)
        return
    if len(last) < KL_WINDOW:
        return
    now, before, target = median(last), median(history.first("kl", KL_WINDOW)), s.kl_target
    if target:
        severity, problem = now / (KL_TARGET * target), KL_TARGET_PROBLEM / KL_TARGET
        seen = f"{now / target:.1f} times kl_target ({target:g})"
        advice = f"{gentler}, or raise {s.key('hybrid.controller.kl_target')} if the policy is better for it"
    else:
        severity, problem = now / KL, KL_PROBLEM / KL
        seen = f"it was {before:.2g} in the first {KL_WINDOW}"
        pull = "set hybrid.controller.kl_target to 0.1 under the controller sasr" if s.recipe else "SASR(kl_target=0.1)"
        advice = f"{gentler}; {pull} (pulls towards the demonstrations), or {s.key('hybrid.grpo.beta')} to 0.04"
    if severity < 1.0:
        return
    level = "problem" if severity >= problem else "warning"
    evidence = (
        f"the KL to the policy before this stage is {now:.2g} nats a token over the last {KL_WINDOW} GRPO steps; {seen}"
    )
    yield Finding("kl_blow_up", severity, level, evidence, advice)


def parts_drift(history: History) -> Iterator[Finding]:
    """One reward, or part of one, that has risen while another has fallen from its best.

    A sign of a reward that is gamed. For each that has fallen, the one that has risen most is named.
    """
    if len(history.series) < 2:
        return
    windows = {name: series.windows() for name, series in history.series.items()}
    for name, seen in windows.items():
        *before, now = seen
        peaks = [(window[0], at) for at, window in enumerate(before) if window is not None]
        if now is None or not peaks:
            continue
        _, peak = max(peaks)
        if not _moved(now, _there(seen[peak])):
            continue
        risen = {
            other: _share(_there(its[-1]), _there(its[peak]))
            for other, its in windows.items()
            if other != name and its[peak] and its[-1] and _moved(_there(its[peak]), _there(its[-1]))
        }
        if risen:
            other = max(risen, key=risen.__getitem__)
            yield _drifted(history.settings, (name, other), [windows[one] for one in (name, other)], peak)


def _there(window: Window | None) -> Window:
    assert window is not None
    return window


def _drifted(s: Settings, names: tuple[str, str], windows: list[list[Window | None]], peak: int) -> Finding:
    (name, other), (fell, rose) = names, windows
    (was, _), (now, _), (low, _), (high, _) = (_there(one[at]) for one in (fell, rose) for at in (peak, -1))
    evidence = (
        f"{name} fell from {was:.2f} to {now:.2f} while {other} rose from {low:.2f} to {high:.2f} (means of "
        f"{DRIFT_WINDOW} GRPO steps)"
    )
    weights = "its weight under rewards" if s.recipe else "its place in reward_weights"
    advice = (
        f"look at the latest completions that score high: do they win {other} at the cost of {name}? Then weigh "
        f"{name} more ({weights}), or pay {other} only where {name} holds"
    )
    fall = _share(_there(fell[peak]), _there(fell[-1]))
    level = "problem" if fall >= DRIFT_PROBLEM else "warning"
    return Finding("parts_drift", fall / DRIFT, level, evidence, advice, f"{name}, {other}")


def _moved(low: Window, high: Window) -> bool:
    """Whether the second is above the first by more than noise."""
    return _share(high, low) >= DRIFT and high[0] - low[0] >= DRIFT_ERRORS * math.sqrt(low[1] + high[1])


def _share(high: Window, low: Window) -> float:
    return (high[0] - low[0]) / max(1.0, abs(high[0]), abs(low[0]))
