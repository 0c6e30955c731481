"""The policy that training began with, to measure how far the present one has moved from it.

Only what trains is copied: everything under full fine-tuning, the adapter under LoRA, and nothing where the adapter was
fresh, for the policy without it is the old one. There is no second module; the policy itself scores with the copied
values in the place of its own. Works on whole parameters and on those that FSDP2 shards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from peft import PeftModel
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from posttrain.models.inference import inference

PIECE = 1 << 22
"""Numbers that change places at once."""


class PolicySnapshot:
    """The policy as it is now, for later comparison.

    Args:
        model: The policy, unwrapped or sharded. Parameters with `requires_grad` are copied: of a sharded model each
            process copies its shards.
        offload: Keep the copy in host memory; else it lies beside the parameters.
        fresh_adapter: Whether the policy is its base model still (see `has_fresh_adapter`), so that nothing needs
            copying. Looked up if `None`; a sharded model's must be looked up before it is sharded.
    """

    def __init__(self, model: nn.Module, *, offload: bool = False, fresh_adapter: bool | None = None):
        self.adapter_off = has_fresh_adapter(model) if fresh_adapter is None else fresh_adapter
        self._values: dict[str, torch.Tensor] = {}
        if not self.adapter_off:
            _reshard(model)
            for name, p in model.named_parameters():
                if p.requires_grad:
                    value = _own_part(p)
                    self._values[name] = value.to("cpu" if offload else value.device, copy=True).contiguous()

    @contextmanager
    def swapped_into(self, model: nn.Module) -> Iterator[None]:
        """Run the block with the copied values as parameters, in eval mode without gradients; then put all back.

        The values change places piece by piece, so that it takes no memory to speak of, and the parameters keep their
        storage, so that optimizers, DDP and FSDP2 notice nothing.
        """
        with inference(model):
            if self.adapter_off:
                with model.disable_adapter():  # type: ignore[operator]
                    yield
                return
            self._exchange(model)
            try:
                yield
            finally:
                self._exchange(model)

    def _exchange(self, model: nn.Module) -> None:
        _reshard(model)  # what was gathered for a forward pass would outlive the change
        for name, p in model.named_parameters():
            if name in self._values:
                _exchange(_own_part(p), self._values[name])


def has_fresh_adapter(model: nn.Module) -> bool:
    """Whether all that trains is LoRA weights that change nothing yet, so that the policy is its base model."""
    if not isinstance(model, PeftModel):
        return False
    named = [(set(name.split(".")), p) for name, p in model.named_parameters()]
    zero, any_value = {"lora_B", "lora_embedding_A"}, {"lora_A", "lora_embedding_B"}
    trained = [parts for parts, p in named if p.requires_grad]
    # Looked at where it is frozen, too: MiCA trains A alone, from 0, on a B that is not
    return bool(trained and all(parts & (zero | any_value) for parts in trained)) and not any(
        bool(p.any()) for parts, p in named if parts & zero
    )


def fingerprint(model: nn.Module) -> str:
    """A hash of the names and values of what trains, the same for the same policy in any dtype that holds it.

    Args:
        model: The policy before it is sharded.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, p in sorted(model.named_parameters()):
        if p.requires_grad:
            digest.update(name.encode())
            digest.update(p.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def copy_policy(accelerator: Accelerator, policy: nn.Module, reference: nn.Module) -> None:
    """Make the reference of a KL penalty the policy as it was handed in.

    TRL reads the reference from where the policy's base came from, which for a policy that was warmed up in memory is
    the policy before its warm-up. Under DeepSpeed the reference stays TRL's.

    Args:
        accelerator: The trainer's.
        policy: Not sharded yet.
        reference: Of the same kind; sharded under FSDP2.
    """
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        return
    values = accelerator.unwrap_model(policy).state_dict()
    if isinstance(reference, FSDPModule):
        whole = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
        set_model_state_dict(reference, values, options=whole)
    else:
        accelerator.unwrap_model(reference).load_state_dict(values)


def _own_part(parameter: nn.Parameter) -> torch.Tensor:
    """The values that this process holds, sharing their storage."""
    value = parameter.detach()
    return value.to_local() if isinstance(value, DTensor) else value


def _exchange(one: torch.Tensor, other: torch.Tensor) -> None:
    """Let two tensors of one shape, perhaps on two devices, change contents."""
    ones, others = one.view(-1).split(PIECE), other.view(-1).split(PIECE)
    for a, b in zip(ones, others, strict=True):
        held = a.to(b.device, copy=True)
        a.copy_(b)
        b.copy_(held)


def _reshard(model: nn.Module) -> None:
    """Drop what FSDP2 gathered; parameters are shards again."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
