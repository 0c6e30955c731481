"""A plan as JSON. The structure is fixed: keys are added, never renamed; what is not known is null.

status        ok | warning | problem
recipe        the file; machine: device, processes, per_node, config, launched, gpus (bytes), unsized, memory (bytes)
settings      [{key, value, source: default | parent | recipe | command line, at: file:line}]
data          {train, demonstrations, eval, counted, notes, paired: {prompts, paired, several}, of a method,
              leaks: {rows, of_rows, trained, of_trained, overlapping, share, contaminated, short, generated}}
step          what one optimizer step consumes: the fields of `plan.BatchPlan`
amounts       what the run consumes: the fields of `planning.amounts.Amounts`; steps as {least, most, begun}
model         {kind, parameters, trained, weight_bytes, trained_bytes, positions, shape, four_bit, four_bit_bytes,
              padded: {warmup | sft | grpo: why rows are padded there, not packed}}
lengths       {prompts, demonstrations, completions}, each {rows, of, mean, longest, limit, over}; dropped, labels
samples       [{prompt, demonstration, prompt_tokens, demonstration_tokens, kept_tokens}]
memory        {moments: {MOMENT: {PART: bytes}}, worst, peak, engine_share, available, of, fits, smallest_gpu,
              exact}
time          {phases: {PHASE: {seconds, most, source, counted}}, least, begun, most, half, machine, accuracy}
rates         {STAGE: {name, steps, at: [steps done], rates: [the next step's], highest, last}}
launch        {command, accelerate, server}
findings      [{level: problem | warning | note, kind, where, evidence, advice}]
missing       [{what, why, without, stops}]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from posttrain.planning.launching import Launch
from posttrain.planning.lengths import shares_over
from posttrain.planning.plan import Plan
from posttrain.planning.seconds import ACCURACY
from posttrain.planning.settings import Setting


def as_json(plan: Plan, path: str, settings: Sequence[Setting], launch: Launch) -> dict[str, Any]:
    """All of a plan in JSON's types, as the module's docstring lays it out."""
    texts, memory, time = plan.texts, plan.memory, plan.time
    return _plain(
        {
            "status": plan.status,
            "recipe": path,
            "machine": asdict(plan.machine),
            "settings": [asdict(each) for each in settings],
            "data": {
                **plan.counts,
                "counted": plan.counted,
                "notes": plan.notes,
                "paired": asdict(plan.paired) if plan.paired else None,
                "leaks": plan.leaks,
            },
            "step": asdict(plan.batch),
            "amounts": asdict(plan.amounts),
            "model": asdict(plan.model) if plan.model else None,
            "lengths": None
            if texts is None
            else {
                **{name: asdict(lengths) for name, lengths in shares_over(texts).items()},
                "chat": texts.chat,
                "dropped": texts.dropped,
                "labels": texts.labels,
            },
            "samples": [asdict(sample) for sample in texts.samples] if texts else [],
            "memory": None
            if memory is None
            else {**asdict(memory), "worst": memory.worst, "peak": memory.peak, "fits": memory.fits},
            "time": {**asdict(time), "accuracy": ACCURACY if time.machine else None},
            "rates": {stage: asdict(curve) for stage, curve in plan.rates.items()},
            "launch": asdict(launch),
            "findings": [asdict(each) for each in plan.findings],
            "missing": [asdict(each) for each in plan.missing],
        }
    )


def _plain(value: Any) -> Any:
    """Without NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
