"""`posttrain run RECIPE --smoke`: every part of a run, on a CPU, in a minute, with a tiny model of the recipe's kind.

All of the recipe's data is loaded and checked, its rewards score real rows, its chat template renders the longest. Then
a run of the scaled recipe (`recipe.py`) is stopped within each stage, resumed each time and brought to its end. What
the draws of the recipe's controller left out in its few steps, a further run of that kind alone makes up for.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from posttrain.errors import CheckpointError, Interrupted, ResumeError
from posttrain.inputs.ends import ends_of
from posttrain.inputs.inputs import load_data, load_judges, load_rewards
from posttrain.inputs.same_stream import differences_of, refuse
from posttrain.models.load import load_policy, load_tokenizer
from posttrain.planning.model_facts import describe_model
from posttrain.planning.padded import stages_in_words
from posttrain.planning.smoke.checks import check_rewards, check_rows, check_trackers
from posttrain.planning.smoke.model import load_parts, model_source, save_tiny
from posttrain.planning.smoke.recipe import STEPS, few, only, scaled, tried
from posttrain.recipe.recipe import Recipe
from posttrain.rundir.layout import Layout
from posttrain.rundir.refusals import cannot_be_written
from posttrain.running.pipeline import RunResult, run
from posttrain.storage.files import read_lines, write_json
from posttrain.storage.lock import Lock
from posttrain.tasks import TaskData
from posttrain.watching.quiet import quiet_libraries

RESULT = "smoke.json"
"""What a smoke test leaves in its folder, by which the folder is known as one of a smoke test."""

MOST = 75_000_000
"""Tokens of a row times the vocabulary that a smoke test trains on: the logits are what takes its time."""


def smoke(recipe: Recipe, *, say: Callable[[str], None] | None = None) -> Path:
    """Try a recipe, and say what each part took and what was not tried.

    Args:
        recipe: A recipe that `plan.check` accepts on one process.
        say: Takes a line for the user; printed if `None`.

    Returns:
        The folder of the test, `runs/NAME-smoke` for a run in `runs/NAME`. What an earlier test left there is replaced.

    Raises:
        PosttrainError: What the recipe would fail by, after a line that names the part; the folder is kept.
    """
    folder = smoke_folder(recipe)
    lock = _emptied(folder)
    try:
        return _Smoke(recipe, folder, say or partial(print, flush=True)).carry_out()
    finally:
        lock.release()


def smoke_folder(recipe: Recipe) -> Path:
    """Where a recipe is tried: beside its run directory, which is not touched."""
    path = Path(recipe.run.dir or "runs/run")
    return path.with_name(f"{path.name}-smoke")


class _Smoke:
    """One smoke test."""

    def __init__(self, recipe: Recipe, folder: Path, say: Callable[[str], None]):
        self.recipe, self.folder, self.say = recipe, folder, say
        self.parts: list[dict[str, Any]] = []
        self.not_tried: list[str] = []

    def carry_out(self) -> Path:
        started = time.perf_counter()
        self.say(f"smoke test in {self.folder}: {model_source(self.recipe)} made tiny, on a CPU")
        quiet_libraries()
        self._write(None)
        try:
            rows, small = self._inputs()
            self._trained(small, rows)
        except Interrupted as stop:
            self._write("stopped as asked")
            asked = Interrupted("the smoke test was stopped as asked; it starts anew each time", where=str(self.folder))
            asked.signal = stop.signal
            raise asked from stop
        except BaseException as error:
            self._write(f"{type(error).__name__}: {error}")
            raise
        self.say(
            f"nothing failed in {time.perf_counter() - started:.0f} s; its report: {self.folder / 'run'}/report.html"
        )
        self.say(f"tried: {'; '.join(tried(self.recipe))}")
        self.say(f"not tried: {'; '.join(self.not_tried)}")
        self._write(None, passed=True)
        return self.folder

    def _inputs(self) -> tuple[TaskData, Recipe]:
        """Check data, rewards and tokenizer, make the tiny model; a few rows, and the recipe scaled down."""
        recipe = self.recipe
        with self._part("data") as said:
            data = load_data(recipe)
            said += [f"{len(data.train)} prompts, {len(data.demonstrations)} demonstrations, {len(data.eval)} held out"]
            said += data.notes
        with self._part("rewards on real rows") as said:
            rewards = load_rewards(recipe, data)
            said += check_rewards(recipe, rewards, data)
        with self._part("tokenizer, chat template, lengths") as said:
            check_trackers(recipe.run.report_to)
            config, tokenizer = load_parts(recipe, data)
            lengths = check_rows(recipe, data, tokenizer, config)
            said += lengths.notes
        with self._part("trained as sampled: prompts, words, ends and scores of demonstrations") as said:
            judges = load_judges(recipe, data, rewards)
            found = differences_of(recipe, data, tokenizer, ends_of(recipe, tokenizer), [*rewards, *judges])
            said += refuse(found) or ["alike"]
        with self._part("a tiny model") as said:
            model, left_out = save_tiny(self.folder / "tiny", recipe, config, tokenizer)
            said += [f"{config.model_type}, {sum(each.numel() for each in model.parameters()) / 1e6:.2f} M parameters"]
            # Of the recipe's own model: an attention that needs a GPU is left out of the tiny one
            padded = describe_model(recipe, config, on_gpu=False).padded
            said += [f"rows of the {of} are padded, not packed: {why}" for of, why in stages_in_words(padded)]
        small = scaled(recipe, model=(self.folder / "tiny").resolve(), folder=self.folder / "run")
        tokens = max(MOST // config.get_text_config().vocab_size, 256)
        if lengths.longest > tokens:
            self.not_tried.append(f"training on rows of more than about {tokens} tokens")
        self.not_tried += [*small.not_tried, *left_out]
        return few(data, tokens * lengths.characters_per_token), small.recipe

    def _trained(self, recipe: Recipe, rows: TaskData) -> None:
        for number, stop_after in enumerate(stops(recipe)):
            name = "first steps, a stop" if number == 0 else "resumed, a stop" if stop_after else "resumed, the rest"
            with self._part(name) as said:
                said += self._session(recipe, rows, stop_after, resume=number > 0)
        for kind in self._kinds(recipe):
            alone = only(recipe, kind, self.folder / f"run-{kind}")
            with self._part(f"{kind.upper()} alone, which the controller did not draw: steps, a stop, resumed") as said:
                for number, stop_after in enumerate(stops(alone)):
                    said += self._session(alone, rows, stop_after, resume=number > 0)
        with self._part("the finished run") as said:
            said += self._finished(RunResult(self.folder / "run"))

    def _session(self, recipe: Recipe, rows: TaskData, stop_after: int | None, *, resume: bool) -> list[str]:
        """Start or resume the run, up to where it is to stop."""
        layout = Layout(Path(recipe.run.dir or ""))
        before = _lines(layout)
        try:
            run(recipe, data=rows, resume=resume, plain=True, stop_after=stop_after)
        except Interrupted:
            if stop_after is None or len(_lines(layout)) - len(before) != stop_after:
                raise  # it was the user who asked
            if layout.last_checkpoint() is None:
                raise _not_resumable(layout, "a stop left no whole checkpoint") from None
        now = _lines(layout)
        if now[: len(before)] != before:
            raise _not_resumable(layout, "resumed, the run did not go on from its checkpoint: it repeated steps")
        return _steps(layout, len(before))

    def _kinds(self, recipe: Recipe) -> list[str]:
        """Which kinds of step the recipe's controller can take, and did not."""
        if not recipe.hybrid.steps:
            return []
        lines = [line for line in read_lines(Layout(self.folder / "run").steps_file) if line["stage"] == "hybrid"]
        possible = zip(("sft", "grpo"), recipe.hybrid.controller.shares(), strict=True)
        return [kind for kind, can in possible if can and not any(line["mix"][kind] for line in lines)]

    def _finished(self, result: RunResult) -> list[str]:
        load_tokenizer(result.model)
        load_policy(result.model, trainable=False, trust_remote_code=self.recipe.model.trust_remote_code)
        if not result.report.is_file():
            raise CheckpointError("the run wrote no report", expected="one page", where=str(result.report))
        return [f"model and report are there, {len(read_lines(Layout(result.path).eval_file))} evaluations"]

    @contextmanager
    def _part(self, name: str) -> Iterator[list[str]]:
        """Time a part and say what it came to, the lines that the block adds to the list; or that it failed."""
        started, said = time.perf_counter(), list[str]()
        try:
            yield said
        except BaseException as error:
            seconds = time.perf_counter() - started
            self.parts.append({"part": name, "seconds": round(seconds, 2), "failed": True})
            how = "stopped" if isinstance(error, Interrupted | KeyboardInterrupt) else "FAILED"
            self.say(f"  {seconds:6.1f} s  {how}: {name}; what it left is in {self.folder}")
            raise
        seconds = time.perf_counter() - started
        self.parts.append({"part": name, "seconds": round(seconds, 2), "said": said})
        self.say(f"  {seconds:6.1f} s  {name}: {'; '.join(said)}")

    def _write(self, error: str | None, *, passed: bool = False) -> None:
        record = {"passed": passed, "error": error, "parts": self.parts, "not_tried": self.not_tried}
        write_json(self.folder / RESULT, record)


def stops(recipe: Recipe) -> list[int | None]:
    """After how many steps each session of the run is stopped: once within each stage; the last runs to the end."""
    stages = [steps for steps in (recipe.warmup.steps, recipe.hybrid.steps) if steps]
    if len(stages) == 1:
        return [1, None] if stages[0] > 1 else [None]
    warmup, _ = stages
    first: list[int | None] = [1] if warmup > 1 else []
    return [*first, STEPS, None] if recipe.hybrid.steps > 1 else [*first, None]


def _emptied(folder: Path) -> Lock:
    """The folder, locked, without what an earlier smoke test left in it.

    Raises:
        ResumeError: It holds something else, or another test is at work in it.
        CheckpointError: It cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = {entry.name for entry in folder.iterdir()} - {".lock"}
        if names and RESULT not in names:
            raise ResumeError(
                f"the folder has other files, {', '.join(sorted(names)[:3])} among them",
                expected=f"an absent or empty folder, or that of a smoke test, with {RESULT}",
                where=str(folder),
                fix="move it away, or name another run.dir=...",
            )
        lock = Lock(folder)
    except OSError as error:
        raise cannot_be_written(folder, error) from error
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != ".lock":
            entry.unlink()
    return lock


def _lines(layout: Layout) -> list[str]:
    return layout.steps_file.read_text(encoding="utf-8").splitlines() if layout.steps_file.exists() else []


def _steps(layout: Layout, start: int = 0) -> list[str]:
    """What the steps from a line of steps.jsonl on were made of."""
    lines = [json.loads(line) for line in _lines(layout)[start:]]
    return [f"{line['stage']} step {line['step']}{_mix(line)}" for line in lines]


def _mix(line: dict[str, Any]) -> str:
    parts = [kind.upper() for kind in ("sft", "grpo") if (line.get("mix") or {}).get(kind)]
    return f" ({' + '.join(parts)})" if parts else ""


def _not_resumable(layout: Layout, seen: str) -> CheckpointError:
    return CheckpointError(
        seen,
        expected="a checkpoint after each step, from which the run goes on",
        where=str(layout.path / "checkpoints"),
        fix="look there for what was put aside; is there room, and does the file system keep what is written?",
    )
