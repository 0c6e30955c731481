"""A decoding loop over transformers' causal language models, for groups of completions of the same prompts.

It gives the tokens that model.generate() gives, in less time: each distinct prompt is read once and its keys and
values repeated for its rows; keys and values are written in place, into buffers that grow now and then; rows that have
ended leave the batch; and masks and positions are made once, not at each token. What it does not know how to decode
(`why_not`, `NotPlain`) is for model.generate(). What a batch of another size changes in the last bits of the logits
can tip a token now and then.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import torch
from transformers import DynamicCache, GenerationMixin
from transformers.cache_utils import Cache, DynamicLayer
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from posttrain.models.policy_weights import base_model
from posttrain.rollouts.kv_buffers import SDPA, Buffers, NotPlain, heads_together

__all__ = ["Choose", "NotPlain", "OnRow", "decode", "why_not"]

OnRow = Callable[[int, list[int]], None]
"""Takes a row's place in the call and the token ids of its completion."""

NEEDED = {"input_ids", "attention_mask", "position_ids", "past_key_values"}
"""What a model's forward() must take."""

LEAVE = 0.125
"""Share of a batch's rows that must have ended before they leave it; when the buffers are full, one will do."""

GROWTH = 0.25
"""By how much of their length the buffers grow, but by `ROOM` positions at least: little is held beyond need."""

ROOM = 16

LOOK_EVERY = {"cpu": 1}
"""Steps between two looks at what was sampled. On other devices 8, for each look waits for them."""


class Choose(Protocol):
    """What turns logits into tokens."""

    def __call__(self, logits_B_V: torch.Tensor) -> torch.Tensor:
        """The next token [B] of each row of float32 logits."""

    def keep(self, places: torch.Tensor) -> None:
        """From now on the batch consists of the rows at these places of the one before."""


def why_not(model: Any) -> str | None:
    """What of this model `decode` doesn't know; `None` if it can decode it.

    Of the model's own generation config nothing matters: all sampling here is without it (`plain_generation`).

    Args:
        model: A causal language model of transformers or PEFT.
    """
    inner = base_model(model)
    adapters = model.peft_config.values() if inner is not model else ()
    if any(each.is_prompt_learning or getattr(each, "alora_invocation_tokens", None) for each in adapters):
        return "an adapter that goes by the prompt"
    if is_deepspeed_zero3_enabled() or any(hasattr(p, "placements") for p in inner.parameters()):
        return "sharded weights"
    kind, config = type(inner), inner.config
    if (
        config.is_encoder_decoder
        or config.get_text_config(decoder=True) is not config
        or any("generate" in vars(each) for each in (model, inner))  # replaced, by a custom sampler or to be faster
        or kind.generate is not GenerationMixin.generate
        or kind.prepare_inputs_for_generation is not GenerationMixin.prepare_inputs_for_generation
        or NEEDED - set(inspect.signature(inner.forward).parameters)
    ):
        return "inputs of its own"
    if not inner._supports_attention_backend or config._attn_implementation not in ("eager", *SDPA):
        return "attention of its own"
    if {type(layer) for layer in DynamicCache(config=config).layers} != {DynamicLayer}:
        return "layers other than full attention"
    if inner.device.type != "cpu" and "grouped_mm" in inner.get_experts_implementation().values():
        return "experts, which generate() runs in another way"
    return None


@torch.no_grad()
def decode(
    model: Any,
    prompt_ids: Sequence[Sequence[int]],
    choose: Choose,
    *,
    max_new_tokens: int,
    eos_ids: Iterable[int] = (),
    pad_id: int = 0,
    limits: Sequence[int] | None = None,
    on_row: OnRow | None = None,
) -> list[list[int]]:
    """One completion of each prompt, up to and including its first end-of-sequence token.

    Args:
        model: In eval mode, one for which `why_not` says nothing.
        prompt_ids: Token ids of each row's prompt, none empty. Equal prompts are read once, wherever they stand.
        choose: Picks the tokens.
        max_new_tokens: The limit on a completion's length, at least 1.
        eos_ids: Tokens that end a completion.
        pad_id: Stands in front of shorter prompts, where nothing looks.
        limits: The same of each row, where that is less.
        on_row: Called as soon as a row has ended.

    Raises:
        NotPlain: Before anything was sampled.
    """
    limits = [max_new_tokens] * len(prompt_ids) if limits is None else limits
    max_new_tokens = min(max_new_tokens, max(limits, default=max_new_tokens))
    batch = _Batch(base_model(model), prompt_ids, pad_id, left=max_new_tokens - 1)
    completions: list[list[int]] = [[] for _ in prompt_ids]
    alive, ends = set(batch.rows), set(eos_ids)
    look_every = LOOK_EVERY.get(batch.device.type, 8)
    unseen: list[torch.Tensor] = []
    with heads_together(batch.model.config):
        for left in range(max_new_tokens - 1, -1, -1):
            unseen.append(choose(batch.logits_B_V))
            if left % look_every == 0:
                for row, tokens in zip(batch.rows, torch.stack(unseen, dim=1).tolist(), strict=True):
                    if row in alive and extend(completions[row], tokens, ends, limits[row]):
                        alive.discard(row)
                        if on_row is not None:
                            on_row(row, completions[row])
                if not alive:
                    break
                gone = len(batch.rows) - len(alive)
                if gone >= LEAVE * len(batch.rows) or (gone and batch.is_full):
                    places = batch.keep(alive, left)
                    choose.keep(places)
                    unseen[-1] = unseen[-1].index_select(0, places)
                del unseen[:-1]
                batch.step(unseen.pop(), left)
            else:
                batch.step(unseen[-1], left)
    return completions


def extend(completion: list[int], tokens: Sequence[int], ends: set[int], limit: int) -> bool:
    """Add tokens up to the first that ends the completion; whether it has ended."""
    for token in tokens:
        completion.append(token)
        if token in ends or len(completion) == limit:
            return True
    return False


class _Batch:
    """The rows being decoded and what the model keeps of them.

    Attributes:
        rows: For each row of the batch, its place in the call.
        logits_B_V: What the model says of each row's next token, float32.
    """

    def __init__(self, model: Any, prompt_ids: Sequence[Sequence[int]], pad_id: int, *, left: int):
        self.model, self.device = model, model.device
        self.rows = list(range(len(prompt_ids)))
        place = {ids: number for number, ids in enumerate(dict.fromkeys(map(tuple, prompt_ids)))}
        width = max(map(len, place))
        ids_U_T = torch.tensor([[pad_id] * (width - len(ids)) + list(ids) for ids in place], device=self.device)
        padding_U = torch.tensor([width - len(ids) for ids in place], device=self.device)
        positions_U_T = torch.arange(width, device=self.device) - padding_U[:, None]
        self._layers = [Buffers() for _ in DynamicCache(config=model.config).layers]
        self._cache = Cache(layers=list(self._layers))
        last = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
        logits_U_V = self._forward(ids_U_T, (positions_U_T >= 0).long(), positions_U_T.clamp(min=0), **last)
        if any(layer.length != width for layer in self._layers):
            raise NotPlain
        of_row = torch.tensor([place[tuple(ids)] for ids in prompt_ids], device=self.device)
        self.logits_B_V = logits_U_V.index_select(0, of_row)
        self._padding_B = padding_U.index_select(0, of_row)
        self._positions_B_1 = width - self._padding_B[:, None]
        self._take(of_row, left)

    @property
    def is_full(self) -> bool:
        """Whether the next step needs larger buffers."""
        return self._layers[0].is_full

    def keep(self, alive: set[int], left: int) -> torch.Tensor:
        """Let go of all rows but these; returns the places they had."""
        kept = [place for place, row in enumerate(self.rows) if row in alive]
        places = torch.tensor(kept, device=self.device)
        self.rows = [self.rows[place] for place in kept]
        self._padding_B = self._padding_B.index_select(0, places)
        self._positions_B_1 = self._positions_B_1.index_select(0, places)
        self._take(places, left)
        return places

    def step(self, chosen_B: torch.Tensor, left: int) -> None:
        """Read the token chosen for each row, of which `left` can come with this one."""
        if self.is_full:
            self._take(None, left)
        mask = None if self._mask_B_1_1_T is None else self._mask_B_1_1_T[..., : self._layers[0].length + 1]
        self.logits_B_V = self._forward(chosen_B[:, None], mask, self._positions_B_1)
        self._positions_B_1 = self._positions_B_1 + 1

    def _take(self, places: torch.Tensor | None, left: int) -> None:
        """Keep these rows, without the positions at which all of them are padded, in buffers with room for more."""
        start = int(self._padding_B.min())
        length = self._layers[0].length - start
        room = min(left, max(ROOM, int(GROWTH * length)))
        for layer in self._layers:
            layer.take(places, start, room)
        self._padding_B = self._padding_B - start
        self._mask_B_1_1_T = None
        if self._padding_B.any():
            hidden_B_T = torch.arange(length + room, device=self.device) < self._padding_B[:, None]
            mask_B_T = torch.zeros(hidden_B_T.shape, dtype=self._layers[0].keys.dtype, device=self.device)
            self._mask_B_1_1_T = mask_B_T.masked_fill_(hidden_B_T, -torch.inf)[:, None, None]

    def _forward(
        self, ids: torch.Tensor, mask: torch.Tensor | None, positions: torch.Tensor, **more: Any
    ) -> torch.Tensor:
        out = self.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=self._cache, use_cache=True,
            return_dict=True, **more,
        )  # fmt: skip
        return out.logits[:, -1].float()
