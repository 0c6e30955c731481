"""Which token comes next: logits processed as transformers does it, and a draw that belongs to its place in the run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from posttrain.errors import TrainingError
from posttrain.rollouts.sampling import Sampling


def sampler(seeds: Sequence[tuple[int, ...]], sampling: Sampling, device: Any) -> LogitsProcessorList:
    """What turns a batch's logits into a choice, in the order of generate(); nothing at temperature 0, where the
    likeliest token is the choice. A repetition penalty is generate()'s own, which comes before.
    """
    processors = LogitsProcessorList()
    if sampling.temperature == 0:
        return processors
    if sampling.temperature != 1:
        processors.append(TemperatureLogitsWarper(float(sampling.temperature)))
    if sampling.top_k:
        processors.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        processors.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        processors.append(MinPLogitsWarper(sampling.min_p))
    draws = [np.random.default_rng(list(numbers)).random(sampling.max_tokens, dtype=np.float32) for numbers in seeds]
    processors.append(InverseTransform(torch.from_numpy(np.stack(draws)).to(device)))
    return processors


class Choice:
    """What `sampler` made, as `decode` asks for it."""

    def __init__(self, processors: LogitsProcessorList):
        self._warpers, self._draw = processors[:-1], processors[-1] if processors else None

    def __call__(self, logits_B_V: torch.Tensor) -> torch.Tensor:
        """The chosen token [B] of each row."""
        if self._draw is None:
            return logits_B_V.argmax(dim=-1)
        for warp in self._warpers:
            logits_B_V = warp(None, logits_B_V)
        return self._draw.choose(logits_B_V)[:, 0]

    def at(
        self, logits_N_V: torch.Tensor, rows: Sequence[Sequence[int]], places: Sequence[int]
    ) -> Sequence[Sequence[int]]:
        """For each of the N: the tokens chosen where these rows of the call are at this place of their completions."""
        if self._draw is None:
            return [[token] * len(some) for token, some in zip(logits_N_V.argmax(dim=-1).tolist(), rows, strict=True)]
        for warp in self._warpers:
            logits_N_V = warp(None, logits_N_V)
        widest = max(map(len, rows))
        filled = torch.tensor([[*some, *[some[0]] * (widest - len(some))] for some in rows])
        draws_N_R = self._draw.draws_B_N[filled, torch.tensor(places)[:, None]]
        return picked(logits_N_V, draws_N_R, check=not any(places)).tolist()

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these rows alone."""
        if self._draw is not None:
            self._draw.draws_B_N = self._draw.draws_B_N.index_select(0, rows)


class InverseTransform(LogitsProcessor):
    """Leaves one token a row possible: the one at which the cumulative distribution passes that row's next draw."""

    def __init__(self, draws_B_N: torch.Tensor):
        self.draws_B_N, self.position = draws_B_N, 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores [B, V] with 0 at the chosen token and -inf elsewhere."""
        return torch.full_like(scores, -torch.inf).scatter_(1, self.choose(scores), 0.0)

    def choose(self, scores: torch.Tensor) -> torch.Tensor:
        """The chosen token [B, 1] of each row of scores."""
        chosen_B_1 = picked(scores, self.draws_B_N[:, self.position, None], check=self.position == 0)
        self.position += 1
        return chosen_B_1


def picked(scores_N_V: torch.Tensor, draws_N_R: torch.Tensor, *, check: bool) -> torch.Tensor:
    """The tokens [N, R] at which each cumulative distribution passes its draws.

    Args:
        scores_N_V: Logits.
        draws_N_R: From 0 to below 1.
        check: Look whether they are finite; once a batch, for it waits for the device.

    Raises:
        TrainingError: They are not.
    """
    exact = torch.float32 if scores_N_V.device.type == "mps" else torch.float64
    cumulative_N_V = scores_N_V.float().softmax(dim=-1).cumsum(dim=-1, dtype=exact)
    total_N_1 = cumulative_N_V[:, -1:]
    if check and not total_N_1.isfinite().all():
        raise TrainingError(
            "the model's logits are not finite, so that nothing can be sampled from it",
            expected="finite weights and activations",
            where="rollouts",
            fix="its weights have diverged: lower the learning rate and start over by --restart, which keeps this "
            "run aside; on a GPU, rule out float16",
        )
    draws_N_R = draws_N_R.to(exact) * total_N_1
    # Below the total even when rounded, so that a token of probability 0 is never the one.
    draws_N_R = torch.minimum(draws_N_R, torch.nextafter(total_N_1, torch.zeros_like(total_N_1)))
    return torch.searchsorted(cumulative_N_V, draws_N_R, right=True).clamp_(max=scores_N_V.shape[1] - 1)
