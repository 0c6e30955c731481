"""Why a whole run mixed SFT and GRPO as it did: how p moved and by what, where the time went, what changed when."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from posttrain.controllers import SASR
from posttrain.drawing.page import visible
from posttrain.reading.decisions import Decision
from posttrain.reading.explain import (
    CONTROLLER,
    GRPO_PHASES,
    SFT_PHASES,
    Recorded,
    no_spread,
    refilled,
    taught_nothing,
)
from posttrain.reading.explain_curriculum import of_demonstrations, of_passes
from posttrain.reading.explain_curriculum import of_run as of_draws
from posttrain.reading.explain_decision import number
from posttrain.reading.explain_method import of_run
from posttrain.rundir import reading as run_reading
from posttrain.rundir.reading import Lines
from posttrain.watching import terminal
from posttrain.watching.progress import duration

PARTS = 4


def explain_run(run: Recorded) -> dict[str, Any]:
    """A run in sentences, with the numbers they are made of.

    Returns:
        `run`, `controller` (its settings, `None` if not known), `steps`, `sentences`, `parts` (a row a quarter of the
        recorded hybrid steps), `follows` (whether every recorded decision follows from the recorded numbers; `None` if
        none could be told), `differs` ([step, in words]).
    """
    lines = [each.record for each in run.decisions]
    differs = [[each.step, text] for each in run.decisions for text in each.differs]
    sentences = [_stage(run, lines), *of_demonstrations(run.warmup, _quarters(run.warmup))]
    if lines:
        sentences += [_kinds(run, lines), *_moves(lines), *_norms(run, lines), *_guard(run), *_refreshed(run.decisions)]
        sentences += [
            *of_run(lines, _quarters(lines)),
            *of_draws(lines, _quarters(lines)),
            *of_passes(run.layout.curriculum_file),
            *_nothing(run, lines),
            *_skipped(lines),
            *_time(lines),
        ]
    sentences += [*_results(run), _check(run, differs)] if lines else _results(run)
    return {
        "run": run.name,
        "controller": asdict(run.controller) if run.controller else None,  # type: ignore[call-overload]
        "steps": len(lines),
        "sentences": [text for text in sentences if text],
        "parts": [_part(part) for part in _quarters(lines)],
        "follows": None if not any(each.mix or each.differs for each in run.decisions) else not differs,
        "differs": differs,
    }


def _stage(run: Recorded, lines: Lines) -> str:
    section = run.recipe.get("hybrid") or {}
    planned, sessions = section.get("steps"), len(run_reading.environment(run.layout).get("sessions") or [])
    warmup = f"The warm-up took {_count(len(run.warmup), 'step')}" if run.warmup else "There was no warm-up"
    norm = run_reading.g_warmup(run.layout)
    warmup += f" and ended with an SFT gradient norm of {number(norm)}" if norm is not None else ""
    resumed = f" The run was taken up again {_times(sessions - 1)}." if sessions > 1 else ""
    if planned == 0:
        return f"{warmup}. The recipe has no hybrid stage, so there is no mix to explain.{resumed}"
    if not lines:
        return f"{warmup}. No hybrid step is recorded yet, so there is no mix to explain.{resumed}"
    done = f"{len(lines)} of {planned}" if planned else str(len(lines))
    ended = "hybrid" in run_reading.stages_done(run.layout)
    state = "" if ended or not planned else ", and the stage is not done"
    return f"{warmup}. The hybrid stage has {done} steps{state}.{resumed}"


def _kinds(run: Recorded, lines: Lines) -> str:
    kinds = Counter(_kind(line) for line in lines)
    made = ", ".join(f"{count} {name}" for name, count in kinds.most_common())
    name = run.controller.name if run.controller else "not known"
    text = f"The steps were {made}; the controller is {name}{_settings(run)}."
    p = [line["p"] for line in lines if line.get("p") is not None]
    drawn = getattr(run.controller, "mode", None) == "step"
    if drawn and len(p) == len(lines) and 0.0 < sum(p) < len(p):
        spread = math.sqrt(sum(each * (1 - each) for each in p))
        off = (kinds["SFT"] - sum(p)) / spread if spread else 0.0
        luck = "as draws go" if abs(off) < 2 else f"{abs(off):.1f} standard deviations of luck away"
        text += f" Their p add up to {sum(p):.1f} SFT steps, and {kinds['SFT']} were drawn: {luck}."
    return text


def _settings(run: Recorded) -> str:
    if run.controller is None:
        return ""
    from posttrain.reading.replay_shown import settings_in_words

    said = settings_in_words(run.controller).removeprefix(run.controller.name).strip()
    return f" ({said.replace(' ', ', ')})" if said else ""


def _moves(lines: Lines) -> list[str]:
    known = [(line["step"], line["p"]) for line in lines if line.get("p") is not None]
    if not known:
        return []
    values = [p for _, p in known]
    if min(values) == max(values):
        return [f"p was {values[0]:.3f} all along."]
    low, high = (pick(known, key=lambda each: each[1]) for pick in (min, max))
    means = [part["p"] for part in map(_part, _quarters(lines))]
    parts = " -> ".join("-" if mean is None else f"{mean:.2f}" for mean in means)
    return [
        f"p went from {values[0]:.3f} at step {known[0][0]} to {values[-1]:.3f} at step {known[-1][0]} "
        f"(mean by quarter: {parts}), lowest {low[1]:.3f} at step {low[0]}, highest {high[1]:.3f} at step {high[0]}."
    ]


def _norms(run: Recorded, lines: Lines) -> list[str]:
    if not isinstance(run.controller, SASR):
        return []
    warm = next((s["g_warmup"] for line in lines if (s := line.get("controller") or {}).get("g_warmup")), None)
    measured = [(line["step"], line["sft_norm"]) for line in lines if line.get("sft_norm") is not None]
    if warm is None or not measured:
        return ["No SFT gradient was measured in this stage, so G_last stayed at the warm-up's norm."] if warm else []
    quarters = [
        [norm for step, norm in measured if part[0]["step"] <= step <= part[-1]["step"]] for part in _quarters(lines)
    ]
    ratios = [f"{_mean(part) / warm:.2f}" if part else "-" for part in quarters]
    gamma = run.controller.gamma
    text = (
        f"p is 1/2 where G_last = gamma * G_warmup = {gamma:g} * {number(warm)} = {number(gamma * warm)}. "
        f"The SFT norms were by quarter {', '.join(ratios)} times G_warmup, from 1 at the start"
    )
    # G_last is G_warmup until a norm is measured, so that is what the last ones are to be compared with
    moved = next(mean for part in reversed(quarters) if (mean := _mean(part)) is not None) / warm
    way = "down" if moved < 0.9 else "up" if moved > 1.1 else ""
    return [text + (f": alone they pulled p {way} over the stage." if way else ".")]


def _guard(run: Recorded) -> list[str]:
    if not isinstance(run.controller, SASR):
        return []
    kls = [(each.step, each.record["kl"]) for each in run.decisions if each.record.get("kl") is not None]
    highest = max(kls, key=lambda each: each[1], default=None)
    seen = f"the highest KL was {number(highest[1])}, at step {highest[0]}" if highest else "no KL was measured"
    target = run.controller.kl_target
    if target is None:
        return [f"The KL guard was off (kl_target is null); {seen}."]
    acted, added = [], []
    for each in run.decisions:
        if each.before is None or each.mix is None or each.mix.p is None:
            continue
        last = each.before["g_last"]
        plain = last / (last + run.controller.gamma * each.before["g_warmup"])
        if each.mix.p != plain:
            acted.append(each.step)
            added.append(each.mix.p - plain)
    if not acted:
        return [f"The KL guard never acted: its target is {target:g}, and {seen}."]
    return [
        f"The KL guard acted at {len(acted)} of {len(run.decisions)} steps ({ranges(acted)}) and added "
        f"{sum(added) / len(added):.2f} to p there on average; its target is {target:g}, and {seen}."
    ]


def _refreshed(taken: Sequence[Decision]) -> list[str]:
    steps = [each.step for each in taken if each.mix is not None and each.mix.measure_sft]
    return [f"G_last had gone stale and was measured without a step on it at {ranges(steps)}."] if steps else []


def _nothing(run: Recorded, lines: Lines) -> list[str]:
    grpo = [line for line in lines if (line.get("mix") or {}).get("grpo")]
    if not grpo:
        return ["There was no GRPO step: no completion was sampled in training."]
    found = []
    if not any((line.get("mix") or {}).get("sft") for line in lines):
        found.append("There was no SFT step in this stage.")
    shares = [line["zero_std_share"] for line in grpo if line.get("zero_std_share") is not None]
    dead = [line["step"] for line in grpo if taught_nothing(line, run.recipe)]
    other = [line["step"] for line in grpo if no_spread(line) and not taught_nothing(line, run.recipe)]
    if shares:
        found.append(f"On average {_mean(shares):.0%} of a GRPO step's groups had no spread in their rewards.")
    found += refilled([line["refill"] for line in grpo if line.get("refill")])
    if lost := _mean([line["unscored_share"] for line in grpo if line.get("unscored_share") is not None]):
        found.append(f"On average {lost:.1%} of a GRPO step's completions were scored by no reward.")
    if dead:
        found.append(
            f"At {_count(len(dead), 'GRPO step')} ({ranges(dead)}) no group had one: every advantage was 0 and so the "
            "loss, and the step taught nothing."
        )
    if other:
        found.append(
            f"At {_count(len(other), 'GRPO step')} ({ranges(other)}) no group had one: no advantage came from the "
            "rewards there."
        )
    return found


def _skipped(lines: Lines) -> list[str]:
    steps = [line["step"] for line in lines if line.get("skipped")]
    return [f"Skipped, for a gradient that was not finite: {ranges(steps)}."] if steps else []


def _time(lines: Lines) -> list[str]:
    seconds: Counter[str] = Counter()
    for line in lines:
        seconds.update({key: value for key, value in (line.get("seconds") or {}).items() if value})
    total = seconds["total"]
    if not total:
        return []
    sft, grpo = (sum(seconds[phase] for phase in phases) for phases in (SFT_PHASES, GRPO_PHASES))
    phases = ", ".join(f"{phase} {seconds[phase] / total:.0%}" for phase in GRPO_PHASES if seconds[phase])
    return [
        f"The steps took {duration(total)}: {sft / total:.0%} in the SFT half, {grpo / total:.0%} in the GRPO half"
        + (f" ({phases})" if phases else "")
        + f", {max(0.0, 1 - (sft + grpo) / total):.0%} in the rest."
    ]


def _results(run: Recorded) -> list[str]:
    latest = run_reading.last_evals(run_reading.evals(run.layout))
    shown = [f"{stage} {line['pass@1']:.1%}" for stage, line in latest.items() if line.get("pass@1") is not None]
    return [f"Held-out pass@1: {', '.join(shown)}."] if shown else []


def _check(run: Recorded, differs: list[list[Any]]) -> str:
    told = sum(each.mix is not None for each in run.decisions)
    if run.controller is None:
        return "There is no recipe.yaml: the decisions are as recorded and could not be taken again."
    if not differs:
        return f"All {told} decisions were taken again from the recorded numbers and are as recorded."
    steps = list(dict.fromkeys(step for step, _ in differs))
    changes = run_reading.accepted_changes(run.layout, CONTROLLER)
    if changes and steps[-1] < max(first for first, _ in changes):
        named = "; ".join(
            f"from step {first} on the run went on under changed settings ({', '.join(changed)})"
            for first, changed in changes
        )
        return f"{len(steps)} earlier decisions are not what recipe.yaml's settings give ({ranges(steps)}): {named}."
    return (
        f"{len(steps)} recorded decisions do NOT follow from the recorded numbers under recipe.yaml's settings "
        f"({ranges(steps)}; at step {steps[0]}: {differs[0][1]}). The run may have gone on under changed settings "
        "(--accept-changes); else its files are not of one piece."
    )


# -- parts of the run --------------------------------------------------------------------------------------------------


def _quarters(lines: Lines) -> list[Lines]:
    size = max(1, -(-len(lines) // PARTS))
    return [lines[at : at + size] for at in range(0, len(lines), size)]


def _part(lines: Lines) -> dict[str, Any]:
    kinds = Counter(_kind(line) for line in lines)
    mean = {
        key: _mean([line[key] for line in lines if line.get(key) is not None])
        for key in ("p", "sft_loss", "sft_norm", "grpo_norm", "kl", "reward", "entropy", "zero_std_share")
    }
    counts = {"sft": kinds["SFT"], "grpo": kinds["GRPO"], "both": kinds["of both losses"]}
    return {"from": lines[0]["step"], "to": lines[-1]["step"], **counts, **mean}


def _kind(line: dict[str, Any]) -> str:
    mix = line.get("mix") or {}
    return "of both losses" if mix.get("sft") and mix.get("grpo") else "SFT" if mix.get("sft") else "GRPO"


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def ranges(steps: Iterable[int], most: int = 8) -> str:
    """Step numbers as people write them: 3-7, 12, 30-31; of many runs the first ones."""
    found: list[list[int]] = []
    for step in steps:
        if found and step == found[-1][1] + 1:
            found[-1][1] = step
        else:
            found.append([step, step])
    said = [str(low) if low == high else f"{low}-{high}" for low, high in found]
    name = "step " if len(found) == 1 and found[0][0] == found[0][1] else "steps "
    return name + ", ".join(said[:most]) + (f" and {len(said) - most} more stretches" if len(said) > most else "")


def _count(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number} {what}s"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


# -- on a terminal -----------------------------------------------------------------------------------------------------


def show(told: dict[str, Any], console: Console | None = None) -> None:
    """Print what `explain_run` or `explain_step` told: the sentences, and of a run its quarters."""
    console = console or terminal.console()
    for sentence in told["sentences"]:
        console.print(Text(visible(sentence)), soft_wrap=not console.is_terminal)
    if told.get("parts"):
        console.print(_table(told["parts"]))


def _table(parts: list[dict[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    names = {"sft": "SFT", "grpo": "GRPO", "both": "both", "p": "p", "sft_loss": "SFT loss", "sft_norm": "SFT norm",
             "grpo_norm": "GRPO norm", "kl": "KL", "reward": "reward",
             "zero_std_share": "dead"}  # fmt: skip
    # A loss, norm or reward that is 0 all along says something; a kind of step that there never was does not
    nothing = {key: (None, 0) if key in ("sft", "grpo", "both") else (None,) for key in names}
    shown = [key for key in names if any(part[key] not in nothing[key] for part in parts)]
    table.add_column("steps", no_wrap=True)
    for key in shown:
        table.add_column(names[key], justify="right")
    for part in parts:
        cells = ["-" if (v := part[key]) is None else str(v) if isinstance(v, int) else f"{v:.2g}" for key in shown]
        table.add_row(f"{part['from']}-{part['to']}", *cells)
    return table
