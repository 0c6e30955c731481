"""Alarms about what is sampled: dead groups, truncation, length, repetition, and the sampler's own policy.

A detector looks at the last steps of a `History` and returns what it finds. One step of GRPO is noise, and a sound run
has wild ones that it leaves again. So all look at a window, say nothing before it is full, and take a share for what it
surely is: mean and median are above the limit, the mean by two standard errors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import median

from posttrain.alarms.history import Finding, History, Settings

WINDOW = 5
"""GRPO steps that a mean is taken over: five generations, of 16 prompts and more together."""

DEAD, DEAD_PROBLEM = 0.6, 0.9
"""Share of groups without a spread of scores, which teach nothing. DAPO (arXiv 2503.14476, section 3.2) samples on
until none is left; a third of them is common and does no harm."""

UNSCORED, UNSCORED_PROBLEM = 0.05, 0.25
"""Share of completions that no reward scored, by None or by failing: what they cost to sample is lost."""

TRUNCATED, TRUNCATED_PROBLEM = 0.05, 0.25
"""Share of completions that were cut off: each is a wrong score for a thought that was not finished (DAPO, 3.4)."""

NONE_ENDS = 0.98
"""Share of completions that were cut off from which on none ends, but by chance."""

NOTHING = 0.02
"""Mean rewards up to this one are about 0: the policy can hardly do the task yet."""

LENGTH_WINDOW = 10
LENGTH_R = 0.4
LENGTH_Z = 5.0
LENGTH_GROWN = 0.25
"""Correlation of score and length within groups from which it is worth a look, how many standard errors it must be away
from 0 (it is tested at every step), and how much mean length must have followed it since the stage began for it to be
more than a property of the task: wrong answers of a sound model are often the longer ones."""

LOOPING, LOOPING_PROBLEM = 0.05, 0.2
"""Share of completions that repeat themselves, right ones apart."""

IDENTICAL, IDENTICAL_PROBLEM = 0.3, 0.6
"""Share of completions that are a copy of another one of their group, right and short ones apart; and of groups that
have one and the same of them."""

MISMATCH, MISMATCH_PROBLEM = 0.1, 0.3
"""Mean difference in nats between the log-probabilities that the sampler and the trainer give a sampled token. Rounding
in bfloat16 gives up to 0.05 (see `rollouts.probe`), in float32 nothing to speak of."""

MISMATCH_GROWN = 5.0
MISMATCH_LEAST = 0.02
"""A difference that has grown so many times since the stage began is one too, from so many nats."""


def dead_groups(history: History) -> Iterator[Finding]:
    """Groups whose completions all score the same, right and wrong ones told apart."""
    dead, s = _above(history, "zero_std_share", DEAD, of="groups"), history.settings
    if dead is None:
        return
    dead -= _window(history, "dead_unscored") or 0.0  # another trouble
    if dead <= DEAD:
        return
    right, wrong = (_window(history, name) for name in ("dead_right", "dead_wrong"))
    reward = _window(history, "reward")
    easy = right > wrong if right is not None and wrong is not None else (reward or 0.0) > 0.5
    shares = "" if right is None or wrong is None else f" ({wrong:.0%} all wrong, {right:.0%} all right)"
    more = f"{s.key('hybrid.grpo.num_generations')} to {2 * s.num_generations} (now {s.num_generations})"
    if easy:
        advice = (
            "the prompts are too easy: give the task harder ones, or stop here; "
            f"else set {more} or {s.key('hybrid.grpo.temperature')} above {s.temperature:g}, for groups that differ"
        )
    else:
        warm = "more warmup.steps, " if s.recipe else "a longer warm-up, "
        order = "hybrid.curriculum: {model: warmup} (leaves out what is never solved), " if s.recipe else ""
        advice = f"the prompts are too hard for the policy: {warm}{order}easier prompts"
        # Where nothing is ever right, more tries are not, either
        advice += f", or set {more}" if reward is None or reward > NOTHING else ""
    evidence = (
        f"in {dead:.0%} of the groups of the last {WINDOW} GRPO steps all completions score the same{shares}: "
        "nothing is learned from them"
    )
    about = "right" if easy else "wrong"
    yield Finding("dead_groups", dead / DEAD, _level(dead, DEAD_PROBLEM), evidence, advice, about)


def unscored(history: History) -> Iterator[Finding]:
    """Completions that no reward scored: they have no advantage, and their group has fewer to compare."""
    share, s = _above(history, "unscored_share", UNSCORED), history.settings
    seen = history.last("unscored_share", WINDOW)
    if share is None and 0 < len(seen) < WINDOW and min(seen) == 1.0:
        share = 1.0  # none of a whole step's is no noise
    if share is None:
        return
    whole = _mean(history.last("dead_unscored", WINDOW))
    groups = f", {whole:.0%} of the groups have no score at all" if whole else ""
    steps = f"last {len(seen)} GRPO steps" if len(seen) > 1 else "first GRPO step"
    evidence = (
        f"{share:.0%} of the completions of the {steps} were scored by no reward{groups}: nothing is learned from them"
    )
    checked = "`posttrain rewards check` shows what it gives, errors.jsonl what failed; " if s.recipe else ""
    where = "in `rewards`" if s.recipe else "in reward_funcs"
    advice = (
        f"does a reward forget `return`, return None for these rows, or fail on them? {checked}name a reward {where} "
        "that applies to these rows, or leave the rows out"
    )
    yield Finding("unscored", share / UNSCORED, _level(share, UNSCORED_PROBLEM), evidence, advice)


def truncation(history: History) -> Iterator[Finding]:
    """Completions that the limit on their length cut off."""
    share, s = _above(history, "truncated_share", TRUNCATED), history.settings
    if share is None:
        return
    cut, whole = (_mean(history.last(name, WINDOW)) for name in ("truncated_reward", "finished_reward"))
    scores = "" if cut is None or whole is None else f"; they score {cut:.2f} on average, the others {whole:.2f}"
    limit = s.max_completion_length
    evidence = f"{share:.0%} of the completions of the last {WINDOW} GRPO steps were cut off at {limit} tokens{scores}"
    advice = f"set {s.key('hybrid.grpo.max_completion_length')} to {2 * limit} (now {limit})"
    if not s.method:  # which refuses it
        mask = s.key("hybrid.grpo.mask_truncated_completions")
        advice += f"; where they are only rambling, {mask} to true, which keeps them out of the loss"
    known = [score for score in (cut, whole, _window(history, "reward")) if score is not None]
    ends_in_nothing = share >= NONE_ENDS and s.idle_end
    if share >= NONE_ENDS:
        advice = _none_ends(s)
    if not ends_in_nothing and known and all(abs(score) <= NOTHING for score in known):
        warm = "more warmup.steps" if s.recipe else "a longer warm-up"
        advice = f"the policy rambles: {warm} first; only then {advice}"
    yield Finding("truncation", share / TRUNCATED, _level(share, TRUNCATED_PROBLEM), evidence, advice)


def _none_ends(s: Settings) -> str:
    """What to do where all are cut off: more room is filled as well, and masked, nothing is left to learn from."""
    own = "warmup.args.eos_token" if s.recipe else "tokenizer.eos_token"
    if s.idle_end:
        return (
            f"demonstrations end in {s.idle_end}, which ends no completion: set {own} to it, or add it to "
            "eos_token_id in the model's generation_config.json; no limit is long enough for a policy that cannot end"
        )
    warm = "more warmup.steps" if s.recipe else "a longer warm-up"
    return (
        f"look at the latest completions: where more follows an answer, what ends one is not known as an end (set "
        f"{own} to the token that demonstrations end in) or not learnt ({warm} on demonstrations that end); where no "
        f"answer is reached, set {s.key('hybrid.grpo.max_completion_length')} to {2 * s.max_completion_length} (now "
        f"{s.max_completion_length})"
    )


def length_correlation(history: History) -> Iterator[Finding]:
    """Scores that go with the length of a completion: Fisher's z of each generation's r, weighted by its rows."""
    s = history.settings
    recent = [step.values for step in history.generations[-LENGTH_WINDOW:]]
    pairs = [(r, n) for v in recent if (r := v.get("length_r")) is not None and (n := v.get("length_n"))]
    weights = [max(n - 1.0, 0.0) for _, n in pairs]  # Fisher's z of n degrees of freedom has the variance 1 / (n - 1)
    if len(recent) < LENGTH_WINDOW or len(pairs) < LENGTH_WINDOW / 2 or not sum(weights):
        return
    zs = [math.atanh(max(-0.999, min(0.999, r))) for r, _ in pairs]
    z = sum(w * each for w, each in zip(weights, zs, strict=True)) / sum(weights)
    r, errors = math.tanh(z), abs(z) * math.sqrt(sum(weights))
    if abs(r) < LENGTH_R or errors < LENGTH_Z:
        return
    before, now = _mean(history.first("completion_length", WINDOW)), _window(history, "completion_length")
    moved = (now / before - 1.0) if before and now else 0.0
    follows = moved * r > 0 and abs(moved) >= LENGTH_GROWN
    grew = f"; completions are {abs(moved):.0%} {'longer' if moved > 0 else 'shorter'} than when the stage began"
    evidence = (
        f"within groups, {'longer' if r > 0 else 'shorter'} completions score higher: r = {r:.2f} over the last "
        f"{len(pairs)} generations ({errors:.0f} standard errors from 0){grew if abs(moved) >= 0.05 else ''}"
    )
    biased = s.loss_type == "grpo"  # it divides by each completion's length: Dr. GRPO, arXiv 2503.20783, section 3.1
    what = "padding an answer, or for saying more of them" if r > 0 else "answering without working it out"
    advice = (
        f"look at the best and worst completions of a step: does the reward pay for {what}? If so, mend the reward"
        + (f"; set {s.key('hybrid.grpo.loss_type')} to dapo, which does not favour a length" if biased else "")
    )
    level = "problem" if follows else "warning"
    yield Finding("length_correlation", abs(r) / LENGTH_R, level, evidence, advice, "longer" if r > 0 else "shorter")


def repetition(history: History) -> Iterator[Finding]:
    """Completions that repeat themselves, or each other."""
    s = history.settings
    loops = _above(history, "looping", LOOPING)
    if loops is not None:
        evidence = f"{loops:.0%} of the completions of the last {WINDOW} GRPO steps say the same over and over"
        advice = (
            f"lower {s.key('hybrid.learning_rate')} (now {s.learning_rate:g}) or set {s.key('hybrid.grpo.beta')} to "
            f"0.04, if it began in this stage; else train the warm-up on demonstrations that end"
        )
        level = _level(loops, LOOPING_PROBLEM)
        yield Finding("repetition", loops / LOOPING, level, evidence, advice, "loops")
    for name, about, said in (
        ("identical", "copies", "are a copy of another completion of the same prompt, and not right"),
        ("common", "one for all", "of the prompts got one and the same answer, which is not right"),
    ):
        share = _above(history, name, IDENTICAL, of="groups" if name == "common" else "completions")
        if share is None:
            continue
        of = "of the completions" if name == "identical" else ""
        evidence = f"{share:.0%} {of} {said} (last {WINDOW} GRPO steps)".replace("  ", " ")
        advice = (
            f"set {s.key('hybrid.grpo.temperature')} above {s.temperature:g}, or "
            f"{s.key('hybrid.grpo.entropy_coef')} to 0.001; look whether the reward pays for an answer that fits "
            "every prompt"
        )
        yield Finding("repetition", share / IDENTICAL, _level(share, IDENTICAL_PROBLEM), evidence, advice, about)


def sampler_mismatch(history: History) -> Iterator[Finding]:
    """Log-probabilities of the engine that samples, against those of the policy that is trained."""
    s, name = history.settings, "sampling/logp_difference"
    gap, largest = _window(history, name), max(history.last(f"{name}_max", WINDOW), default=0.0)
    over = f"last {WINDOW} GRPO steps"
    stale = max(history.last("sampling/stale_steps", WINDOW), default=0.0)
    if gap is None or stale:  # where nothing corrects for it, or updates have come in between, only probes measure it
        name, over = "sampling/probe_mean", "last probe"
        gap, largest = _mean(history.last(name, 1)), max(history.last("sampling/probe_max", 1), default=0.0)
    if gap is None:
        return
    before = _mean(history.first(name, WINDOW)) or 0.0
    grown = before > 0.0 and gap >= MISMATCH_LEAST and gap >= MISMATCH_GROWN * before
    if gap < MISMATCH and not grown:
        return
    ratio = _window(history, "sampling/ratio_mean")
    evidence = (
        f"the sampler's log-probabilities differ from the trainer's by {gap:.3f} nats a token on average and "
        f"{largest:.1f} at most ({over})"
        + (f", {gap / before:.0f} times what they did when the stage began" if grown else "")
        + (f"; mean importance ratio {ratio:.2f}" if ratio is not None else "")
    )
    advice = (
        f"set {s.key('rollout.probe_every')} to 1 to see whether weights arrive; train in bfloat16 only where the "
        f"engine does too; leave {s.key('hybrid.grpo.top_p')} at 1 and {s.key('hybrid.grpo.top_k')} at 0; "
        f"{s.key('rollout.engine: transformers')} samples from the trainer's own model"
    )
    severity = max(gap / MISMATCH, gap / (MISMATCH_GROWN * before) if grown else 0.0)
    yield Finding("sampler_mismatch", severity, _level(gap, MISMATCH_PROBLEM), evidence, advice)


def _above(history: History, name: str, limit: float, of: str = "completions") -> float | None:
    """The mean share over the window where it surely is above `limit`, else `None`; `of` what it is a share."""
    share = _window(history, name)
    if share is None or min(share, median(history.last(name, WINDOW))) <= limit:
        return None
    count = sum(history.last(of, WINDOW))  # a record of an older version has none
    error = math.sqrt(share * (1.0 - share) / count) if count else 0.0
    return share if share - 2.0 * error > limit else None


def _window(history: History, name: str) -> float | None:
    """The mean over the window; `None` until it is full."""
    values = history.last(name, WINDOW)
    return _mean(values) if len(values) == WINDOW else None


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _level(value: float, problem: float) -> str:
    return "problem" if value >= problem else "warning"
