"""A run's directory as a controller would leave it, with made-up signals: the record is the trainer's own."""

from __future__ import annotations

import math
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

from posttrain.controllers import Controller, Signals
from posttrain.rundir.facts import write_recipe
from posttrain.storage import files
from posttrain.training.ledger import Ledger, step_record

G_WARMUP = 0.5


def recorded_run(
    folder: Path, controller: Controller, steps: int = 40, *, skipped: tuple[int, ...] = (), dead: tuple[int, ...] = ()
) -> Path:
    """A run of `controller`, whose SFT norms fall and whose KL rises; `dead` GRPO steps have no group with a spread."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, state = random.Random(3), controller.start(total_steps=steps, seed=5, g_warmup=G_WARMUP)
    for step in range(1, steps + 1):
        mix, ledger = controller.decide(state), Ledger()
        sft, grpo = mix.sft > 0 or mix.measure_sft, mix.grpo > 0
        norms = (rng.uniform(0.5, 1.5) * G_WARMUP / (1 + step / 10) if sft else None, 0.2 if grpo else None)
        kl, reward = (step / 400, 0.5) if grpo else (None, None)
        loss = 0.25 * (1 + math.exp(-step / 5)) if sft else None
        noise = (1.0, 0.5 + step / 40, 2.0) if mix.sft and mix.grpo else (None, None, None)
        signals = Signals(*((None, None) if step in skipped else norms), kl, reward, loss, *noise)
        ledger.seconds.update({"sft": 0.2} if mix.sft else {})
        ledger.seconds.update(
            {"generate": 0.5, "score": 0.1, "kl": 0.1, "grpo": 1.0, "scored_ahead": 9.0} if grpo else {}
        )
        if loss is not None:
            ledger.add("sft_loss", loss)
        if grpo:
            ledger.add("grpo_loss", 0.0 if step in dead else 0.25)
        state = controller.observe(state, signals)
        seen = {"frac_reward_zero_std": 1.0 if step in dead else 0.25, "reward": 0.5} if grpo else {}
        record = step_record(step, mix, signals, ledger, seen)
        record["seconds"]["total"] = 0.25 if not grpo else 1.25
        files.append_line(folder / "steps.jsonl", {**record, "controller": state, "skipped": step in skipped})
    files.write_json(folder / "state.json", {"done": {"warmup": {"g_warmup": G_WARMUP, "steps": 10}}})
    write_recipe(
        folder / "recipe.yaml", {"hybrid": {"steps": steps, "max_grad_norm": 0.1, "controller": as_recipe(controller)}}
    )
    return folder


def as_recipe(controller: Controller) -> dict[str, Any]:
    """A controller's settings as a recipe has them."""
    return {"name": controller.name, **asdict(controller)}  # type: ignore[call-overload]
