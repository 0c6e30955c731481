"""What a step is called where one axis goes through both stages: as `explain --step` and `view --step` take it."""

from __future__ import annotations

from dataclasses import dataclass

START, WARMUP, HYBRID = "start", "warm-up", "hybrid"


@dataclass(frozen=True)
class StepNames:
    """The names of places on an axis that counts the steps of the warm-up and, further on, the hybrid stage's.

    Args:
        boundary: The place of the warm-up's last step; None where the places are the steps.
    """

    boundary: float | None = None

    def number(self, place: float) -> float:
        """The step's number in its stage."""
        return place if self.boundary is None or place <= self.boundary else place - self.boundary

    def stage(self, place: float) -> str:
        """Its stage's name; empty where there is one."""
        if self.boundary is None:
            return ""
        return START if place <= 0 else WARMUP if place <= self.boundary else HYBRID

    def one(self, place: float) -> str:
        """A step: `hybrid 57`."""
        stage = self.stage(place)
        return stage if stage == START else f"{stage} {self.number(place):.12g}".lstrip()

    def several(self, first: float, last: float) -> str:
        """From one to another: `hybrid 57 to 60`."""
        if first == last:
            return self.one(first)
        same = self.stage(first) == self.stage(last)
        return f"{self.one(first)} to {f'{self.number(last):.12g}' if same else self.one(last)}"

    def told(self, first: float, last: float, across: str = "step") -> str:
        """The same in a sentence, where `step 57` says what is meant."""
        return self.several(first, last) if self.boundary is not None else f"{across} {self.several(first, last)}"
