"""What a run leaves behind, and the guard that keeps two different runs out of one directory.

    recipe.yaml  environment.json  data.json (hashes of the rows)  state.json
    steps.jsonl  eval.jsonl  alarms.jsonl  errors.jsonl (failures of rewards)  report.html
    pass_rates.jsonl, angles.jsonl, curriculum.json, warmup_curriculum.json (of a curriculum)
    completions/step-000010.parquet  completions/eval-hybrid-000050.parquet
    checkpoints/{warmup,hybrid}/checkpoint-N/  warmup/ (the warmed-up model)  model/ (the final one)

Only the main process of a distributed run opens the directory (see `shared.py`); it holds a lock until it closes it
or dies.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from posttrain.errors import CheckpointError, PosttrainError, ResumeError
from posttrain.rundir import completions as records
from posttrain.rundir import environment
from posttrain.rundir.data_changes import Contents, data_changes
from posttrain.rundir.facts import (
    difference,
    flatten,
    named,
    read_environment,
    read_recipe,
    read_whole,
    write_recipe,
)
from posttrain.rundir.layout import BASES, REST, STAGES, Layout
from posttrain.rundir.masking import without_secrets
from posttrain.rundir.refusals import (
    aside,
    cannot_be_written,
    nothing_to_resume,
    refuse_foreign_folder,
    serious_differences,
    started_differently,
)
from posttrain.rundir.unstarted import forget_unstarted, is_unstarted
from posttrain.storage import files
from posttrain.storage.checkpoints import latest_checkpoint, put_aside_torn, step_of, why_torn
from posttrain.storage.lock import Lock

LONGEST_ERROR = 300
"""Characters of an error that are noted."""


class RunDir(Layout):
    """One run's directory, open for writing and locked. Use `RunDir.open`; close it, or use it in `with`.

    Attributes:
        path: The directory.
        resumed: Whether it held a run of this recipe already.
        changes: Accepted or harmless differences to the recipe, data and rewards it was started with, one a line; and
            torn checkpoints, which were put aside.
    """

    def __init__(self, path: Path, lock: Lock, *, resumed: bool = False, changes: list[str] | None = None):
        super().__init__(path)
        self.resumed, self.changes = resumed, changes or []
        self._lock, self._accepted = lock, list[str]()

    # -- opening -----------------------------------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        path: str | Path,
        recipe: Mapping[str, Any],
        fingerprints: Mapping[str, str],
        resume: bool | None = None,
        accept_changes: bool = False,
        restart: bool = False,
        processes: int = 1,
        data: Contents | None = None,
    ) -> RunDir:
        """Create the directory of a run, or go on with the run of the same recipe that it holds.

        `fingerprints` are hashes by name of what the recipe only points to: data sets and reward sources.
        `resume` True demands a run to go on with, False demands that there is none, None takes what is there.
        `restart` moves an old run aside to NAME.1, NAME.2 and so on; nothing is ever deleted. `processes` is how many
        a run that begins here is on, which is remembered (`processes_of`). `data` is what `data_changes.contents` says
        of the rows, so that a changed data set is told in words.

        A recipe that differs only in `HARMLESS` keys is the same recipe. All others count, `hybrid.steps` among
        them: the learning rate's schedule depends on the number of steps, so that a longer run is not the shorter
        one continued. `accept_changes` goes on all the same: a finished start and warm-up are kept, a finished hybrid
        stage is taken up again at its last checkpoint, and the final evaluation is made anew. A run that has taken no
        step begins anew under another recipe, unless `resume` is True; an evaluation that it made is moved aside.

        Raises:
            ResumeError: recipe, data or rewards changed (the message shows each as was -> is); there is no run to
                resume, or one where none should be; the folder is not a run's; another process is at work in it.
            CheckpointError: no checkpoint of a stage that is not done is whole, or a model that a later stage needs is
                torn; or nothing can be written here.
        """
        path = Path(path)
        try:
            if restart:
                _move_aside(path)
            path.resolve().mkdir(parents=True, exist_ok=True)
            lock = Lock(path)
        except OSError as error:
            raise cannot_be_written(path, error) from error
        given = recipe, fingerprints, resume, accept_changes, processes, data
        try:
            return cls._open_locked(path, lock, *given)
        except _Unstarted as unstarted:
            changes = unstarted.changes
        except BaseException:
            lock.release()
            raise
        run = cls._open_anew(path, lock, changes, given)
        run.changes = changes
        return run

    @classmethod
    def _open_anew(cls, path: Path, lock: Lock, changes: list[str], given: tuple[Any, ...]) -> RunDir:
        """Open the directory of a run that has taken no step for another one."""
        try:
            if not forget_unstarted(Layout(path)):
                path.resolve().rename(old := aside(path))
                changes.append(f"the evaluation that it had made is in {old.name}")
                path.resolve().mkdir()
                lock.release()
                lock = Lock(path)
            return cls._open_locked(path, lock, *given)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def _open_locked(
        cls,
        path: Path,
        lock: Lock,
        recipe: Mapping[str, Any],
        fingerprints: Mapping[str, str],
        resume: bool | None,
        accept_changes: bool,
        processes: int,
        data: Contents | None,
    ) -> RunDir:
        recipe, run = without_secrets(files.plain(recipe)), cls(path, lock)
        run.resumed = run.recipe_file.exists()
        if run.resumed and resume is False:
            raise ResumeError(
                "the directory holds a run already",
                expected="no run",
                where=str(path),
                fix=f"go on with it by --resume; start over by --restart (moves the old run to {aside(path).name})",
            )
        if not run.resumed:
            if resume:
                raise nothing_to_resume(path)
            refuse_foreign_folder(path)
        sessions: list[dict[str, Any]] = []
        if run.resumed:
            before = read_environment(run.environment_file)
            sessions, processes = before.get("sessions", []), before.get("processes", 1)
            was = {**flatten(read_recipe(run.recipe_file)), **named(before.get("fingerprints", {}))}
            run._compare(was, {**flatten(recipe), **named(fingerprints)}, accept_changes, data, anew=resume is not True)
            run._tidy()
            run._pass_over_torn()
        described = environment.describe()
        session = {"started": environment.now(), **{key: described[key] for key in ("command", "versions", "git")}}
        if run._accepted:
            last = latest_checkpoint(run.checkpoints("hybrid"))
            session |= {"accepted": run._accepted, "from_hybrid_step": 1 + (step_of(last) if last else 0)}
        files.write_json(
            run.environment_file,
            {
                **described,
                "processes": processes,
                "fingerprints": dict(fingerprints),
                "sessions": [*sessions, session],
            },
        )
        if data is not None and run._data_before() != data:
            files.write_text(run.data_file, json.dumps(data) + "\n")
        write_recipe(run.recipe_file, recipe)  # last: the directory is a run's from here on
        return run

    def _tidy(self) -> None:
        """Drop what a kill left half written."""
        for file in (self.steps_file, self.eval_file):
            files.drop_torn_end(file)
        if self.done("hybrid") is not None:  # else the stage mends what its steps can tell anew
            files.drop_broken_lines(self.alarms_file)
        for folder in (self.path, self.completions_folder):
            for leftover in folder.glob(".*.tmp"):
                leftover.unlink()

    def _pass_over_torn(self) -> None:
        """Put torn checkpoints aside, and refuse to go on from a model that is not as it was written."""
        if self.done("final"):
            return
        for stage in ("warmup", "hybrid"):
            if self.done(stage) is None:
                self.changes += [f"{stage}: {line}" for line in put_aside_torn(self.checkpoints(stage))]
        needed = [self.path / name for name in (*BASES, REST)]
        needed += [self.warmup_model] if self.done("warmup") else []
        needed += [self.model] if self.done("hybrid") else []
        needed += [self.averaged_model] if self.done("averaged") else []
        for folder in needed:
            reason = why_torn(folder, contents=True) if folder.is_dir() else None
            if reason:
                raise CheckpointError(
                    f"the model that was saved here is torn: {reason}",
                    expected="the files as they were written",
                    where=str(folder),
                    fix=f"bring them back from a copy; or start over by --restart (moves the old run to "
                    f"{aside(self.path).name})",
                )

    def _data_before(self) -> Contents | None:
        try:
            return json.loads(self.data_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def _compare(
        self, was: dict[str, Any], now: dict[str, Any], accept_changes: bool, data: Contents | None, *, anew: bool
    ) -> None:
        """Refuse a run that would not be the one in the directory, or take up what accepted changes concern."""
        before = self._data_before()
        told = data_changes(before, data) if before and data else []

        def in_words(lines: list[str]) -> list[str]:
            parts = [told if told and line.startswith("fingerprint of data:") else [line] for line in lines]
            return [line for part in parts for line in part]

        serious = in_words(serious_differences(was, now))
        self.changes = in_words(difference(was, now))
        if not serious:
            return
        if anew and is_unstarted(self):
            raise _Unstarted([*self.changes, "no step had been taken: the run begins anew"])
        other_model = [line for line in serious if line.startswith(("model.", "fingerprint of model"))]
        if accept_changes and other_model:
            raise ResumeError(
                f"the run in this directory trains another model: {', '.join(other_model)}",
                expected="changes that the warmed-up model can be trained on under",
                where=str(self.path),
                fix="start over by --restart, or train elsewhere by run.dir=...",
            )
        if not accept_changes:
            raise started_differently(self.path, serious)
        self._accepted = serious
        for stage in ("hybrid", "averaged", "final"):
            self._unmark(stage)
        self._drop(lambda stage, step: stage in ("averaged", "final"))

    # -- stages ------------------------------------------------------------------------------------------------

    def done(self, stage: str) -> dict[str, Any] | None:
        """What `mark_done` was given when the stage finished, None when it has not."""
        return self._state().get(stage)

    def mark_done(self, stage: str, info: Mapping[str, Any] | None = None) -> None:
        """Note that a stage is finished, so that a resumed run skips it."""
        self._write_state({**self._state(), stage: {"finished": environment.now(), **(info or {})}})

    def _unmark(self, stage: str) -> None:
        state = self._state()
        if state.pop(stage, None) is not None:
            self._write_state(state)

    def _state(self) -> dict[str, Any]:
        if not self.state_file.exists():
            return {}
        return read_whole(self.state_file, json.loads)["done"]

    def _write_state(self, done: dict[str, Any]) -> None:
        files.write_json(self.state_file, {"done": done})

    def evaluated(self, stage: str, step: int) -> bool:
        """Whether eval.jsonl has an evaluation of that stage and step."""
        return any((line["stage"], line["step"]) == (stage, step) for line in files.read_lines(self.eval_file))

    def settle_engine(self, engine: str) -> None:
        """Take down what `rollout.engine: auto` came to, after what it was thought to be could not be had."""
        recipe = read_recipe(self.recipe_file)
        recipe["rollout"]["engine"] = engine
        write_recipe(self.recipe_file, recipe)

    # -- lines -------------------------------------------------------------------------------------------------

    def step(self, record: Mapping[str, Any]) -> None:
        """Keep one line of steps.jsonl."""
        if self._lock.is_lost():
            raise CheckpointError(
                "the run directory was removed or moved away while the run was at work in it",
                expected="the directory that this process has locked",
                where=str(self.path),
                fix="put it back, then resume: its last checkpoint is from before; what is here now was written since",
            )
        files.append_line(self.steps_file, record)

    def completions(self, step: int, rows: list[dict[str, Any]]) -> None:
        """Keep the rollouts of one step of the hybrid stage."""
        records.write_completions(self.rollouts_file(step), rows)

    def evaluation(self, record: Mapping[str, Any], rows: list[dict[str, Any]]) -> None:
        """Keep an evaluation: its completions, then its line of eval.jsonl, in the place of an earlier one like it."""
        stage, step = record["stage"], record["step"]
        records.write_completions(self.eval_completions_file(stage, step), rows)
        files.keep_lines(self.eval_file, lambda line: (line.get("stage"), line.get("step")) != (stage, step))
        files.append_line(self.eval_file, record)

    def truncate_steps(self, stage: str, last_step: int) -> None:
        """Forget what came after `last_step` of a stage: the checkpoint that one resumes from does not know it.

        Lines of steps.jsonl and eval.jsonl and completions of later steps of the stage, and of later stages, go.
        """
        after = STAGES[STAGES.index(stage) + 1 :]
        self._drop(lambda name, step: name in after or (name == stage and step > last_step))

    def _drop(self, forget: Callable[[str, int], bool]) -> None:
        for file in (self.steps_file, self.eval_file):
            files.keep_lines(file, lambda line: not forget(line.get("stage", ""), line.get("step", 0)))
        for file in sorted(self.completions_folder.glob("*.parquet")):
            named = records.stage_and_step(file)
            if named and forget(*named):
                file.unlink()

    # -- closing -----------------------------------------------------------------------------------------------

    def failed(self, error: BaseException) -> None:
        """Note in the session's record that the run ended by an error, for those who look at the directory later."""
        if self._lock.is_lost():
            return  # the directory was moved away: what is here now is not this run's
        told = (str(error).splitlines() or [""])[0][:LONGEST_ERROR]
        failure = {"at": environment.now(), "error": f"{type(error).__name__}: {told}"}
        with suppress(PosttrainError, OSError):  # what went wrong may be the disk: that error is to be seen
            before = read_environment(self.environment_file)
            *earlier, last = before.get("sessions") or [{}]
            files.write_json(self.environment_file, {**before, "sessions": [*earlier, {**last, "failed": failure}]})

    def close(self) -> None:
        """Give the lock back. A process that dies gives it back too."""
        self._lock.release()

    def __enter__(self) -> RunDir:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _Unstarted(Exception):
    """The directory holds a run of another recipe that has taken no step."""

    def __init__(self, changes: list[str]):
        super().__init__()
        self.changes = changes


def _move_aside(path: Path) -> None:
    """Rename the run at `path`, if there is one, unless a process is at work in it."""
    if not (path / "recipe.yaml").exists():
        return
    lock = Lock(path)
    try:
        path.resolve().rename(aside(path))
    finally:
        lock.release()
