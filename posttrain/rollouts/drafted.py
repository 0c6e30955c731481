"""A decoding loop that reads several tokens of a row at once: the last one and guesses at what follows it.

Each completion is a function of its row's uniform numbers: token t is where the policy's cumulative distribution
passes number t (`choice`). So guesses need no rule of acceptance. A pass gives the policy's distribution after each
token that it reads, and with the row's own numbers the tokens that the policy says there. As far as the guess agrees
with them it was right, and what comes behind was read after just the tokens that plain decoding would have had; the
first that differs is the policy's own, and the rest of the guess is forgotten. By induction every token is the one of
plain decoding, whatever was guessed: guesses decide how many passes it takes, never what comes out. (That a guess is
right has the policy's own probability of it, as in speculative sampling, arXiv 2211.17192, with a known draft.) As
everywhere, another shape of a pass changes the last bits of logits, which can tip a token now and then.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import torch
from transformers import DynamicCache
from transformers.cache_utils import Cache

from posttrain.models.policy_weights import base_model
from posttrain.models.positions import is_scaled
from posttrain.rollouts.decode import extend
from posttrain.rollouts.drafts import Drafts
from posttrain.rollouts.fused import Fused, fused
from posttrain.rollouts.kv_buffers import NotPlain, key_heads
from posttrain.rollouts.row_buffers import Layout, Part, RowBuffers, attention_to_rows

__all__ = ["ChooseAt", "decode_drafted"]

MOST = 12
"""Tokens of a guess at most."""

FEW, SIDE_BY_SIDE = 2, 192
"""Attention pads all rows to the longest guess, which so has this many tokens divided by the rows, or `FEW`."""

PASS = 16
"""What a pass costs whatever it reads, in tokens read; measured on models of 1 and 3 million parameters."""

ROW = 0.5
"""What a row of a pass costs whatever it reads, in tokens read: attention's walk through its keys."""

ROOM = 16
"""Positions by which the buffers grow at least."""

GROWTH = 0.25
"""By how much of their length they grow."""

LEAVE = 0.25
"""Share of the rows that must have ended before the others get buffers without them."""


class ChooseAt(Protocol):
    """What turns logits into tokens."""

    def at(self, logits_N_V: torch.Tensor, rows: Sequence[int], places: Sequence[int]) -> list[int]:
        """The token of each: of which row of the call it is, and which of its completion's tokens."""


@torch.no_grad()
def decode_drafted(
    model: Any,
    prompt_ids: Sequence[Sequence[int]],
    choose: ChooseAt,
    drafts: Drafts,
    *,
    max_new_tokens: int,
    eos_ids: Iterable[int] = (),
    limits: Sequence[int] | None = None,
    on_row: Callable[[int, list[int]], None] | None = None,
) -> list[list[int]]:
    """One completion of each prompt, up to and including its first end-of-sequence token; see `decode`.

    Args:
        model: In eval mode, one for which `decode.why_not` says nothing, and whose attention is SDPA.
        prompt_ids: Token ids of each row's prompt, none empty. Equal prompts are read once.
        choose: Picks the tokens.
        drafts: Guesses; learns what is sampled.
        max_new_tokens: The limit on a completion's length, at least 1.
        eos_ids: Tokens that end a completion.
        limits: The same of each row, where that is less.
        on_row: Called as soon as a row has ended.

    Raises:
        NotPlain: Before anything was sampled.
    """
    limits = [min(max_new_tokens, limit) for limit in limits or [max_new_tokens] * len(prompt_ids)]
    rows = _Rows(model, prompt_ids, limits)
    ends = set(eos_ids)
    texts = [list(ids) for ids in prompt_ids]
    firsts = [len(ids) for ids in prompt_ids]
    alive, guesses = list(range(len(prompt_ids))), {row: list[int]() for row in range(len(prompt_ids))}
    logits_N_V = rows.logits_B_V
    while True:
        at = [(row, len(texts[row]) - firsts[row] + more) for row in alive for more in range(len(guesses[row]) + 1)]
        said = iter(choose.at(logits_N_V, [row for row, _ in at], [place for _, place in at]))
        left = []
        for row in alive:
            before, guess = len(texts[row]), guesses[row]
            taken = [next(said) for _ in range(len(guess) + 1)]
            right = next((place for place, token in enumerate(guess) if token != taken[place]), len(guess))
            if extend(texts[row], taken[: right + 1], ends, firsts[row] + limits[row]):
                if on_row is not None:
                    on_row(row, texts[row][firsts[row] :])
            else:
                left.append(row)
            drafts.read(texts[row], before)
        alive = left
        if not alive:
            return [text[first:] for text, first in zip(texts, firsts, strict=True)]
        least = 1 / (1 + ROW + PASS / len(alive))
        guesses = {
            row: drafts.after(
                texts[row],
                min(MOST, max(FEW, SIDE_BY_SIDE // len(alive)), firsts[row] + limits[row] - len(texts[row]) - 1),
                least,
            )
            for row in alive
        }
        alive = [row for row in rows.rows if row in guesses]  # the order in which logits come
        logits_N_V = rows.read(
            {row: [texts[row][-1], *guesses[row]] for row in alive},
            {row: len(texts[row]) - firsts[row] for row in alive},
        )


class _Rows:
    """The rows being decoded and what the model keeps of them.

    Attributes:
        rows: For each row that has a place in the buffers, its number in the call; a prompt's stand together.
        logits_B_V: After the prompts, of each row of the call.
    """

    def __init__(self, model: Any, prompt_ids: Sequence[Sequence[int]], limits: Sequence[int]):
        self.model = base_model(model)
        config = self.model.config
        if is_scaled(config):  # by the longest row of a pass, which guesses make another
            raise NotPlain
        self._shared = config.num_attention_heads // key_heads(config)
        place = {ids: number for number, ids in enumerate(dict.fromkeys(map(tuple, prompt_ids)))}
        self._prompt_of = [place[tuple(ids)] for ids in prompt_ids]
        self._limits, self._lengths = limits, [len(ids) for ids in place]
        longest = max(self._lengths)
        self._layers = [
            RowBuffers(len(place), longest, self._shared, self.model.dtype) for _ in DynamicCache(config=config).layers
        ]
        self._cache = Cache(layers=list(self._layers))
        self._fused: Fused | None = None
        last_U = torch.tensor(self._lengths).cumsum(0) - 1
        keep = "logits_to_keep" in inspect.signature(self.model.forward).parameters
        logits = self._read_prompts(list(place), **({"logits_to_keep": last_U} if keep else {}))
        self.logits_B_V = (logits if keep else logits.index_select(0, last_U))[self._prompt_of]
        self._prompts = list(range(len(place)))
        self.rows = sorted(range(len(prompt_ids)), key=self._prompt_of.__getitem__)
        for layer in self._layers:
            layer.prompts_are_read(len(self.rows), self._capacity(1))
        self._fused = fused(self.model)

    def read(self, tokens: dict[int, list[int]], said: dict[int, int]) -> torch.Tensor:
        """Read the next tokens of rows; the logits after each, of the rows in their order.

        Args:
            tokens: Of each row that goes on, the last of its completion and guesses at what follows.
            said: Tokens of its completion.
        """
        needed = max(said[row] - 1 + len(some) for row, some in tokens.items())
        if len(tokens) <= (1 - LEAVE) * len(self.rows) or needed > self._layers[0].capacity:
            self._take(tokens, max(said.values()) - 1, needed)
        of = [(row, tokens.get(row, ())) for row in self.rows]
        starts = [said[row] - 1 if some else 0 for row, some in of]
        counts = [len(some) for _, some in of]
        capacity, prompts = self._layers[0].capacity, {prompt: n for n, prompt in enumerate(self._prompts)}
        within = [start + n for start, count in zip(starts, counts, strict=True) for n in range(count)]
        in_prompt = [0] * len(prompts)
        for (row, _), count in zip(of, counts, strict=True):
            in_prompt[prompts[self._prompt_of[row]]] += count
        lengths = [self._lengths[prompt] for prompt in self._prompts]
        its_length = [length for length, count in zip(lengths, in_prompt, strict=True) for _ in range(count)]
        slots = [number * capacity for number, count in enumerate(counts) for _ in range(count)]
        longest, dtype = max(within) + 1, self.model.dtype
        layout = Layout(
            torch.tensor(within) + torch.tensor(its_length),
            torch.tensor(within) + torch.tensor(slots),
            longest,
            (
                Part.of(counts, [n + 1 for n in within], longest, self._shared, dtype),
                Part.of(in_prompt, its_length, max(self._lengths), self._shared, dtype),
            ),
        )
        return self._pass([token for _, some in of for token in some], layout)

    def _read_prompts(self, prompts: Sequence[Sequence[int]], **more: Any) -> torch.Tensor:
        longest = max(self._lengths)
        within = torch.tensor([n for length in self._lengths for n in range(length)])
        rows = torch.tensor([number for number, length in enumerate(self._lengths) for _ in range(length)])
        ends = [0, *itertools.accumulate(self._lengths)]
        layout = Layout(within, rows * longest + within, longest, None, list(itertools.pairwise(ends)))
        logits = self._pass([token for ids in prompts for token in ids], layout, **more)
        if any(layer.passes != 1 or layer.given is not None for layer in self._layers):
            raise NotPlain
        return logits

    def _capacity(self, needed: int) -> int:
        most = max(self._limits[row] for row in self.rows)
        return max(needed, min(most, needed + max(ROOM, int(GROWTH * needed))))

    def _take(self, kept: dict[int, list[int]], held: int, needed: int) -> None:
        """Keep these rows and what they have said, with room for more than is needed."""
        places = [place for place, row in enumerate(self.rows) if row in kept]
        self.rows = [self.rows[place] for place in places]
        prompts = sorted({self._prompt_of[row] for row in self.rows})
        stays = [place for place, prompt in enumerate(self._prompts) if prompt in set(prompts)]
        self._prompts = prompts
        for layer in self._layers:
            layer.take(torch.tensor(places), torch.tensor(stays), held, self._capacity(needed))

    def _attend(self, number: int, query_N: torch.Tensor, keys_N: torch.Tensor, values_N: torch.Tensor) -> torch.Tensor:
        layer = self._layers[number]
        if not layer.is_initialized:
            layer.lazy_initialization(keys_N[None].transpose(1, 2), values_N[None].transpose(1, 2))
        layer.write(keys_N, values_N)
        return layer.attend(query_N.contiguous())

    def _pass(self, tokens: Sequence[int], layout: Layout, **more: Any) -> torch.Tensor:
        for layer in self._layers:
            layer.layout = layout
        if self._fused is not None:
            return self._fused.logits(torch.tensor(tokens), layout.positions_N, self._attend)
        with attention_to_rows(self.model.config, self._layers):
            out = self.model(
                input_ids=torch.tensor([tokens]), attention_mask=None, position_ids=layout.positions_N[None],
                past_key_values=self._cache, use_cache=True, return_dict=True, **more,
            )  # fmt: skip
        return out.logits[0].float()
