"""What a run has spent so far: seconds by stage and phase, and tokens sampled and trained on."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from posttrain.rundir import reading as run_reading
from posttrain.rundir.layout import Layout
from posttrain.watching.progress import duration


def spent(layout: Layout, recipe: dict[str, Any], lines: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """The time and tokens of a run, from steps.jsonl and eval.jsonl.

    Args:
        layout: The run.
        recipe: Its recipe, empty where it has none.
        lines: The lines of steps.jsonl that count; `None` takes all.

    Returns:
        seconds: {"warmup": {"total": s, phase: s, ...}, "hybrid": ..., "evaluation": {"total": s}}, those there are;
        total_seconds: their sum, without loading, saving and what was lost to a kill;
        sampled: tokens of the rollouts (mean length times completions, evaluations apart);
        trained_sft: label tokens of the hybrid stage's SFT steps, exactly;
        trained_grpo: sampled tokens that went through the model, each time they did: about, by the share of rows;
        warmup_demonstrations: demonstrations seen in the warm-up, whose tokens are not recorded;
        steps: {"warmup": n, "hybrid": n}.
    """
    lines = run_reading.steps(layout) if lines is None else lines
    seconds: dict[str, dict[str, float]] = {}
    for line in lines:
        phases = seconds.setdefault(line["stage"], defaultdict(float))
        for phase, value in (line.get("seconds") or {}).items():
            phases[phase] += value or 0.0
    examined = sum(line.get("seconds") or 0.0 for line in run_reading.evals(layout))
    if examined:
        seconds["evaluation"] = {"total": examined}
    warmup = [line for line in lines if line["stage"] == "warmup"]
    hybrid = [line for line in lines if line["stage"] == "hybrid"]
    return {
        "seconds": {stage: dict(phases) for stage, phases in seconds.items()},
        "total_seconds": sum(phases.get("total", 0.0) for phases in seconds.values()),
        **hybrid_tokens(hybrid, _passes(recipe)),
        "warmup_demonstrations": max((line.get("demonstration_cursor") or 0 for line in warmup), default=0),
        "steps": {"warmup": len(warmup), "hybrid": len(hybrid)},
    }


def hybrid_tokens(hybrid: list[dict[str, Any]], passes: int = 1) -> dict[str, int]:
    """The tokens of the hybrid stage's lines as `spent` has them; each generation is trained on `passes` times."""
    sampled = trained = 0.0
    sft = rollouts = 0
    for line in hybrid:
        sft += (line.get("tokens") or {}).get("sft") or 0
        new, rollouts = (line.get("rollouts") or rollouts) - rollouts, line.get("rollouts") or rollouts
        tokens = new * (line.get("completion_length") or 0.0)
        share = line.get("trained_rows")
        sampled += tokens
        trained += passes * tokens * (1.0 if share is None else share)
    return {"sampled": round(sampled), "trained_sft": sft, "trained_grpo": round(trained)}


def _passes(recipe: dict[str, Any]) -> int:
    """How many times each generation is trained on."""
    grpo = (recipe.get("hybrid") or {}).get("grpo") or {}
    return int(grpo.get("num_iterations") or 1)


def spending_in_words(spent: dict[str, Any]) -> dict[str, str]:
    """What a run spent as pairs of a heading and a text; nothing it has none of."""
    by_stage = []
    for stage, phases in spent["seconds"].items():
        parts = [f"{name} {duration(value)}" for name, value in phases.items() if name != "total" and value >= 1]
        by_stage.append(f"{stage} {duration(phases.get('total', 0.0))}" + (f" ({', '.join(parts)})" if parts else ""))
    trained = [
        f"{spent['trained_sft']:,} SFT" if spent["trained_sft"] else "",
        f"about {spent['trained_grpo']:,} GRPO" if spent["trained_grpo"] else "",
    ]
    demonstrations = spent["warmup_demonstrations"]
    pairs = {
        "Time": duration(spent["total_seconds"]),
        "By stage": "; ".join(by_stage),
        "Sampled tokens": f"{spent['sampled']:,}",
        "Trained tokens, hybrid": " and ".join(part for part in trained if part) or "0",
        "Warm-up": f"{spent['steps']['warmup']} steps on {demonstrations:,} demonstrations"
        if demonstrations
        else "none",
    }
    return {name: text for name, text in pairs.items() if text}
