"""Twenty runs killed from outside at random moments, each resumed: all equal one that was never killed, bit for bit.

Nothing is patched. The moments are drawn by a seeded generator over the length of an uninterrupted run, so they fall
into steps, evaluations, saving, loading and the time before there is a run directory.
"""

from __future__ import annotations

import itertools
import random
import signal
import time

import pytest

from posttrain.storage.checkpoints import STAGING
from tests.pipeline.runs import assert_same_run, forked, lines, train, write_recipe
from tests.pipeline.test_killed import BLEND, LORA, WINDOW

KINDS = {"SASR": (), "LoRA": LORA, "blend": BLEND, "window": WINDOW}
KILLS = 5


def where(run) -> str:
    """Where a killed run got to, from what it left."""
    if not (run / "recipe.yaml").exists():
        return "before there was a run"
    steps = lines(run, "steps.jsonl") if (run / "steps.jsonl").exists() else []
    evaluations = lines(run, "eval.jsonl") if (run / "eval.jsonl").exists() else []
    place = f"after {steps[-1]['stage']} step {steps[-1]['step']}" if steps else "before the first step"
    if evaluations:
        place += f", evaluation of {evaluations[-1]['stage']} {evaluations[-1]['step']}"
    if any(run.rglob(STAGING)):
        place += ", while saving"
    if (run / "report.html").exists():
        place += ", with its report written"
    return place


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_a_random_moment(tmp_path, kind, capfd):
    moments, overrides = random.Random(f"kills of {kind}"), KINDS[kind]
    reference = write_recipe(tmp_path / "reference")
    forked(reference, "--version")  # the first fork imports everything
    began = time.monotonic()
    assert train(reference, *overrides).code == 0
    length = time.monotonic() - began

    places: list[str] = []
    for attempt in itertools.count():
        if len(places) == KILLS:
            break
        folder = write_recipe(tmp_path / f"killed-{attempt}")
        moment = moments.uniform(0.02, 0.95) * length

        def kill(process, moment=moment):
            process.join(moment)
            process.kill()

        began = time.monotonic()
        if train(folder, *overrides, meanwhile=kill).code != -signal.SIGKILL:
            length = time.monotonic() - began  # it was done already: the machine has become faster
            continue
        places.append(where(folder / "run"))
        with capfd.disabled():
            print(f"\n{kind}: killed at {moment:.2f} s of {length:.2f} s, {places[-1]}", end="", flush=True)
        ended = train(folder, *overrides)
        assert ended.code == 0, (places[-1], ended.text)
        assert_same_run(reference / "run", folder / "run")
    assert len(set(places)) > 1, places
