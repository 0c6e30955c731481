"""What a method made of groups, in sentences with the numbers of `method` in steps.jsonl: of a step, and of a run.

A line's reasons are the method's own words; all else is told of by what a line has, whatever the method.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from posttrain.methods import METHODS
from posttrain.reading.explain_decision import number

Seen = Mapping[str, Any]


def of_step(seen: Seen) -> list[str]:
    """What a method made of the step's groups, which only steps that sample anew have, and of what waits."""
    if not seen.get("groups"):
        return _waits(seen)
    return [
        *_waits(seen), *_groups(seen), *_gate(seen), *_trained(seen), *_begun(seen), *_again(seen), *_weighed(seen),
    ]  # fmt: skip


def _waits(seen: Seen) -> list[str]:
    """Of demonstrations that wait for an SFT step."""
    if seen.get("waiting") is None:
        return []
    left = f"{seen['waiting']:,} demonstrations wait behind it"
    if seen.get("used"):
        return [
            f"The method {seen['name']} took it: enough prompts that no rollout had solved were waiting, and SFT "
            f"trained on the demonstrations of the {seen['used']:,} oldest. {left}."
        ]
    return [f"{seen['entered']:,} prompts that no rollout solved began to wait for an SFT step; {left}."]


def _groups(seen: Seen) -> list[str]:
    reasons = "; ".join(f"{count} {reason}" for reason, count in sorted(seen["groups"].items()) if reason)
    if reasons:
        return [f"The method {seen['name']} treated its groups so: {reasons}."]
    paired, count = seen.get("paired"), sum(seen["groups"].values())
    return [f"The method {seen['name']}: {paired} of {count} groups had a demonstration."] if paired is not None else []


def _gate(seen: Seen) -> list[str]:
    share = seen.get("gate_open")
    if share is None:
        return []
    paired = seen["paired"]
    return [f"Its gate let the demonstration in for {round(share * paired)} of {paired} groups with one ({share:.0%})."]


def _trained(seen: Seen) -> list[str]:
    if not seen.get("demonstrations"):
        return []
    nll = f", at {number(seen['demonstration_nll'])} nats each" if seen.get("demonstration_nll") else ""
    return [
        f"{seen['demonstrations']} demonstrations of {seen['demonstration_tokens']} tokens{nll}, were trained on "
        "beside the rollouts."
    ]


def _begun(seen: Seen) -> list[str]:
    method = METHODS.get(str(seen.get("name")))
    if not seen.get("begun_rows"):
        none = seen.get("begun_rows") == 0 and method is not None and method.begins_rollouts
        return ["No rollout went on from the beginning of a demonstration."] if none else []
    text = f"{seen['begun_rows']} rollouts went on from {seen['begun_tokens']} tokens of demonstrations in all"
    share, begun, alone = (seen.get(name) for name in ("begun_share", "begun_reward", "alone_reward"))
    text += f", {share:.0%} of one on average" if share is not None else ""
    text += f", and scored {number(begun)}" if begun is not None else ""
    text += f"; those without a beginning scored {number(alone)}" if alone is not None else ""
    return [f"{text}."]


def _again(seen: Seen) -> list[str]:
    if not seen.get("sampled_again"):
        return []
    return [f"{seen['sampled_again']} rollouts were sampled in place of others that were thrown away."]


def _weighed(seen: Seen) -> list[str]:
    """What a teacher that was shown demonstrations said of tokens (RLSD), or entropies of rows (SRFT)."""
    sentences: list[str] = []
    if seen.get("teacher_weight") is not None:
        sentences.append(
            f"The teacher, shown the demonstrations, had the share {number(seen['teacher_share'])} in the advantages: "
            f"a token counted {number(seen['teacher_weight'])} times its own in the mean, and "
            f"{seen['teacher_clipped']:.0%} of them were at the ratio's bounds."
        )
    elif seen.get("teacher_share") == 0.0 and seen.get("teacher_kl") is None:
        sentences.append("The teacher's share in the advantages has fallen to 0: the step was GRPO.")
    if seen.get("teacher_kl") is not None:
        sentences.append(f"The KL to the teacher over the whole vocabulary was {number(seen['teacher_kl'])} a token.")
    weights = {"nll_weight": "the NLL of a demonstration", "right_weight": "a right rollout"}
    known = [f"{what} {number(seen[key])}" for key, what in weights.items() if seen.get(key) is not None]
    if known:
        sentences.append(f"By the entropy of its tokens {' and '.join(known)} counted in the mean.")
    told = {"teacher_share", "teacher_weight", "teacher_clipped", "teacher_kl", *weights}
    method = METHODS.get(str(seen.get("name")))
    others = [name for name in (method.measures if method else ()) if name not in told and seen.get(name) is not None]
    sentences += [f"{name.replace('_', ' ').capitalize()}: {number(seen[name])}." for name in others]
    return sentences


# ---- of a run ----


def of_run(lines: Sequence[Mapping[str, Any]], quarters: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
    """What a method made of a stage's groups.

    Args:
        lines: The hybrid stage's lines of steps.jsonl.
        quarters: The same in parts.
    """
    seen = [line["method"] for line in lines if (line.get("method") or {}).get("groups")]
    every = [line["method"] for line in lines if line.get("method")]
    if not seen:
        return []
    parts = [[line["method"] for line in part if (line.get("method") or {}).get("groups")] for part in quarters]
    return [*_groups_of(seen), *_gates_of(seen, parts), *_trained_of(seen), *_begun_of(seen, parts), *_waited(every)]


def _groups_of(seen: Sequence[Seen]) -> list[str]:
    reasons: Counter[str] = Counter()
    for each in seen:
        reasons.update(each["groups"])
    count, paired = sum(reasons.values()), [each["paired"] for each in seen if each.get("paired") is not None]
    with_one = f", {sum(paired):,} with a demonstration" if len(paired) == len(seen) else ""
    text = f"The method {seen[-1]['name']} had {count:,} groups at {len(seen)} steps{with_one}"
    told = "; ".join(f"{times:,} ({times / count:.0%}) {reason}" for reason, times in reasons.most_common() if reason)
    return [f"{text}: {told}." if told else f"{text}."]


def _gates_of(seen: Sequence[Seen], parts: Sequence[Sequence[Seen]]) -> list[str]:
    if not any(each.get("gate_open") is not None for each in seen):
        return []
    return [
        f"Its gate let the demonstration in for {_gate_share(seen):.0%} of these, by quarter {_by(parts, _gate_share)}."
    ]


def _gate_share(seen: Sequence[Seen]) -> float | None:
    gates = [(each["gate_open"], each["paired"]) for each in seen if each.get("gate_open") is not None]
    groups = sum(paired for _, paired in gates)
    return sum(share * paired for share, paired in gates) / groups if groups else None


def _trained_of(seen: Sequence[Seen]) -> list[str]:
    with_some = [each for each in seen if each.get("demonstrations")]
    if not with_some:
        return []
    count, tokens = (sum(each[name] for each in with_some) for name in ("demonstrations", "demonstration_tokens"))
    nlls = [each["demonstration_nll"] for each in with_some if each.get("demonstration_nll") is not None]
    moved = f"; their NLL went from {number(nlls[0])} to {number(nlls[-1])} nats a token" if len(nlls) > 1 else ""
    return [f"{count:,} demonstrations of {tokens:,} tokens were trained on beside rollouts{moved}."]


def _begun_of(seen: Sequence[Seen], parts: Sequence[Sequence[Seen]]) -> list[str]:
    rows, tokens = (sum(each.get(name) or 0 for each in seen) for name in ("begun_rows", "begun_tokens"))
    if not rows:
        return []

    def mean(name: str) -> Callable[[Sequence[Seen]], float | None]:
        def of(some: Sequence[Seen]) -> float | None:
            values = [each[name] for each in some if each.get(name) is not None]
            return sum(values) / len(values) if values else None

        return of

    text = f"{rows:,} rollouts went on from {tokens:,} tokens of demonstrations in all"
    if not any(each.get("begun_share") is not None for each in seen):
        return [f"{text}."]
    return [
        f"{text}; by quarter a beginning was {_by(parts, mean('begun_share'))} of the demonstration, and scored "
        f"{_by(parts, mean('begun_reward'), percent=False)}, rollouts without one "
        f"{_by(parts, mean('alone_reward'), percent=False)}."
    ]


def _by(
    parts: Sequence[Sequence[Seen]], value: Callable[[Sequence[Seen]], float | None], *, percent: bool = True
) -> str:
    found = [value(part) for part in parts]
    return " -> ".join("-" if each is None else f"{each:.0%}" if percent else f"{each:.2f}" for each in found)


def _waited(every: Sequence[Seen]) -> list[str]:
    if not any(each.get("waiting") is not None for each in every):
        return []
    used = [each["used"] for each in every if each.get("used")]
    return [
        f"{sum(each.get('entered') or 0 for each in every):,} prompts that no rollout solved began to wait; "
        f"{len(used)} SFT steps took {sum(used):,} of their demonstrations, and {every[-1].get('waiting') or 0:,} wait."
    ]
