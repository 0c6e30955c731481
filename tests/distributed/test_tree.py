"""Packed scoring through what DDP and FSDP2 put around a model, also where one process cannot pack and another does."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator
from torch.distributed.tensor import DTensor

from posttrain.packing.scores import install, installed, row_scores, supports
from posttrain.processes.ranks import Ranks
from tests.distributed.processes import ranks
from tests.training.test_tree import lora, rows, tiny, trl_scores

BATCHES = ([[9, 3, 5], [4]], [[2, 8], [6, 1, 7], [0]])
"""Of each process, with other groups and another number of rows."""


def gradients(adapter: bool, checkpointing: bool, fault: bool) -> tuple[list[str], torch.Tensor, torch.Tensor, bool]:
    """The wrappers, the gradients of TRL's padded and of the packed pass, and whether the parameters are sharded."""
    Ranks.join(on_cpu=True, time_limit_s=60)
    accelerator = Accelerator()
    model = lora(tiny("qwen2")) if adapter else tiny("qwen2")
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    install(model)
    wrapped, _ = accelerator.prepare(model, torch.optim.SGD(model.parameters()))
    assert installed(wrapped)
    assert supports(wrapped) is None
    batch = rows(BATCHES[accelerator.process_index], seed=accelerator.process_index)
    if fault and accelerator.process_index:
        batch[1][0] = 0  # this process alone falls back to padded rows
    found = []
    for packed in (False, True):
        wrapped.zero_grad()
        if packed:
            logps, entropies = row_scores(wrapped, *batch, autocast=accelerator.autocast, entropy=True)
        else:
            logps, entropies = trl_scores(wrapped, batch, autocast=accelerator.autocast)
        weights = torch.randn(2, *logps.shape, generator=torch.Generator().manual_seed(3))
        accelerator.backward((weights[0] * logps).sum() + (weights[1] * entropies).sum())
        grads = [p.grad for p in wrapped.parameters() if p.requires_grad]
        whole = [grad.full_tensor() if isinstance(grad, DTensor) else grad for grad in grads]
        found.append(torch.cat([grad.flatten().clone() for grad in whole]))
    kinds = [type(wrapped).__name__, *[type(module).__name__ for module in wrapped.modules()]]
    return kinds, *found, any(isinstance(p, DTensor) for p in wrapped.parameters())


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
@pytest.mark.parametrize(
    ("adapter", "checkpointing", "fault"), [(False, False, True), (False, True, False), (True, False, False)]
)
def test_two_processes_give_the_gradients_of_padded_rows(tmp_path, how, adapter, checkpointing, fault):
    results = ranks(2, gradients, adapter, checkpointing, fault, folder=tmp_path, fsdp=how == "fsdp")
    for kinds, padded, packed, sharded in results:
        assert sharded == (how == "fsdp")
        assert how == "fsdp" or "DistributedDataParallel" in kinds
        assert padded.norm() > 1e-2
        assert (packed - padded).norm() / padded.norm() < 1e-5
    assert torch.equal(results[0][2], results[1][2])
