"""Keys and values of rows of different lengths, a prompt's once for all of its rows, and attention to them.

A pass reads some next tokens of each row, of one row more than of another, as one packed sequence: what a model
computes by token has no padding. Only attention lays tokens side by side: by row for what the row has said, by prompt
for the prompt. Each part comes with its log-sum-exp, by which the two are merged.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from transformers.cache_utils import CacheLayerMixin

from posttrain.models.attention_names import SDPA
from posttrain.rollouts.kv_buffers import NotPlain, attention
from posttrain.rollouts.row_attention import KERNEL, Part, attend_to_both, prompt_by_prompt, write

NAME = "posttrain_rows"
"""Of the attention function, as `config._attn_implementation` has it while decoding."""


class Layout(NamedTuple):
    """One pass.

    Attributes:
        positions_N: Of each token in its row, the prompt included.
        slot_N: Where its keys go: row * capacity + place among the row's own.
        longest: Keys of a row at most, T.
        parts: What rows have said, themselves included, and the prompts by group; None while prompts are read.
        spans: While prompts are read, where each begins and ends among the tokens; else None.
    """

    positions_N: torch.Tensor
    slot_N: torch.Tensor
    longest: int
    parts: tuple[Part, Part] | None
    spans: list[tuple[int, int]] | None = None


class RowBuffers(CacheLayerMixin):
    """Keys and values of one layer: `prompt`'s [U, heads, P, D], and what rows have said [B, capacity, heads, D].

    Of a row as many count as it has tokens. `layout` is set before each pass.

    Args:
        rows, capacity: B, and tokens that there is room for.
        shared: Query heads of a key.
        dtype: The model's.
    """

    is_sliding = False
    layout: Layout
    keys: Any
    values: Any

    def __init__(self, rows: int, capacity: int, shared: int, dtype: torch.dtype):
        super().__init__()
        self.shared, self.dtype = shared, dtype
        self._rows, self.capacity, self.passes = rows, capacity, 0
        self.prompt: tuple[torch.Tensor, torch.Tensor] | None = None
        self.given: tuple[torch.Tensor, torch.Tensor] | None = None

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Make the buffers for states [1, heads, N, D]. They are zero: what is hidden must still be a number."""
        self.keys, self.values = (
            states.new_zeros(self._rows, self.capacity, states.shape[1], states.shape[3])
            for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write packed keys and values [1, heads, N, D]; returns them, for attention reads the buffers themselves."""
        if key_states.ndim != 4 or key_states.shape[0] != 1 or key_states.shape[2] != len(self.layout.positions_N):
            raise NotPlain
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.given, self.passes = (key_states, value_states), self.passes + 1
        self.write(key_states[0].transpose(0, 1), value_states[0].transpose(0, 1))
        return key_states, value_states

    def attend_plainly(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: Any) -> torch.Tensor:
        """What the queries (1, H, N, D) of a pass read, given to attention as a model does: (1, N, H, D).

        Raises:
            NotPlain: Attention is given something else than what was written, as where heads are split, repeated or
                expanded behind the cache, or what the kernel would misread.
        """
        written, self.given = self.given, None  # once a pass
        if written is None or key is not written[0] or value is not written[1]:
            raise NotPlain
        alike = query.dtype == key.dtype == value.dtype and query.shape[3] == key.shape[3] == value.shape[3]
        expected = query.shape[1] == self.shared * key.shape[1] and query.dtype == self.dtype
        if query.shape[0] != 1 or not alike or not expected or torch.is_autocast_enabled("cpu"):
            raise NotPlain
        if self.layout.spans is not None:
            return prompt_by_prompt(query, key, value, self.layout.spans, scale)
        return self.attend(query[0].transpose(0, 1).contiguous(), scale)[None]

    def write(self, keys_N: torch.Tensor, values_N: torch.Tensor) -> None:
        """Put the keys and values [N, heads, D] of a pass into their places."""
        write(self.keys, self.layout.slot_N, keys_N)
        write(self.values, self.layout.slot_N, values_N)

    def attend(self, query_N: torch.Tensor, scale: float | None = None) -> torch.Tensor:
        """What the queries [N, H, D] of a pass, whose keys are written, read from their rows and prompts."""
        assert self.layout.parts is not None
        assert self.prompt is not None
        said, prompts = self.layout.parts
        own = [each[: said.blocks, : self.layout.longest].transpose(1, 2) for each in (self.keys, self.values)]
        return attend_to_both(query_N, said, own[0], own[1], prompts, *self.prompt, scale)

    def prompts_are_read(self) -> None:
        """What is held so far is the prompts'; from now on rows speak, once `take` has made room for them."""
        self.prompt = (self.keys.transpose(1, 2).contiguous(), self.values.transpose(1, 2).contiguous())
        self.keys = self.values = None
        self.capacity = 0

    def copy(self, old: torch.Tensor, new: torch.Tensor, held: int) -> None:
        """Give the rows at the places `new` the first `held` tokens of those at `old`."""
        for buffer in (self.keys, self.values):
            buffer[new, :held] = buffer[old, :held]

    def take(self, places: torch.Tensor, held: int, rows: int, capacity: int) -> None:
        """Go on with the rows at these places and the first `held` tokens of each, in buffers with room for more."""
        for number, name in enumerate(("keys", "values")):
            old = getattr(self, name)
            like = self.prompt[number].transpose(1, 2)  # type: ignore[index]
            new = like.new_zeros(rows, capacity, *like.shape[2:])
            if held:
                new[: len(places), :held] = old[:, :held].index_select(0, places)
            setattr(self, name, new)
        self.capacity = capacity

    def take_prompts(self, places: torch.Tensor) -> None:
        """Go on with the prompts at these places."""
        keys, values = self.prompt  # type: ignore[misc]
        self.prompt = (keys.index_select(0, places), values.index_select(0, places))

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Positions that the next pass sees, and where they begin; nobody makes a mask of them."""
        return self.layout.longest, 0

    def get_seq_length(self) -> int:
        """Positions held of the longest row."""
        return self.layout.longest

    def get_max_length(self) -> int:
        """No limit, as transformers says it."""
        return -1


_current = threading.local()
"""The layers of the call that samples in this thread, and only while it does."""


def _attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """An attention function as transformers' models call it: queries (1, H, N, D) in, (1, N, H, D) out."""
    causal = more.get("is_causal") is not False and getattr(module, "is_causal", True) is not False
    if attention_mask is not None or more.get("position_bias") is not None or not causal:
        raise NotPlain
    layer: RowBuffers = _current.layers[module.layer_idx]
    return layer.attend_plainly(query, key, value, scaling), None


def check_attention(config: Any) -> None:
    """Whether a model with this config can attend to such buffers.

    Raises:
        NotPlain: Its attention is not SDPA, or torch lacks the operator.
    """
    if config._attn_implementation not in SDPA or KERNEL is None:
        raise NotPlain


@contextlib.contextmanager
def attention_to_rows(config: Any, layers: Sequence[RowBuffers]) -> Iterator[None]:
    """Inside, a model with this config, which `check_attention` passes, attends to these, one for each layer."""
    _current.layers = layers
    try:
        with attention(config, NAME, _attend):
            yield
    finally:
        del _current.layers
