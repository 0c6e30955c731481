"""The hook that a packed policy has behind its backbone: one room registers it, another meets it."""

from __future__ import annotations

from typing import Any

from torch import nn

from posttrain.models import head


def keep_scored(backbone: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
    """The hidden states (1, S, D) that are scored take the place of all (1, N, D); without a `tree` nothing changes."""
    tree = kwargs.get("tree")
    if tree is not None:
        head.expected()
        output.last_hidden_state = output.last_hidden_state.index_select(1, tree.scored)
    return output
