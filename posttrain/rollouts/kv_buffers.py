"""Keys and values of a batch that is being decoded: written in place, and read without copies.

transformers' DynamicLayer makes new tensors of everything at each token; and its SDPA, given a mask, repeats keys and
values for the query heads that share them, in each layer at each token.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.cache_utils import CacheLayerMixin
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from posttrain.models.attention_names import SDPA

NAME = "posttrain_decode"
"""Of the attention function, as `config._attn_implementation` has it while decoding."""


class NotPlain(Exception):
    """The model keeps something else than one key and one value a token and layer."""


class Buffers(CacheLayerMixin):
    """Keys and values of one layer: the first `length` positions of tensors [B, heads, capacity, head size]."""

    is_sliding = False
    keys: Any
    values: Any

    def __init__(self):
        super().__init__()
        self.length = 0

    @property
    def is_full(self) -> bool:
        """Whether there is no room for another position."""
        return self.length == self.keys.shape[2]

    def take(self, places: torch.Tensor | None, start: int, room: int) -> None:
        """Keep these rows (`None`: all of them) from position `start` on, in new buffers with room for `room` more."""
        old = slice(start, self.length)
        self.keys = _taken(self.keys[:, :, old], places, room)
        self.values = _taken(self.values[:, :, old], places, room)
        self.length -= start

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Hold what the prompts gave as it is; `take` comes next."""
        self.keys, self.values, self.length = key_states, value_states, key_states.shape[2]
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add positions, for which there must be room, and return all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            return key_states, value_states
        if self.length + key_states.shape[2] > self.keys.shape[2]:
            raise NotPlain
        start, self.length = self.length, self.length + key_states.shape[2]
        self.keys[:, :, start : self.length] = key_states
        self.values[:, :, start : self.length] = value_states
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Positions that the next pass sees, and where they begin."""
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        """Positions held."""
        return self.length

    def get_max_length(self) -> int:
        """No limit, as transformers says it."""
        return -1


def _taken(states: torch.Tensor, places: torch.Tensor | None, room: int) -> torch.Tensor:
    rows, heads, length, size = states.shape
    buffer = states.new_empty(rows if places is None else len(places), heads, length + room, size)
    buffer[:, :, :length] = states if places is None else states.index_select(0, places.to(states.device))
    return buffer


@contextlib.contextmanager
def heads_together(config: Any) -> Iterator[None]:
    """Inside, a model with this config that has SDPA reads each key once for the query heads that share it.

    Where nothing is shared, or the model has other attention, nothing changes.
    """
    if config._attn_implementation not in SDPA or key_heads(config) == config.num_attention_heads:
        yield
        return
    with attention(config, NAME, _attend):
        yield


@contextlib.contextmanager
def attention(config: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Inside, a model with this config attends by a function, which is registered under this name."""
    before = config._attn_implementation
    AttentionInterface.register(name, function)
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before


def key_heads(config: Any) -> int:
    """Heads of keys and values."""
    return getattr(config, "num_key_value_heads", None) or config.num_attention_heads


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """An attention function as transformers' models call it, with the query heads of a key as its query positions."""
    if query.shape[2] != 1 or key.shape[1] == query.shape[1] or more.get("position_bias") is not None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **more)
    together = query.reshape(query.shape[0], key.shape[1], -1, query.shape[3])
    out = scaled_dot_product_attention(together, key, value, attn_mask=attention_mask, scale=scaling)
    return out.reshape(out.shape[0], 1, -1, out.shape[3]), None
