"""The evaluation of a run's model on the second held-out set, and what it was of.

Beside a result stands what it depends on: the second recipe, and when the run came to its end. A result without that,
or of another recipe or model, is none.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.recipe.recipe import Recipe
from posttrain.rundir.layout import Layout
from posttrain.rundir.reading import done_stages
from posttrain.storage.files import plain, write_json


@dataclass(frozen=True)
class SecondEvaluation:
    """Where one is, and of what.

    Attributes:
        file: The result.
        run: Whose model is evaluated.
        recipe: Whose held-out problems it is evaluated on.
    """

    file: Path
    run: Layout
    recipe: Recipe

    @property
    def mark_file(self) -> Path:
        """Where what it was of is written down."""
        return self.file.with_suffix(".of.json")

    def mark(self) -> dict[str, Any] | None:
        """What it depends on; `None` while the run is not done."""
        finished = done_stages(self.run).get("final")
        facts = json.dumps(plain(self.recipe.resolved()), sort_keys=True)
        return finished and {"recipe": hashlib.sha256(facts.encode()).hexdigest(), "finished": finished["finished"]}

    def is_done(self) -> bool:
        """Whether there is a result, of this recipe and of this run's model."""
        with suppress(OSError, ValueError):  # a file that is absent or torn: it is made again
            was = json.loads(self.mark_file.read_text(encoding="utf-8"))
            return was is not None and self.file.exists() and was == self.mark()
        return False

    def begin(self) -> None:
        """Leave no result of anything else, and write down what the one to come is of."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.unlink(missing_ok=True)
        write_json(self.mark_file, self.mark())

    def score(self) -> float | None:
        """Its pass@1; `None` while it is not done."""
        return float(json.loads(self.file.read_text(encoding="utf-8"))["pass@1"]) if self.is_done() else None
