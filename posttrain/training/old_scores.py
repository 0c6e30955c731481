"""Log-probabilities of demonstrations under the policy at a window's start, for `clipped` to compare with.

PSFT (arXiv 2508.17784, verl's loop) scores a batch of 256 demonstrations once and trains on it in 8 updates of 32. Here
a window is as many steps with SFT: their demonstrations are known beforehand, for the stream's order is the seed's.
GRPO steps in between move the policy, too, and are part of what the ratio shows. Scores are kept by the demonstration's
place in the stream, so that any number of processes can go on with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn.utils.rnn import pad_sequence

from posttrain.training.saved import saved_tensors

WINDOW = 8
"""Steps in a window: PSFT's 256 demonstrations in updates of 32."""


class OldScores:
    """The scores of this process's demonstrations of a window.

    Args:
        steps: In a window.

    Attributes:
        until: Place in the stream behind the window's last demonstration, the same on every process.
    """

    def __init__(self, steps: int):
        self.steps, self.until = steps, 0
        self._scores: dict[int, torch.Tensor] = {}

    def holds(self, places: range) -> bool:
        """Whether a step's demonstrations, of all processes, lie in the window; those before them are dropped."""
        self._scores = {place: scores for place, scores in self._scores.items() if place >= places.start}
        return places.stop <= self.until

    def add(self, places: Sequence[int], log_probs: torch.Tensor, attention_mask: torch.Tensor) -> None:
        """Keep a micro-batch's scores.

        Args:
            places: Of its rows in the stream.
            log_probs: (B, T - 1) or (B, T), padded on the right.
            attention_mask: (B, T).
        """
        for place, row, length in zip(places, log_probs, attention_mask.sum(dim=1).tolist(), strict=True):
            self._scores[place] = row[: length - 1].float()

    def of(self, places: Sequence[int]) -> torch.Tensor:
        """The scores of a micro-batch, (B, T - 1), 0 behind a row's end."""
        return pad_sequence([self._scores[place] for place in places], batch_first=True)

    def save(self, checkpoint: Path, rank: int, cursor: int) -> None:
        """Write what the window's coming steps need: the scores from the stream's cursor on."""
        coming = {place: scores for place, scores in self._scores.items() if place >= cursor}
        scores = {str(place): scores.cpu().contiguous().clone() for place, scores in coming.items()}
        save_file(scores, checkpoint / _name(rank))

    def load(self, checkpoint: Path, until: int, processes: int, device: torch.device) -> None:
        """Take up a window that as many processes saved; each keeps the scores of all."""
        self.until = until
        for rank in range(processes):
            saved = saved_tensors(checkpoint / _name(rank), "the scores that sft_weight: clipped compares with")
            self._scores |= {int(place): scores.to(device) for place, scores in saved.items()}


def _name(rank: int) -> str:
    return f"demonstrations-rank{rank}.safetensors"
