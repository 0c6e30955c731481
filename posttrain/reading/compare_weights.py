"""How much of a model a run has changed: read from the saved files a piece at a time, without loading any model.

Shares of parameters, and the change's L2 norm relative to the weights it was made to. The shares: of those whose value
differs at all, in the dtype of the later weights; the same after rounding both to bfloat16, in which most models are
used; and of those that differ by more than 1e-5, by which the subnetworks of RL are told (arXiv 2505.11711). They are
other numbers: a step of Adam moves every float32 weight it has a gradient for, and few of them far enough to show in
bfloat16, so that runs are compared at one precision. Of an adapter its effective change is measured, scale * B A, by
||B A||^2 = trace((B^T B)(A A^T)), so that no matrix of the base's size is formed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from posttrain.errors import DataError
from posttrain.rundir import reading as run_reading
from posttrain.rundir.layout import BASES, REST, Layout

PIECE = 2**24  # parameters compared at a time
UNCHANGED = 1e-5
"""How far a weight may be from what it was and count as unchanged."""
REST_ADAPTER = "adapter"  # as `models.rest` calls it
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_FACTOR = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?:embedding_)?(?P<side>[AB])(?:\.weight)?")
_SAVED = re.compile(r"base_model\.model\.(?P<name>.+)")


@dataclass(frozen=True)
class Change:
    """What became of some weights.

    Attributes:
        parameters: How many there are.
        changed: The share of them whose value differs.
        changed_bf16: The same after rounding to bfloat16; `None` of an adapter.
        relative_l2: The L2 norm of the change over that of the weights before; `None` where those are not at hand.
        beyond: The share that differs by more than `UNCHANGED`, in float32; `None` of an adapter.
        adapted: Of an adapter the share of the base's parameters that it acts on, else `None`.
        note: What was left out, in words.
    """

    parameters: int
    changed: float
    changed_bf16: float | None
    relative_l2: float | None
    adapted: float | None = None
    note: str = ""
    beyond: float | None = None


def run_changes(layout: Layout) -> dict[str, Change | str]:
    """What a run changed: {"start": Change, "warmup": Change}, each up to the final model.

    Instead of a `Change` there is a sentence that says why there is none: a run that is not finished, a model of the
    hub that is not in the cache, no warm-up.
    """
    if not layout.model.is_dir():
        return dict.fromkeys(("start", "warmup"), "there is no final model yet")
    found: dict[str, Change | str] = {}
    start, why = start_folder(layout)
    adapter = (layout.model / ADAPTER_CONFIG).is_file()
    if adapter:
        rest = layout.path / REST  # the adapter began with a part of the base
        begun = rest / REST_ADAPTER if rest.is_dir() else None
        found["start"] = adapter_change(begun, layout.model, start) if start else f"{why}"
    else:
        found["start"] = weights_change(start, layout.model) if start else f"{why}"
    if not layout.warmup_model.is_dir():
        found["warmup"] = "there is no warm-up"
    elif adapter:
        found["warmup"] = adapter_change(layout.warmup_model, layout.model, start)
    else:
        found["warmup"] = weights_change(layout.warmup_model, layout.model)
    return found


def start_folder(layout: Layout) -> tuple[Path | None, str]:
    """The folder of the model that a run began with, or why there is none at hand."""
    for name in BASES:
        if (layout.path / name).is_dir():
            return layout.path / name, ""
    model = (run_reading.recipe(layout).get("model") or {}) if layout.recipe_file.exists() else {}
    source = model.get("name")
    if not source:
        return None, "the recipe names no model"
    if Path(source).expanduser().is_dir():
        return Path(source).expanduser(), ""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, revision=model.get("revision"), local_files_only=True)), ""
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError):
        return None, "the model it began with is not on this machine"


def weights_change(before: Path, after: Path) -> Change:
    """What differs between two folders of safetensors, over the weights that both have.

    Raises:
        DataError: A weight has another shape than before, or there are none in common.
    """
    parameters = changed = rounded = beyond = 0
    moved = size = 0.0
    with Weights(before) as old, Weights(after) as new:
        shared = [name for name in new.names if name in old.names]
        for name in shared:
            if old.shape(name) != new.shape(name):
                raise DataError(f"{name} has the shape {new.shape(name)}, and had {old.shape(name)} in {before.name}")
            for a, b in zip(old.pieces(name), new.pieces(name), strict=True):
                parameters += b.numel()
                changed += int((a.to(torch.float32) != b.to(torch.float32)).sum())
                rounded += int((a.to(torch.bfloat16) != b.to(torch.bfloat16)).sum())
                difference = b.to(torch.float32) - a.to(torch.float32)
                beyond += int((difference.abs() > UNCHANGED).sum())
                moved += _square(difference)
                size += _square(a)
        alone = sorted({*old.names} ^ {*new.names})
    if not parameters:
        raise DataError(f"{before.name} and {after.name} have no weight in common", expected="two states of one model")
    note = f"{len(alone)} weights are in one of the two alone, such as {alone[0]}" if alone else ""
    relative = math.sqrt(moved / size) if size else None
    shares = [count / parameters for count in (changed, rounded, beyond)]
    return Change(parameters, shares[0], shares[1], relative, note=note, beyond=shares[2])


def adapter_change(before: Path | None, after: Path, base: Path | None) -> Change | str:
    """What an adapter does to its base model, or does differently than an earlier state of it.

    Args:
        before: The folder of the earlier state; `None` for the base model without an adapter.
        after: The folder of the adapter.
        base: The folder of the base model, for the sizes of its weights.

    Returns:
        The change over all of the base's weights; a sentence for an adapter that is no plain LoRA.
    """
    was, now = (_Adapter.read(folder) if folder else None for folder in (before, after))
    if isinstance(now, str) or isinstance(was, str):
        return now if isinstance(now, str) else str(was)
    if base is None:
        return "the model it began with is not on this machine"
    assert now is not None
    moved = size = 0.0
    parameters = adapted = changed = 0
    with Weights(base) as weights:
        for name in weights.names:
            count, square = weights.count_and_square(name)
            parameters, size = parameters + count, size + square
            factors = now.factors.get(name, []) + [(b, -a) for b, a in was.factors.get(name, [])] if was else (
                now.factors.get(name, [])
            )  # fmt: skip
            delta = low_rank_square(factors)
            if name in now.saved:
                then = was.saved[name] if was else torch.cat([each.flatten() for each in weights.pieces(name)])
                differs = now.saved[name].flatten().float() - then.flatten().float()
                delta, count_changed = _square(differs), int((differs != 0).sum())
            else:
                count_changed = count if delta > 0 else 0
            adapted += count if name in now.saved or name in now.factors else 0
            moved, changed = moved + delta, changed + count_changed
        unknown = sorted(({*now.factors} | {*now.saved}) - {*weights.names})
    note = f"not found in the base: {', '.join(unknown[:3])}" if unknown else ""
    share = adapted / parameters
    return Change(parameters, changed / parameters, None, math.sqrt(moved / size) if size else None, share, note)


def low_rank_square(factors: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """||sum of B A||^2 over (B, A) of shapes (out, r) and (r, in), in float64."""
    if not factors:
        return 0.0
    left = torch.cat([b.double() for b, _ in factors], dim=1)
    right = torch.cat([a.double() for _, a in factors], dim=0)
    return max(0.0, float(((left.T @ left) * (right @ right.T)).sum()))


def _square(values: torch.Tensor) -> float:
    return float(values.double().square().sum())


@dataclass(frozen=True)
class _Adapter:
    """The LoRA factors by the base weight's name, scaled, and the weights that were trained as a whole."""

    factors: Mapping[str, list[tuple[torch.Tensor, torch.Tensor]]]
    saved: Mapping[str, torch.Tensor]

    @classmethod
    def read(cls, folder: Path) -> _Adapter | str:
        config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        if config.get("peft_type") != "LORA" or config.get("use_dora"):
            return f"the adapter is {'DoRA' if config.get('use_dora') else config.get('peft_type')}, not plain LoRA"
        sides: dict[str, dict[str, torch.Tensor]] = {}
        saved = {}
        with safe_open(folder / ADAPTER_WEIGHTS, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 (no mapping)
                found = _FACTOR.fullmatch(key)
                if found:
                    sides.setdefault(found["module"], {})[found["side"]] = file.get_tensor(key)
                elif other := _SAVED.fullmatch(key):
                    saved[other["name"]] = file.get_tensor(key)
        factors = {}
        for module, pair in sides.items():
            scale = _scale(config, module, pair["A"].shape[0])
            factors[f"{module}.weight"] = [(scale * pair["B"].double(), pair["A"].double())]
        return cls(factors, saved)


def _scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    """PEFT's scale of a module's adapter; a pattern matches the end of a module's name."""
    patterns = config.get("alpha_pattern") or {}
    own = [value for pattern, value in patterns.items() if re.fullmatch(rf"(.*\.)?({pattern})", module)]
    alpha = own[0] if own else config["lora_alpha"]
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


class Weights:
    """The safetensors files of a folder as one set of names, opened for the time of a block."""

    def __init__(self, folder: Path):
        self._folder, self._stack = folder, ExitStack()
        self._files: dict[str, Any] = {}

    def __enter__(self) -> Weights:
        for path in sorted(self._folder.glob("*.safetensors")):
            file = self._stack.enter_context(safe_open(path, framework="pt"))
            self._files.update(dict.fromkeys(file.keys(), file))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def names(self) -> list[str]:
        """The weights' names."""
        return list(self._files)

    def shape(self, name: str) -> list[int]:
        """A weight's shape."""
        return list(self._files[name].get_slice(name).get_shape())

    def pieces(self, name: str) -> Iterator[torch.Tensor]:
        """A weight in runs of whole rows of about `PIECE` parameters."""
        view = self._files[name].get_slice(name)
        shape = view.get_shape()
        if len(shape) < 2:
            yield self._files[name].get_tensor(name)
            return
        rows = max(1, PIECE // max(1, math.prod(shape[1:])))
        for start in range(0, shape[0], rows):
            yield view[start : min(start + rows, shape[0])]

    def count_and_square(self, name: str) -> tuple[int, float]:
        """A weight's number of parameters and the square of its norm."""
        count, square = 0, 0.0
        for piece in self.pieces(name):
            count, square = count + piece.numel(), square + _square(piece)
        return count, square
