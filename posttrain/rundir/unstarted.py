"""A run that has taken no step: nothing is lost if it begins anew, under another recipe."""

from __future__ import annotations

import shutil

from posttrain.rundir.layout import BASES, REST, Layout

_STAGES = ("warmup", "hybrid")


def is_unstarted(layout: Layout) -> bool:
    """Whether the run in a directory has trained nothing: no step, no checkpoint, no stage that is done."""
    if layout.steps_file.exists() and layout.steps_file.stat().st_size:
        return False
    done = [layout.state_file, layout.warmup_model, layout.model]
    return not any(path.exists() for path in [*done, *(layout.checkpoints(stage) for stage in _STAGES)])


def forget_unstarted(layout: Layout) -> bool:
    """Remove what a run that has taken no step left behind, so that another can begin.

    Returns:
        Whether it did: an evaluation took its time, so that with one among it nothing is removed.
    """
    if any(file.exists() for file in (layout.eval_file, layout.pass_rates_file, layout.angles_file)):
        return False
    for folder in (*BASES, REST):  # models as the recipe describes them
        shutil.rmtree(layout.path / folder, ignore_errors=True)
    files = [layout.environment_file, layout.data_file, layout.report_file, layout.alarms_file, layout.errors_file]
    for file in [layout.recipe_file, *files]:
        file.unlink(missing_ok=True)
    return True
