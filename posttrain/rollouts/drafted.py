"""A decoding loop that reads several tokens of a row at once, and the tokens that rows have in common once.

Each completion is a function of its row's uniform numbers: token t is where the policy's cumulative distribution
passes number t (`choice`). So neither guesses nor company need a rule of acceptance:

- A pass reads the last token and guesses at what follows it. It gives the policy's distribution after each, and with
  the row's own numbers the tokens that the policy says there. As far as the guess agrees with them it was right, and
  what comes behind was read after just the tokens that plain decoding would have had; the first that differs is the
  policy's own, and the rest of the guess is forgotten. (That a guess is right has the policy's own probability of it,
  as in speculative sampling, arXiv 2211.17192, with a known draft.)
- Rows of one prompt that have said the same so far are one lane: the distribution that comes next is the same for all,
  and each picks from it with its own number. Where they pick different tokens the lane parts.

Where a pass is so short that torch's threads gain nothing by sharing it (`side_by_side`), each of them has some of the
prompts, with guesses of their own, so that these stay a function of what was sampled and not of who came first.

By induction every token is the one of plain decoding, whatever was guessed and shared: these decide how much is
computed, never what comes out. As everywhere, another shape of a pass changes the last bits of logits, which can tip a
token now and then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch

from posttrain.processes.side_by_side import side_by_side
from posttrain.rollouts.drafts import Drafts
from posttrain.rollouts.lane_cache import LaneCache, fused_pass

__all__ = ["ChooseAt", "decode_drafted"]

MOST = 12
"""Tokens of a guess at most."""

FEW, SIDE_BY_SIDE = 2, 192
"""Attention pads all lanes to the longest guess, which so has this many tokens divided by the lanes, or `FEW`."""

PASS = 16
"""What a pass costs whatever it reads, in tokens read; measured on models of 1 and 3 million parameters."""

PROMPTS = 4
"""A thread has so many prompts at least: of fewer, a pass costs what it costs whatever it reads."""

MOST_PARTS = 4
"""Threads at most. Each also waits for the interpreter, which one at a time can have."""

LANE = 0.5
"""What a lane of a pass costs whatever it reads, in tokens read: attention's walk through its keys."""


class ChooseAt(Protocol):
    """What turns logits into tokens."""

    def at(
        self, logits_N_V: torch.Tensor, rows: Sequence[Sequence[int]], places: Sequence[int]
    ) -> Sequence[Sequence[int]]:
        """For each of the N: the tokens that these rows of the call have at this place of their completions."""


class Lane(NamedTuple):
    """Rows of one prompt that have said the same.

    Attributes:
        text: Token ids of the prompt and what has been said.
        first: Length of the prompt.
        rows: Numbers of the rows in the call.
        slot: Where the keys of what was said are; lanes that have just parted have the same.
        prompt: Number of the prompt.
        guess: What the next pass reads behind the last token.
    """

    text: list[int]
    first: int
    rows: list[int]
    slot: int
    prompt: int
    guess: Sequence[int] = ()

    @property
    def said(self) -> int:
        """Tokens said."""
        return len(self.text) - self.first


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
    rows_of: dict[tuple[int, ...], list[int]] = {}
    for row, ids in enumerate(prompt_ids):
        rows_of.setdefault(tuple(ids), []).append(row)
    prompts = list(rows_of.items())
    fast = fused_pass(model, list(rows_of))
    small = fast is not None and fast.is_small
    parts = max(1, min(torch.get_num_threads(), len(prompts) // PROMPTS, MOST_PARTS)) if small else 1
    told, stop = threading.Lock(), threading.Event()

    def end(row: int, completion: list[int]) -> None:
        with told:
            if on_row is not None:
                on_row(row, completion)

    def say(number: int) -> dict[int, list[int]]:
        own = prompts[number::parts]
        lanes = [Lane(list(ids), len(ids), rows, place, place) for place, (ids, rows) in enumerate(own)]
        guesses = drafts if parts == 1 else drafts.beside()
        asked: dict[str, Any] = {"ends": set(eos_ids), "limits": limits, "end": end, "stop": stop}
        return _said(lanes, LaneCache(model, [ids for ids, _ in own], fast), choose, guesses, **asked)

    done: dict[int, list[int]] = {}
    for some in side_by_side([partial(torch.no_grad()(say), number) for number in range(parts)], stop):
        done |= some
    return [done[row] for row in range(len(prompt_ids))]


def _said(
    lanes: list[Lane],
    cache: LaneCache,
    choose: ChooseAt,
    drafts: Drafts,
    *,
    ends: set[int],
    limits: Sequence[int],
    end: Callable[[int, list[int]], None],
    stop: threading.Event,
) -> dict[int, list[int]]:
    """The completions of the lanes' rows, by row; of those that have ended when it is to `stop`."""
    logits_N_V, done = cache.logits_U_V, dict[int, list[int]]()
    while not stop.is_set():
        asked = [(lane.rows, lane.said + more) for lane in lanes for more in range(len(lane.guess) + 1)]
        chosen = iter(choose.at(logits_N_V, [rows for rows, _ in asked], [place for _, place in asked]))
        going: list[Lane] = []
        for lane in lanes:
            for (tokens, ended), rows in parted(lane, [next(chosen) for _ in range(len(lane.guess) + 1)], ends, limits):
                text = [*lane.text, *tokens]
                drafts.read(text, len(lane.text), times=len(rows))
                if not ended:
                    going.append(Lane(text, lane.first, rows, lane.slot, lane.prompt))
                for row in rows if ended else ():
                    done[row] = text[lane.first :]
                    end(row, list(done[row]))
        if not going:
            break
        lanes = [lane._replace(guess=_guess(lane, len(going), drafts, limits)) for lane in going]
        slots, logits_N_V = cache.read(
            [(lane.slot, lane.prompt, lane.said - 1, [lane.text[-1], *lane.guess]) for lane in lanes],
            rows=sum(len(lane.rows) for lane in lanes),
            most=max(limits[row] for lane in lanes for row in lane.rows),
        )
        lanes = [lane._replace(slot=slot) for lane, slot in zip(lanes, slots, strict=True)]
    return done


Said = tuple[tuple[int, ...], bool]
"""Tokens that a row says, and whether they end its completion."""


def parted(
    lane: Lane, chosen: Sequence[Sequence[int]], ends: set[int], limits: Sequence[int]
) -> Iterable[tuple[Said, list[int]]]:
    """What the rows of a lane say in a pass, and which rows each, in their order.

    Args:
        lane: With the guess that was read.
        chosen: Tokens of its rows after the last token, and after each of the guess as if that were right.
        ends: Tokens that end a completion.
        limits: Most tokens of each row of the call.
    """
    groups: dict[Said, list[int]] = {}
    for number, row in enumerate(lane.rows):
        tokens, ended, left = list[int](), False, limits[row] - lane.said
        for place, some in enumerate(chosen):
            token = some[number]
            tokens.append(token)
            ended = token in ends or len(tokens) == left
            if ended or place == len(lane.guess) or token != lane.guess[place]:
                break
        groups.setdefault((tuple(tokens), ended), []).append(row)
    return groups.items()


def _guess(lane: Lane, lanes: int, drafts: Drafts, limits: Sequence[int]) -> list[int]:
    """The guess that is worth reading: as long as it is likely enough that one of the lane's rows says it."""
    room = max(limits[row] for row in lane.rows) - lane.said - 1
    least = 1 / (1 + LANE + PASS / lanes)
    return drafts.after(
        lane.text, min(MOST, max(FEW, SIDE_BY_SIDE // lanes), room), 1 - (1 - least) ** (1 / len(lane.rows))
    )
