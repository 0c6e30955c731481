"""What a model keeps of lanes (see `drafted`): their keys and values, and a pass that reads their next tokens."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import Cache

from posttrain.models.policy_weights import base_model
from posttrain.models.positions import is_scaled
from posttrain.rollouts.fused import Fused, fused, is_replaced
from posttrain.rollouts.kv_buffers import NotPlain, key_heads
from posttrain.rollouts.row_attention import part_of
from posttrain.rollouts.row_buffers import Layout, RowBuffers, attention_to_rows, check_attention

ROOM = 16
"""Positions by which the buffers grow at least."""

GROWTH = 0.25
"""By how much of their length they grow."""

LEAVE = 0.25
"""Share of the prompts that must have ended before the others are read without them."""

CLOSE = 1e-3
"""By what share of the largest logit the fused pass may differ from another forward(), which it then stands in for."""

Tokens = Sequence[int]


def fused_pass(model: Any, prompts: Sequence[Tokens]) -> Fused | None:
    """The pass that stands in for the model's own, if one does.

    Where forward() is replaced, as accelerate and trainers do, it is asked what comes after the shortest prompt: it may
    do more, such as cast.

    Args:
        model: As `decode_drafted` takes it.
        prompts: Token ids.

    Raises:
        NotPlain: The model's attention is not for `LaneCache`.
    """
    model = base_model(model)
    if is_scaled(model.config):  # by the longest row of a pass, which guesses make another
        raise NotPlain
    check_attention(model.config)
    fast = fused(model)
    if fast is None or not is_replaced(model):
        return fast
    shortest = min(prompts, key=len)
    expected = LaneCache(model, [shortest], None).logits_U_V
    difference = (LaneCache(model, [shortest], fast).logits_U_V - expected).abs().max()
    return fast if bool(difference <= CLOSE * expected.abs().max()) else None  # nor where some are not finite


class LaneCache:
    """Keys and values of the prompts, and of what lanes have said in slots of their own.

    The first lanes are the prompts', in slots of the same numbers.

    Args:
        model: As `decode_drafted` takes it.
        prompts: Token ids of the U prompts, which are read at once.
        fast: What `fused_pass` says of it.

    Raises:
        NotPlain: The model's attention is not for it.

    Attributes:
        logits_U_V: After each prompt.
    """

    def __init__(self, model: Any, prompts: Sequence[Tokens], fast: Fused | None):
        self.model, self._fused = base_model(model), fast
        config = self.model.config
        self._shared = config.num_attention_heads // key_heads(config)
        self._lengths = [len(ids) for ids in prompts]
        self._layers = [
            RowBuffers(len(prompts), max(self._lengths), self._shared, self.model.dtype)
            for _ in DynamicCache(config=config).layers
        ]
        self._cache = Cache(layers=list(self._layers))
        self.logits_U_V = self._read_prompts(prompts)
        self._prompts = list(range(len(prompts)))
        self._slots = len(prompts)
        for layer in self._layers:
            layer.prompts_are_read()

    def read(
        self, lanes: Sequence[tuple[int, int, int, Tokens]], *, rows: int, most: int
    ) -> tuple[list[int], torch.Tensor]:
        """Read the next tokens of all lanes.

        Args:
            lanes: Of each the slot that it had, the prompt, tokens that the slot holds for it, and those that come
                next; a prompt's stand together.
            rows: Rows that they are lanes of.
            most: Tokens that a completion can have at most.

        Returns:
            The slots that the lanes have now, and the logits after each token, in the order of the lanes.
        """
        needed, count = max(held + len(tokens) for _, _, held, tokens in lanes), len(lanes)
        if count > self._slots or needed > self._layers[0].capacity:
            self._slots = max(count, min(rows, 2 * count + ROOM))
            capacity = max(needed, min(most, needed + max(ROOM, int(GROWTH * needed))))
            places = torch.tensor([slot for slot, _, _, _ in lanes])
            for layer in self._layers:
                layer.take(places, max(held for _, _, held, _ in lanes), self._slots, capacity)
            slots = list(range(count))
        else:
            slots = self._close_up(lanes)
        self._without_ended({prompt for _, prompt, _, _ in lanes})
        capacity, prompts = self._layers[0].capacity, {prompt: n for n, prompt in enumerate(self._prompts)}
        of = [
            (slot, prompts[prompt], held + number, self._lengths[prompt])
            for slot, (_, prompt, held, tokens) in zip(slots, lanes, strict=True)
            for number in range(len(tokens))
        ]
        slot_N, prompt_N, within_N, length_N = map(list, zip(*of, strict=True))
        longest, dtype = max(within_N) + 1, self.model.dtype
        layout = Layout(
            torch.tensor(within_N) + torch.tensor(length_N),
            torch.tensor(slot_N) * capacity + torch.tensor(within_N),
            longest,
            (
                part_of(slot_N, [n + 1 for n in within_N], count, longest, self._shared, dtype),
                part_of(prompt_N, length_N, len(prompts), max(self._lengths), self._shared, dtype),
            ),
        )
        return slots, self._pass([token for _, _, _, tokens in lanes for token in tokens], layout)

    def _close_up(self, lanes: Sequence[tuple[int, int, int, Tokens]]) -> list[int]:
        """Slots of the lanes, the first so many: what stood there stays, and others move to where none is any more."""
        slots, kept = [-1] * len(lanes), set[int]()
        for number, (slot, _, _, _) in enumerate(lanes):
            if slot < len(lanes) and slot not in kept:  # of lanes that have parted the first one stays
                slots[number] = slot
                kept.add(slot)
        free = (slot for slot in range(len(lanes)) if slot not in kept)
        moving = [number for number, slot in enumerate(slots) if slot < 0]
        for number in moving:
            slots[number] = next(free)
        if moving:
            old, new = (torch.tensor([of[number] for number in moving]) for of in ([slot for slot, *_ in lanes], slots))
            held = max(lanes[number][2] for number in moving)
            for layer in self._layers:
                layer.copy(old, new, held)
        return slots

    def _without_ended(self, going: set[int]) -> None:
        """Forget the prompts that no lane is of any more, if they are many."""
        if len(going) <= (1 - LEAVE) * len(self._prompts):
            stay = torch.tensor([place for place, prompt in enumerate(self._prompts) if prompt in going])
            self._prompts = [prompt for prompt in self._prompts if prompt in going]
            for layer in self._layers:
                layer.take_prompts(stay)

    def _read_prompts(self, prompts: Sequence[Tokens]) -> torch.Tensor:
        """Logits [U, V] after each prompt."""
        longest = max(self._lengths)
        within = torch.tensor([n for length in self._lengths for n in range(length)])
        rows = torch.tensor([number for number, length in enumerate(self._lengths) for _ in range(length)])
        ends = [0, *itertools.accumulate(self._lengths)]
        layout = Layout(within, rows * longest + within, longest, None, list(itertools.pairwise(ends)))
        return self._pass([token for ids in prompts for token in ids], layout, torch.tensor(ends[1:]) - 1)

    def _pass(self, tokens: Tokens, layout: Layout, wanted: torch.Tensor | None = None) -> torch.Tensor:
        """Logits after the tokens, or after those that are wanted."""
        for layer in self._layers:
            layer.layout = layout
        ids_N = torch.tensor(tokens)
        if self._fused is not None:
            return self._fused.logits(ids_N, layout, self._layers, wanted)
        keeps = wanted is not None and "logits_to_keep" in inspect.signature(self.model.forward).parameters
        with attention_to_rows(self.model.config, self._layers):
            out = self.model(
                input_ids=ids_N[None], attention_mask=None, position_ids=layout.positions_N[None],
                past_key_values=self._cache, use_cache=True, return_dict=True,
                **({"logits_to_keep": wanted} if keeps else {}),
            )  # fmt: skip
        if layout.parts is None and any(layer.passes != 1 or layer.given is not None for layer in self._layers):
            raise NotPlain
        logits_N_V = out.logits[0].float()
        return logits_N_V if wanted is None or keeps else logits_N_V.index_select(0, wanted)
