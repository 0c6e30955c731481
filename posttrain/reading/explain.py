"""Why a run mixed SFT and GRPO as it did, from its record: of one step, or of the whole run (`explain_summary`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.controllers import Controller
from posttrain.errors import ConfigError
from posttrain.reading.decisions import Decision, controller_of, decisions, of_method
from posttrain.reading.explain_curriculum import of_step as of_draws
from posttrain.reading.explain_decision import kind_of, number, why
from posttrain.reading.explain_method import of_step
from posttrain.rundir import reading as run_reading
from posttrain.rundir.layout import Layout

SFT_PHASES, GRPO_PHASES = ("sft",), ("generate", "score", "kl", "grpo")
"""Phases of `seconds` by the half they serve; `scored_ahead` passes while sampling does, within `generate`."""
CONTROLLER = "hybrid.controller"
"""The keys of a recipe that a decision comes from."""


@dataclass(frozen=True)
class Recorded:
    """A run, read for explaining.

    Attributes:
        layout: Where it is.
        recipe: Its recipe; empty of a trainer used as a library.
        controller: Its controller; `None` without a recipe.
        warmup: The warm-up's lines of steps.jsonl.
        decisions: The hybrid stage's, by step.
    """

    layout: Layout
    recipe: dict[str, Any]
    controller: Controller | None
    warmup: list[dict[str, Any]]
    decisions: list[Decision]

    @property
    def name(self) -> str:
        """The run's name."""
        return self.layout.path.resolve().name


def read(path: str | Path) -> Recorded:
    """Read a run and take its decisions again.

    Raises:
        ConfigError: The folder is no run.
        DataError: A line of steps.jsonl is broken.
    """
    layout = run_reading.open_run(path)
    recipe = run_reading.recipe(layout) if layout.recipe_file.exists() else {}
    controller = controller_of(recipe) if recipe else None
    taken = decisions(controller, run_reading.steps(layout, "hybrid"))
    return Recorded(layout, recipe, controller, run_reading.steps(layout, "warmup"), taken)


def explain_step(run: Recorded, step: int) -> dict[str, Any]:
    """One step of the hybrid stage.

    Returns:
        `step`, `kind`, `sentences` (why the mix, what the step showed, where its time went), `follows` (whether the
        record is what follows from the recorded numbers; `None` if that cannot be told), `differs` (where not, in
        words), and the numbers: `p`, `u`, `before`, `after`, `record`.

    Raises:
        ConfigError: The run has no such step.
    """
    from posttrain.controllers.base import draw

    place = next((place for place, each in enumerate(run.decisions) if each.step == step), None)
    if place is None:
        raise _no_such_step(run, step)
    decision, record = run.decisions[place], run.decisions[place].record
    kind = kind_of(record.get("mix") or {})
    sentences = [f"Step {step} was {kind}."]
    if decision.mix is None or decision.before is None or run.controller is None:
        sentences.append(f'The record says why: "{record.get("reason") or "nothing"}".')
        if not run.recipe:
            sentences.append("There is no recipe.yaml, so the settings that p came from are not known.")
    else:
        kl_step = _last_measured(run.decisions[:place], "kl")
        if of_method(record) is None:  # of_step tells of one that is
            sentences += why(run.controller, decision.before, decision.mix, kl_step)
    sentences += [f"This does not add up: {text}." for text in decision.differs]
    later = run_reading.accepted_changes(run.layout, CONTROLLER) if decision.differs else []
    sentences += [
        f"Settings were changed later, from step {first} on: {', '.join(changed)}."
        for first, changed in later
        if first > step
    ]
    sentences += of_step(record.get("method") or {})
    sentences += of_draws(record.get("curriculum"))
    sentences += _showed(record, run.recipe)
    sentences += _next(run.decisions[place + 1 : place + 2], record)
    sentences += [text for text in [seconds_in_words(record.get("seconds") or {})] if text]
    drawn = decision.before is not None and getattr(run.controller, "mode", None) == "step"
    return {
        "step": step,
        "kind": kind,
        "sentences": sentences,
        "follows": None if decision.mix is None and not decision.differs else not decision.differs,
        "differs": list(decision.differs),
        "p": record.get("p"),
        "u": draw(decision.before) if drawn and decision.before is not None else None,
        "before": decision.before,
        "after": record.get("controller"),
        "record": record,
    }


def explain_warmup_step(run: Recorded, step: int) -> dict[str, Any]:
    """One step of the warm-up: which demonstrations were drawn for it and why, and what it showed.

    Returns:
        `step`, `kind`, `sentences`, `follows` (`None`: nothing is decided in a warm-up) and `record`.

    Raises:
        ConfigError: The run has no such step.
    """
    record = next((line for line in run.warmup if line["step"] == step), None)
    if record is None:
        steps = [line["step"] for line in run.warmup]
        expected = f"one of {steps[0]} to {steps[-1]}" if steps else "a run with a warm-up"
        raise ConfigError(f"{step}: no such warm-up step is recorded", expected=expected, where="--warmup-step")
    shown = _showed({**record, "mix": {}}, {**run.recipe, "hybrid": run.recipe.get("warmup")})
    sentences = [f"Step {step} of the warm-up was SFT.", *of_draws(record.get("curriculum")), *shown]
    sentences += [text for text in [seconds_in_words({"total": record["seconds"]["total"]})] if text]
    return {"step": step, "kind": "SFT", "sentences": sentences, "follows": None, "record": record}


def _no_such_step(run: Recorded, step: int) -> ConfigError:
    steps = [each.step for each in run.decisions]
    if not steps:
        fix = f"its warm-up has {len(run.warmup)} steps, each all SFT" if run.warmup else None
        return ConfigError(
            f"{step}: the run has no hybrid step yet", expected="a step of the hybrid stage", where="--step", fix=fix
        )
    return ConfigError(
        f"{step}: no such hybrid step is recorded", expected=f"one of {steps[0]} to {steps[-1]}", where="--step"
    )


def _last_measured(earlier: Sequence[Decision], name: str) -> int | None:
    return next((each.step for each in reversed(earlier) if each.record.get(name) is not None), None)


def _showed(record: Mapping[str, Any], recipe: Mapping[str, Any]) -> list[str]:
    """What the step showed, and why a loss is 0 where it is."""
    sentences = []
    if record.get("skipped"):
        sentences.append("The step was skipped: its gradient was not finite, and nothing was changed by it.")
    if record.get("sft_loss") is not None or record.get("sft_norm") is not None:
        words = [f"loss {number(record['sft_loss'])}"] if record.get("sft_loss") is not None else []
        if record.get("sft_trained_loss") is not None:
            weight = (recipe.get("hybrid") or {}).get("sft_weight")
            words.append(
                f"{number(record['sft_trained_loss'])} with its tokens weighted" + f" ({weight})" * bool(weight)
            )
        words += [f"gradient norm {number(record['sft_norm'])}"] if record.get("sft_norm") is not None else []
        scaled = record.get("sft_weight")
        words += [f"its gradient weighted by {number(scaled)}"] if scaled is not None else []
        sentences.append(f"SFT: {', '.join(words)}.")
    grpo = _grpo_showed(record)
    sentences += [f"GRPO: {', '.join(grpo)}."] if grpo else []
    sentences += refilled([record["refill"]] if record.get("refill") else [])
    if no_spread(record):
        sentences.append(
            "In every group all completions scored the same, so every advantage is 0 and the GRPO loss with it: the "
            "step taught nothing."
            if taught_nothing(record, recipe)
            else "In every group all completions scored the same: no advantage came from the rewards."
        )
    limit = (recipe.get("hybrid") or {}).get("max_grad_norm")
    norm = record.get("grad_norm")
    if limit and norm is not None and norm > limit:
        sentences.append(f"The update's gradient norm {number(norm)} was clipped to {limit:g}.")
    return sentences


def _grpo_showed(record: Mapping[str, Any]) -> list[str]:
    named = (
        ("grpo_loss", "loss"), ("grpo_norm", "gradient norm"), ("reward", "mean reward"),
        ("kl", "KL from the policy that the stage began with"), ("entropy", "entropy"),
        ("completion_length", "tokens a completion"),
    )  # fmt: skip
    if not (record.get("mix") or {}).get("grpo"):
        return []
    words = [f"{name} {number(record[key])}" for key, name in named if record.get(key) is not None]
    shares = (
        ("zero_std_share", "of the groups without a spread"), ("truncated_share", "cut off"),
        ("unscored_share", "scored by no reward"),
    )  # fmt: skip
    for key, name in shares:
        if record.get(key) is not None and (record[key] or key != "unscored_share"):
            words.append(f"{record[key]:.0%} {name}")
    if (chosen := record.get("selection")) and chosen["share"] is not None:
        words.append(f"{chosen['share']:.0%} of the tokens trained on, of entropy {number(chosen['entropy'])}")
    return words


def refilled(seen: Sequence[Mapping[str, Any]]) -> list[str]:
    """How many groups of steps that sampled were replaced, from their `refill`; nothing where none was refilled."""
    prompts, replaced, dead = (sum(each[key] for each in seen) for key in ("prompts", "replaced", "still_dead"))
    if not seen:
        return []
    left = f"{dead:,} of the {prompts - replaced:,} that stayed had none, at the limit" if dead else "none is left"
    return [
        f"Refilled: {prompts:,} prompts were sampled, of which {replaced:,} ({replaced / prompts:.0%}) had a group "
        f"without a spread and gave way to a further one; {left}."
    ]


def no_spread(record: Mapping[str, Any]) -> bool:
    """Whether no group of a step's rollouts had a spread in its rewards, so that every advantage was 0."""
    return bool((record.get("mix") or {}).get("grpo")) and record.get("zero_std_share") == 1.0


def taught_nothing(record: Mapping[str, Any], recipe: Mapping[str, Any]) -> bool:
    """Whether, besides, the step's loss had no other part: no SFT, no KL penalty (beta), no entropy bonus.

    Without a recipe the last two are not known, and it is not said.
    """
    grpo = (recipe.get("hybrid") or {}).get("grpo") or {}
    others = ((record.get("mix") or {}).get("sft"), grpo.get("beta"), grpo.get("entropy_coef"))
    return no_spread(record) and bool(recipe) and not any(others)


def _next(following: Sequence[Decision], record: Mapping[str, Any]) -> list[str]:
    if not following or following[0].record.get("p") is None or record.get("p") is None:
        return []
    before, after = record["p"], following[0].record["p"]
    return [f"The next step's p was {after:.3f}" + (" again." if after == before else f", from {before:.3f}.")]


def seconds_in_words(seconds: Mapping[str, float]) -> str:
    """Where a step's or a run's time went, by phase; empty where nothing is recorded."""
    total = seconds.get("total")
    if not total:
        return ""
    known = [(name, seconds[name]) for name in (*SFT_PHASES, *GRPO_PHASES) if seconds.get(name)]
    rest = total - sum(value for _, value in known)
    parts = [f"{name} {value:.3g} s ({value / total:.0%})" for name, value in sorted(known, key=lambda each: -each[1])]
    parts += [f"the rest {rest:.2g} s"] if rest > 0.005 * total else []
    return f"It took {total:.3g} s: {', '.join(parts)}." if parts else f"It took {total:.3g} s."
