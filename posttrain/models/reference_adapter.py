"""TRL's reference of a KL penalty where the policy has an adapter: a frozen copy of it, called "ref", made right.

TRL adds "ref" with the policy's own `LoraConfig` and copies the values over. Two things go wrong there:

- An initialisation that takes part of the base's weights into the adapter (PiSSA, OLoRA) does so a second time, and the
  policy is another model from then on.
- Only names with `.default.` inside are copied, not those that end in it: of an adapter on an embedding and of trained
  tokens the reference is a new adapter with random values.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer

from posttrain.errors import ConfigError
from posttrain.models.policy_weights import REFERENCE
from posttrain.recipe.adapter_kinds import rewrites_base

POLICY = "default"
"""The name of the adapter that trains."""


@contextmanager
def reference_is_a_copy(model: Any) -> Iterator[None]:
    """Run the block, in which TRL may add its reference adapter, and leave that a copy of the policy as handed in.

    Args:
        model: What the trainer is given; anything but a model with an adapter is left alone.
    """
    if not isinstance(model, PeftModel):
        yield
        return
    with _plainly_begun(model.peft_config.get(POLICY)):
        yield
    if REFERENCE in model.peft_config:
        for name, parameter in model.named_parameters():
            if name.endswith(f".{POLICY}"):
                model.get_parameter(f"{name.removesuffix(POLICY)}{REFERENCE}").data.copy_(parameter.data)


@contextmanager
def _plainly_begun(config: Any) -> Iterator[None]:
    began = getattr(config, "init_lora_weights", None)
    if not rewrites_base(began):
        yield
        return
    config.init_lora_weights = True
    try:
        yield
    finally:
        config.init_lora_weights = began


def check_adapter(model: Any, *, beta: float) -> None:
    """Refuse an adapter that TRL's GRPO cannot train, or cannot take a KL penalty against.

    Raises:
        ConfigError: With what to train instead.
    """
    if not isinstance(model, PeftModel):
        return
    config, head = model.peft_config.get(POLICY), model.get_output_embeddings()
    if isinstance(head, BaseTunerLayer) or hasattr(head, "token_adapter"):
        raise ConfigError(
            "the adapter is on the LM head, too, from whose own weight log-probabilities are taken, past the adapter",
            expected="an adapter on other layers; a head that is tied to the embedding gets what the embedding gets by "
            "trainable_token_indices and ensure_weight_tying",
            where="model",
            fix="leave the LM head out of the adapter, or train it as a whole: modules_to_save=['lm_head']",
        )
    if beta and getattr(config, "bias", "none") != "none":
        raise ConfigError(
            f"an adapter with bias={config.bias!r}, and beta {beta:g}: PEFT allows one adapter with a bias at a time, "
            "and the reference would be a second",
            expected="bias='none', or beta 0",
            where="beta",
            fix="set beta to 0 (a KL target of the controller does without), or train without bias",
        )
