"""Log-probabilities of a batch in one packed forward pass: no padding, each group's prompt once, the head where needed.

The pass goes through the model as it is wrapped for training (DDP, FSDP2, DeepSpeed, PEFT) and through the fused head
that TRL has put on it. `install` prepares a model: its attention becomes `attention`'s, a hook behind the backbone
keeps only the hidden states that are scored, and on a CPU its linear layers and its head multiply by oneDNN. Without a
`tree` a prepared model does what it did.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from posttrain.inputs.data import IGNORED
from posttrain.models import head, products
from posttrain.models.policy_weights import base_model
from posttrain.models.positions import counts_by_mask
from posttrain.models.scored import keep_scored
from posttrain.packing import attention as tree_attention
from posttrain.packing import families
from posttrain.packing.checks import deaf, foreign
from posttrain.packing.families import FAMILIES as FAMILIES
from posttrain.packing.tree import Tree, grow, lay

Autocast = Callable[[], AbstractContextManager[Any]]
"""What opens the precision that training runs in: `accelerator.autocast`."""

_MARK = "posttrain_tree"


def supports(model: nn.Module | PreTrainedConfig) -> str | None:
    """Why a model cannot score packed sequences; `None` if it can.

    Args:
        model: The policy, wrapped or not, prepared by `install` or not; on the meta device as well. A configuration
            alone is answered for a model of transformers with that configuration, without adapters.
    """
    if isinstance(model, PreTrainedConfig):
        return families.against(model) or families.noise(model, modules=True)
    base = _causal_lm(model)
    if not isinstance(base, PreTrainedModel):
        return f"a {type(base).__name__} is not a model of transformers"
    if reason := families.against(base.config) or foreign(base) or families.noise(base.config, modules=False):
        return reason
    if any(isinstance(module, nn.Dropout) and module.p > 0 for module in base.modules()):
        return "dropout, which rows that share a prompt would share"
    adapters = getattr(model, "peft_config", {}).values()
    if any(each.is_prompt_learning for each in adapters):
        return "an adapter that learns a prompt"
    if any(getattr(each, "alora_invocation_tokens", None) for each in adapters):
        return "an adapter that is on from a place of its own in each row (aLoRA)"
    return None


def install(model: nn.Module) -> str | None:
    """Prepare a model that `supports` allows, after TRL has put its head on it. Doing so again changes nothing.

    Returns:
        Why the model is left as it is, where it turns out not to hand layouts on to its attention; else `None`.
    """
    base = _causal_lm(model)
    backbone = base.base_model
    if getattr(backbone, _MARK, False):
        return None
    if reason := deaf(base):
        return reason
    products.install(base)
    head.install()
    tree_attention.register()
    base.set_attn_implementation(tree_attention.stand_in(base.config._attn_implementation))
    backbone.register_forward_hook(keep_scored, with_kwargs=True)
    setattr(backbone, _MARK, True)
    return None


def installed(model: nn.Module) -> bool:
    """Whether `install` has prepared a model, wrapped or not."""
    base = _causal_lm(model)
    return bool(getattr(getattr(base, "base_model", None), _MARK, False))


def row_scores(
    model: nn.Module,
    prompt_ids: torch.Tensor,
    prompt_mask: torch.Tensor,
    completion_ids: torch.Tensor,
    completion_mask: torch.Tensor,
    *,
    autocast: Autocast,
    entropy: bool,
    **head: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Log-probabilities of completions, in nats, as a padded forward gives them.

    Rows that follow each other with the same prompt share it. Rows that no tree can hold (an empty prompt, a mask with
    holes) are scored in a padded pass.

    Args:
        model: Prepared by `install`, wrapped as it trains.
        prompt_ids, prompt_mask: (B, P), padded on the left.
        completion_ids, completion_mask: (B, C), padded on the right.
        autocast: Entered around the forward pass.
        entropy: Whether the entropy of each next-token distribution is wanted.
        head: Further arguments of the model's fused head.

    Returns:
        Log-probabilities (B, C), 0 where masked, and entropies (B, C), or `None`.
    """
    tree = grow(prompt_ids, prompt_mask, completion_ids, completion_mask, by_mask=counts_by_mask(model))
    if tree is None:
        return _padded(model, prompt_ids, prompt_mask, completion_ids, completion_mask, autocast, entropy, head)
    outputs = _forward(model, tree, autocast, head)
    return tree.spread(outputs.log_probs), tree.spread(outputs.entropy) if entropy else None


def label_scores(
    model: nn.Module, input_ids: torch.Tensor, labels: torch.Tensor, *, autocast: Autocast, **head: Any
) -> torch.Tensor:
    """Log-probabilities of demonstrations' labels, in nats.

    Args:
        model: Prepared by `install`, wrapped as it trains.
        input_ids: (B, T), padded on the right.
        labels: (B, T), -100 where nothing is learned.
        autocast, head: As for `row_scores`.

    Returns:
        (B, T - 1): column t has the label of column t + 1; 0 where there is none.
    """
    tree = lay(input_ids, labels)
    return tree.spread(_forward(model, tree, autocast, head).log_probs)


def label_entropies(
    model: nn.Module, input_ids: torch.Tensor, labels: torch.Tensor, *, autocast: Autocast, **head: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `label_scores`, with the entropies (B, T - 1) of the distributions that the labels are of, in nats."""
    tree = lay(input_ids, labels)
    outputs = _forward(model, tree, autocast, head)
    return tree.spread(outputs.log_probs), tree.spread(outputs.entropy)


def label_inputs(input_ids: torch.Tensor, labels: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, Any]:
    """What a trainer that calls the model by itself passes to it in place of a padded batch of demonstrations.

    Args:
        input_ids, labels: As for `label_scores`.
        attention_mask: (B, T), 1 on tokens: the mask that is passed on has the same sum, which trainers count.

    Returns:
        Arguments of the model's forward; what its fused head returns is over the scored positions, (1, S).
    """
    inputs = _inputs(lay(input_ids, labels))
    inputs["attention_mask"] = inputs["attention_mask"].expand(1, 1, 1, int(attention_mask.sum()))
    return inputs


def _inputs(tree: Tree) -> dict[str, Any]:
    # A mask of four dimensions is handed on as it is: transformers makes none, and `attend` looks at the tree instead
    return {
        "input_ids": tree.input_ids,
        "position_ids": tree.position_ids,
        "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool, device=tree.input_ids.device),
        "shift_labels": tree.labels,
        "tree": tree,
    }


def _forward(model: nn.Module, tree: Tree, autocast: Autocast, head: dict[str, Any]) -> Any:
    inputs = _inputs(tree)
    if getattr(_causal_lm(model).config.get_text_config(), "output_router_logits", False):
        inputs["output_router_logits"] = False  # TRL's head would make a loss of them that counts tokens by the mask
    with autocast():
        return model(**inputs, fused_lm_head=True, **head)


def _padded(
    model: nn.Module,
    prompt_ids: torch.Tensor,
    prompt_mask: torch.Tensor,
    completion_ids: torch.Tensor,
    completion_mask: torch.Tensor,
    autocast: Autocast,
    entropy: bool,
    head: dict[str, Any],
) -> tuple[torch.Tensor, torch.Tensor | None]:
    width = completion_ids.size(1)
    ids = torch.cat([prompt_ids, completion_ids], dim=1)
    mask = torch.cat([prompt_mask, completion_mask], dim=1)
    labels = ids.masked_fill(mask == 0, IGNORED)
    labels[:, :-width] = IGNORED
    with autocast():
        outputs = model(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True, **head)
    return outputs.log_probs[:, -width:], outputs.entropy[:, -width:] if entropy else None


def _causal_lm(model: nn.Module) -> Any:
    """The model of transformers inside what DDP, DeepSpeed and PEFT put around it."""
    inner: Any = extract_model_from_parallel(model, keep_fp32_wrapper=True)
    return base_model(inner)
