"""Where everything is in the directory of a run."""

from __future__ import annotations

from pathlib import Path

from posttrain.storage.checkpoints import latest_checkpoint

STAGES = ("start", "warmup", "hybrid", "averaged", "final")
BASES = ("init", "base", "merged")
"""Folders of the model that a run begins with, where it made it: from scratch, of a GGUF file, of several models."""


REST = "rest"
"""The folder of what an adapter left of the base that it began with a part of (`models.rest`)."""


class Layout:
    """Where everything is in a run's directory.

    Attributes:
        path: The directory.
    """

    def __init__(self, path: Path):
        self.path = path

    @property
    def recipe_file(self) -> Path:
        """The recipe as resolved: defaults, parents and command line applied."""
        return self.path / "recipe.yaml"

    @property
    def environment_file(self) -> Path:
        """Versions, code and machine of every session, and the fingerprints of data and rewards."""
        return self.path / "environment.json"

    @property
    def data_file(self) -> Path:
        """Hashes of the rows, by which a changed data set is told in words (see `data_changes`)."""
        return self.path / "data.json"

    @property
    def state_file(self) -> Path:
        """Which stages are done."""
        return self.path / "state.json"

    @property
    def steps_file(self) -> Path:
        """One line an optimizer step."""
        return self.path / "steps.jsonl"

    @property
    def eval_file(self) -> Path:
        """One line an evaluation."""
        return self.path / "eval.jsonl"

    @property
    def completions_folder(self) -> Path:
        """The parquet files of completions."""
        return self.path / "completions"

    @property
    def errors_file(self) -> Path:
        """One line a completion that a reward failed on."""
        return self.path / "errors.jsonl"

    @property
    def alarms_file(self) -> Path:
        """One line an alarm (see `alarms`)."""
        return self.path / "alarms.jsonl"

    @property
    def pass_rates_file(self) -> Path:
        """Each prompt of a curriculum and how often it was solved before the hybrid stage."""
        return self.path / "pass_rates.jsonl"

    @property
    def angles_file(self) -> Path:
        """Each prompt of a curriculum and the angles of its hidden states before the hybrid stage."""
        return self.path / "angles.jsonl"

    @property
    def curriculum_file(self) -> Path:
        """What a curriculum knows of each prompt, by its row: what replays its draws."""
        return self.path / "curriculum.json"

    @property
    def warmup_curriculum_file(self) -> Path:
        """What the warm-up's curriculum knows of each demonstration, by its row among those that have labels."""
        return self.path / "warmup_curriculum.json"

    @property
    def warmup_model(self) -> Path:
        """The model at the end of the warm-up: the reference of the KL, and where other methods can start."""
        return self.path / "warmup"

    @property
    def model(self) -> Path:
        """The final model."""
        return self.path / "model"

    @property
    def averaged_model(self) -> Path:
        """The average of the hybrid stage's last checkpoints."""
        return self.path / "averaged"

    @property
    def report_file(self) -> Path:
        """The report, one self-contained page."""
        return self.path / "report.html"

    def checkpoints(self, stage: str) -> Path:
        """The folder of the checkpoint-N folders of a stage, "warmup" or "hybrid"."""
        return self.path / "checkpoints" / stage

    def last_checkpoint(self) -> Path | None:
        """What the run goes on from, if there is a whole checkpoint."""
        folders = (self.checkpoints(stage) for stage in ("hybrid", "warmup"))
        return next((found for folder in folders if (found := latest_checkpoint(folder))), None)

    def rollouts_file(self, step: int) -> Path:
        """The parquet file of the rollouts of a step of the hybrid stage."""
        return self.completions_folder / f"step-{step:06d}.parquet"

    def eval_completions_file(self, stage: str, step: int) -> Path:
        """The parquet file of an evaluation's completions."""
        return self.completions_folder / f"eval-{stage}-{step:06d}.parquet"
