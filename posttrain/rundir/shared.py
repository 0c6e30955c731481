"""A run directory as all processes of a run see it: the main one writes, and answers what steers the others.

No process looks at a file to find out how to go on, since it might see what the main process is about to write. The
directory must lie on a file system that all machines of the run share: checkpoints and models are read from it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from posttrain.errors import ConfigError, Interrupted
from posttrain.processes.ranks import Ranks
from posttrain.rundir.layout import Layout
from posttrain.rundir.rundir import RunDir
from posttrain.rundir.warmed import take_warmup
from posttrain.storage.checkpoints import latest_checkpoint
from posttrain.storage.files import read_lines

T = TypeVar("T")

_SEEN_WITHIN_S = 10.0  # a network file system may show a new file late


class SharedRunDir(Layout):
    """A `RunDir` of the main process, and a share in it for the others.

    Every process calls every method at the same point of the run, but for `step` and `completions`: those are what a
    trainer's recorder has, which the trainer calls on the main process and whose errors it shares.

    Attributes:
        resumed, changes: As of `RunDir`.
    """

    def __init__(self, path: Path, ranks: Ranks, own: RunDir | None, *, resumed: bool, changes: list[str]):
        super().__init__(path)
        self.resumed, self.changes = resumed, changes
        self._ranks, self._own = ranks, own

    @classmethod
    def open(
        cls, ranks: Ranks, path: Path, recipe: Mapping[str, Any], fingerprints: Mapping[str, str], **how: Any
    ) -> SharedRunDir:
        """Open the directory on the main process, and make sure that the others see it.

        Args:
            ranks: The processes of the run.
            path, recipe, fingerprints, how: As for `RunDir.open`.

        Raises:
            ResumeError: As `RunDir.open`.
            ConfigError: A process does not see the directory.
        """
        own: list[RunDir] = []

        def open_it() -> tuple[bool, list[str]]:
            own.append(RunDir.open(path, recipe, fingerprints, processes=ranks.count, **how))
            return own[0].resumed, own[0].changes

        resumed, changes = ranks.decided(open_it)
        run = cls(path, ranks, own[0] if own else None, resumed=resumed, changes=changes)
        try:
            run._check_seen()
        except BaseException:
            run.close()
            raise
        return run

    def _check_seen(self) -> None:
        if self._ranks.count == 1:
            return
        token = self.path / self._ranks.decided(lambda: f".seen-{uuid.uuid4().hex}.tmp")
        self._write(lambda own: token.touch())
        try:
            self._ranks.together(lambda: self._look_for(token))
        finally:
            if self._own is not None:
                with suppress(OSError):
                    token.unlink()

    def _look_for(self, token: Path) -> None:
        until = time.monotonic() + _SEEN_WITHIN_S
        while not token.exists():
            if time.monotonic() > until:
                raise ConfigError(
                    f"rank {self._ranks.number} does not see what rank 0 writes into {self.path.resolve()}",
                    expected="a folder on a file system that all machines of the run share",
                    where="run.dir",
                    fix="name such a folder by run.dir=... (a relative path starts at the working directory)",
                )
            time.sleep(0.05)

    # -- questions ---------------------------------------------------------------------------------------------

    def _ask(self, question: Callable[[RunDir], T]) -> T:
        return self._ranks.decided(lambda: question(self._main()))

    def _main(self) -> RunDir:
        assert self._own is not None
        return self._own

    def done(self, stage: str) -> dict[str, Any] | None:
        """As `RunDir.done`."""
        return self._ask(lambda own: own.done(stage))

    def evaluated(self, stage: str, step: int) -> bool:
        """As `RunDir.evaluated`."""
        return self._ask(lambda own: own.evaluated(stage, step))

    def latest_checkpoint(self, stage: str) -> Path | None:
        """The last whole checkpoint of a stage."""
        return self._ask(lambda own: latest_checkpoint(own.checkpoints(stage)))

    def seconds_of(self, stage: str) -> float:
        """What the recorded steps of a stage took."""
        return self._ask(
            lambda own: sum(line["seconds"]["total"] for line in read_lines(own.steps_file) if line["stage"] == stage)
        )

    def evaluations(self) -> list[dict[str, Any]]:
        """The lines of eval.jsonl."""
        return self._ask(lambda own: read_lines(own.eval_file))

    def has_report(self) -> bool:
        """Whether the report was written."""
        return self._ask(lambda own: own.report_file.exists())

    # -- writing -----------------------------------------------------------------------------------------------

    def _write(self, write: Callable[[RunDir], Any]) -> None:
        self._ranks.on_main(lambda: write(self._main()))

    def mark_done(self, stage: str, info: Mapping[str, Any] | None = None) -> None:
        """As `RunDir.mark_done`."""
        self._write(lambda own: own.mark_done(stage, info))

    def take_warmup(self, source: Path) -> bool:
        """As `warmed.take_warmup`."""
        return self._ask(lambda own: take_warmup(own, source))

    def settle_engine(self, engine: str) -> None:
        """As `RunDir.settle_engine`."""
        self._write(lambda own: own.settle_engine(engine))

    def evaluation(self, record: Mapping[str, Any], rows: list[dict[str, Any]]) -> None:
        """As `RunDir.evaluation`; what the main process has is kept."""
        self._write(lambda own: own.evaluation(record, rows))

    def truncate_steps(self, stage: str, last_step: int) -> None:
        """As `RunDir.truncate_steps`."""
        self._write(lambda own: own.truncate_steps(stage, last_step))

    def step(self, record: Mapping[str, Any]) -> None:
        """As `RunDir.step`; the main process's only."""
        self._main().step(record)

    def completions(self, step: int, rows: list[dict[str, Any]]) -> None:
        """As `RunDir.completions`; the main process's only."""
        self._main().completions(step, rows)

    # -- closing -----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """As `RunDir.close`."""
        if self._own is not None:
            self._own.close()

    def __enter__(self) -> SharedRunDir:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._own is not None and error is not None and not isinstance(error, Interrupted | KeyboardInterrupt):
            self._own.failed(error)
        self.close()
