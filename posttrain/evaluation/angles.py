"""How much the hidden states of each prompt point the same way, before a model is trained: what `gain_rl` orders by.

Of the vectors that enter the feed-forward part of the last layer, one a token, mean cosines of pairs are taken
(GAIN-RL, arXiv 2506.02281). Each prompt passes once through the model without its head. The mean over all pairs of n
unit vectors follows from the length of their sum, so that no matrix of n * n is made: (|sum|^2 - n) / (n (n - 1)).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from posttrain.errors import ConfigError
from posttrain.inputs.leaks import content_key
from posttrain.models.inference import inference
from posttrain.processes.ranks import Ranks
from posttrain.storage.files import read_lines, write_text

Row = Mapping[str, Any]

FEED_FORWARD = ("mlp", "feed_forward", "ffn", "block_sparse_moe", "fc1")
"""What models of transformers call the feed-forward part of a layer, or the first matrix of it."""

DIGITS = 6
"""Of a cosine that is written down: what another batch or processor would round otherwise is not in them."""


class Angles(NamedTuple):
    """Of one prompt.

    Attributes:
        within: Mean cosine of two tokens of the question.
        between: Mean cosine of a token of the question and one of the template before it.
        whole: Mean cosine of any two tokens.
        tokens: That passed through the model.
        seconds: That its part of the pass took.
    """

    within: float
    between: float
    whole: float
    tokens: int
    seconds: float


class Passes(NamedTuple):
    """What the angles of all prompts took."""

    prompts: int
    tokens: int
    seconds: float

    def in_words(self) -> str:
        """For the run's log."""
        return f"{self.prompts:,} prompts passed through the model once, {self.tokens:,} tokens in {self.seconds:.1f} s"


def template_of(prompt_ids: Sequence[Sequence[int]]) -> tuple[int, int]:
    """How many tokens all prompts have in common at their beginning, and behind that at their end.

    Prompts that are all alike have nothing in common that would not be a question: 0 and 0.
    """
    shortest, first = min(map(len, prompt_ids)), prompt_ids[0]
    if all(list(ids) == list(first) for ids in prompt_ids):
        return 0, 0
    begins = next((at for at in range(shortest) if len({ids[at] for ids in prompt_ids}) > 1), shortest)
    left = shortest - begins
    ends = next((at for at in range(left) if len({ids[-1 - at] for ids in prompt_ids}) > 1), left)
    return begins, ends


def cosines(states: torch.Tensor, begins: int, ends: int) -> tuple[float, float, float]:
    """The mean cosines of a prompt's tokens: within the question, between it and the template, of all.

    Args:
        states: (T, H) one vector a token.
        begins, ends: Tokens of the template before and behind the question.

    Returns:
        Each within -1 and 1; 0 where there is no pair.
    """
    unit = F.normalize(states.double(), dim=-1)
    question, template = unit[begins : len(unit) - ends], unit[:begins]
    both = len(question) * len(template)
    between = float(question.sum(0) @ template.sum(0)) / both if both else 0.0
    return _pairs(question), between, _pairs(unit)


def _pairs(unit: torch.Tensor) -> float:
    count = len(unit)
    return (float(unit.sum(0).square().sum()) - count) / (count * (count - 1)) if count > 1 else 0.0


def last_feed_forward(model: nn.Module) -> nn.Module:
    """The feed-forward part of a model's last layer.

    Raises:
        ConfigError: None is called as such parts are.
    """
    found = [module for name, module in model.named_modules() if name.rpartition(".")[2] in FEED_FORWARD]
    if not found:
        kind = type(model).__name__
        raise ConfigError(
            f"{kind} has no module named {', '.join(FEED_FORWARD[:-1])} or {FEED_FORWARD[-1]}",
            expected="the feed-forward part of its last layer, whose inputs gain_rl measures",
            where="hybrid.curriculum",
            fix="take another curriculum, such as bots",
        )
    return found[-1]


def measure(
    model: Any,
    prompt_ids: Sequence[Sequence[int]],
    *,
    batch_size: int = 128,
    on_progress: Callable[[int, int], None] | None = None,
    ranks: Ranks | None = None,
) -> list[Angles]:
    """The angles of prompts, one forward pass each.

    Batches are of prompts of like length and the same on any number of processes, which share them.

    Args:
        model: A causal language model of transformers or PEFT; its mode stays as it is.
        prompt_ids: Token ids of each prompt.
        batch_size: Prompts of a pass.
        on_progress: Called with (prompts done, prompts in all), equally often on every process.
        ranks: The processes that measure together.

    Raises:
        ConfigError: The model's feed-forward parts are not found.
    """
    ranks, whole = ranks or Ranks(), getattr(model, "get_base_model", lambda: model)()
    decoder = whole.get_decoder() if hasattr(whole, "get_decoder") else whole
    begins, ends = template_of(prompt_ids)
    places = sorted(range(len(prompt_ids)), key=lambda place: len(prompt_ids[place]))
    batches = [places[at : at + batch_size] for at in range(0, len(places), batch_size)]

    def share() -> dict[int, Angles]:
        found: dict[int, Angles] = {}
        for at in range(0, len(batches), ranks.count):
            for batch in batches[at + ranks.number : at + ranks.number + 1]:
                ids = [prompt_ids[place] for place in batch]
                found |= zip(batch, _measured(decoder, ids, begins, ends), strict=True)
            if on_progress:
                on_progress(min((at + ranks.count) * batch_size, len(places)), len(places))
        return found

    with inference(model):
        parts = ranks.gathered(ranks.together(share))
    found = {place: angles for part in parts for place, angles in part.items()}
    return [found[place] for place in range(len(prompt_ids))]


def _measured(decoder: Any, prompt_ids: Sequence[Sequence[int]], begins: int, ends: int) -> list[Angles]:
    started, device = time.perf_counter(), next(decoder.parameters()).device
    lengths = [len(ids) for ids in prompt_ids]
    ids = nn.utils.rnn.pad_sequence([torch.tensor(each) for each in prompt_ids], batch_first=True).to(device)
    mask = (torch.arange(ids.shape[1]) < torch.tensor(lengths)[:, None]).long().to(device)
    with _inputs_of(last_feed_forward(decoder)) as seen:
        decoder(input_ids=ids, attention_mask=mask, use_cache=False)
    states = seen[-1].reshape(*ids.shape, -1)
    three = [cosines(of[:count], begins, ends) for of, count in zip(states, lengths, strict=True)]
    each = (time.perf_counter() - started) / sum(lengths)
    return [Angles(*means, count, count * each) for means, count in zip(three, lengths, strict=True)]


@contextmanager
def _inputs_of(module: nn.Module) -> Iterator[list[torch.Tensor]]:
    seen: list[torch.Tensor] = []

    def look(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(next(each for each in (*args, *kwargs.values()) if isinstance(each, torch.Tensor)).detach())

    handle = module.register_forward_pre_hook(look, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


def measured_angles(
    rows: Sequence[Row], file: Path, measure: Callable[[], Sequence[Angles]], ranks: Ranks | None = None
) -> tuple[list[list[float]], Passes]:
    """The three cosines of each prompt by the file, which is written first if it does not have each of them.

    Args:
        rows: The prompts.
        file: JSON lines with the content key of a prompt and its `Angles`.
        measure: Gives the angles of each row.
        ranks: The processes of the run: all of them measure, the main one writes and reads.

    Returns:
        `within`, `between` and `whole` of each, and what the passes took.
    """
    keys, ranks = [content_key(row) for row in rows], ranks or Ranks()

    def known() -> dict[str, Row]:
        return {line["prompt"]: line for line in read_lines(file)} if file.exists() else {}

    if not ranks.decided(lambda: set(keys) <= known().keys()):
        written = "".join(_line(key, angles) for key, angles in zip(keys, measure(), strict=True))
        ranks.decided(lambda: write_text(file, written))
    lines = ranks.decided(lambda: read_lines(file))
    of = {line["prompt"]: [float(line[name]) for name in Angles._fields[:3]] for line in lines}
    took = Passes(len(lines), sum(line["tokens"] for line in lines), sum(line["seconds"] for line in lines))
    return [of[key] for key in keys], took


def _line(key: str, angles: Angles) -> str:
    rounded = {name: round(value, DIGITS) for name, value in angles._asdict().items()}
    return json.dumps({"prompt": key, **rounded}, ensure_ascii=False) + "\n"
