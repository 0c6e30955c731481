"""A frozen copy of the trainable parameters, to measure how far the policy has moved from them.

Only what trains is copied: everything under full fine-tuning, the adapter under LoRA. There is no second module; the
policy itself scores with the copied values swapped in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn

from posttrain.rollouts.transformers import inference


class PolicySnapshot:
    """The policy as it is now, for later comparison.

    Args:
        model: The policy, unwrapped. Parameters with `requires_grad` are copied, on their own device.
    """

    def __init__(self, model: nn.Module):
        self._values = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}

    @contextmanager
    def swapped_into(self, model: nn.Module) -> Iterator[None]:
        """Run the block with the copied values as parameters, in eval mode without gradients; then put all back."""
        parameters = {name: p for name, p in model.named_parameters() if name in self._values}
        current = {name: p.data for name, p in parameters.items()}
        with inference(model):
            try:
                for name, p in parameters.items():
                    p.data = self._values[name]
                yield
            finally:
                for name, p in parameters.items():
                    p.data = current[name]

    def fingerprint(self) -> str:
        """A hash of names and values, the same for the same policy."""
        digest = hashlib.blake2b(digest_size=16)
        for name, value in self._values.items():
            digest.update(name.encode())
            digest.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def copy_policy(accelerator: Accelerator, policy: nn.Module, reference: nn.Module) -> None:
    """Make the reference of a KL penalty the policy as it was handed in.

    TRL reads the reference from where the policy's base came from, which for a policy that was warmed up in memory is
    the policy before its warm-up. Sharded models keep TRL's.
    """
    if accelerator.distributed_type not in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        accelerator.unwrap_model(reference).load_state_dict(accelerator.unwrap_model(policy).state_dict())
