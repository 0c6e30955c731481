"""Runs with a method: real steps of a tiny model, in a folder with a recipe."""

from __future__ import annotations

import contextlib
import io
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from posttrain.controllers import GRPOOnly
from posttrain.methods import Method
from posttrain.models.load import build_model, train_tokenizer
from posttrain.rundir.facts import write_recipe
from posttrain.training.trainer import HybridTrainer
from tests.reading.recorded import as_recipe
from tests.training.conftest import ROWS, hybrid_args


def right(completions: Any, answer: Any, **columns: Any) -> list[float]:
    """A demonstration scores 1; a random policy now and then."""
    return [float(str(a) in text or len(text) % 3 == 0) for text, a in zip(completions, answer, strict=True)]


def method_run(folder: Path, method: Method, steps: int = 3, *, demonstrated: int = 3, **changes: Any) -> Path:
    """Train `steps` steps with a method; of every `demonstrated` prompts one has no demonstration."""
    tokenizer = train_tokenizer([row["prompt"] + row["completion"] for row in ROWS], vocab_size=320)
    torch.manual_seed(0)
    trainer = HybridTrainer(
        build_model(tokenizer, hidden_size=32, layers=2, heads=2, max_position_embeddings=64),
        right,
        hybrid_args(folder, **{"max_steps": steps, "completions_every": 1, **changes}),
        Dataset.from_list([{"prompt": row["prompt"], "answer": row["answer"]} for row in ROWS]),
        processing_class=tokenizer,
        demonstrations=Dataset.from_list([row for place, row in enumerate(ROWS) if place % demonstrated]),
        method=method,
    )
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        trainer.train()
    settings = {"name": method.name, **asdict(method)}  # type: ignore[call-overload]
    hybrid = {"steps": steps, "controller": as_recipe(GRPOOnly()), "method": settings}
    write_recipe(folder / "recipe.yaml", {"hybrid": hybrid})
    return folder
