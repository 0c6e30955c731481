"""The tables of docs/ against what they describe: recipe keys, controllers, rewards, and every field of a real run."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import types
import typing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from posttrain.controllers import CONTROLLERS
from posttrain.curricula import CURRICULA, DMT, EXP3, UCB1, Aioli, Curriculum, MixedSources, Outcome, Sampler, SkillIt
from posttrain.curricula.base import summed_up
from posttrain.launch.launch import NAMES
from posttrain.recipe.recipe import TASKS, Recipe
from posttrain.recipe.sections import RewardConfig
from posttrain.rollouts.probe import ProbeResult
from posttrain.rundir.layout import Layout
from posttrain.scoring.loading import known_rewards
from posttrain.scoring.score import Score
from posttrain.training.ledger import sampling_gap
from tests.docs.pages import DOCS, REPOSITORY, code_in, tables

RECIPES, RUNS = DOCS / "recipes.md", DOCS / "runs.md"


def rows_under(page: Path, heading: str) -> dict[str, list[str]]:
    """First code of each row of a heading's tables, and the row's cells."""
    found = tables(page)
    assert heading in found, f"{page.name} has no table under {heading!r}: {sorted(found)}"
    return {code_in(cells[0])[0]: cells for cells in found[heading] if code_in(cells[0])}


def sections_of(model: type[BaseModel], name: str = "") -> dict[str, type[BaseModel]]:
    """Each section of a recipe by its dotted name, itself included; tasks and controllers are no such."""
    found = {name: model}
    for key, field in model.model_fields.items():
        kinds = typing.get_args(field.annotation) if _is_union(field.annotation) else (field.annotation,)
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found |= sections_of(kind, f"{name}.{key}".lstrip("."))
    return found


def _is_union(kind: Any) -> bool:
    return typing.get_origin(kind) in (typing.Union, types.UnionType)


def check_keys(documented: dict[str, list[str]], defaults: dict[str, Any], where: str) -> None:
    """The same keys, and the defaults that are written out are the right ones."""
    assert set(documented) == set(defaults), f"{where}: {set(documented) ^ set(defaults)}"
    for key, cells in documented.items():
        written = code_in(cells[1])
        assert written or cells[1] in ("", "-", "all", "column"), f"{where}.{key}: {cells[1]}"
        if written:
            value = YAML(typ="safe").load(written[0])
            assert value == defaults[key], f"{where}.{key}: {value!r} is written, {defaults[key]!r} is so"
        else:
            assert cells[1] == "-" or defaults[key] is not dataclasses.MISSING, f"{where}.{key} has no default"


def test_every_key_of_a_recipe_is_documented_and_no_other():
    sections = sections_of(Recipe)
    assert {"", "model.init", "lora", "hybrid.grpo", "hybrid.budget", "run"} <= set(sections)
    sections["rewards"] = RewardConfig
    for name, model in sections.items():
        defaults = {}
        for key, field in model.model_fields.items():
            value = dataclasses.MISSING if field.is_required() else field.get_default(call_default_factory=True)
            defaults[field.alias or key] = {"name": value.name} if dataclasses.is_dataclass(value) else value
        check_keys(rows_under(RECIPES, name or "Top"), defaults, name)


@pytest.mark.parametrize("kind", [*TASKS, *CONTROLLERS, *CURRICULA])
def test_every_setting_of_a_task_a_controller_and_a_curriculum_is_documented_and_no_other(kind):
    kinds = ((RECIPES, TASKS), (DOCS / "controllers.md", CONTROLLERS), (DOCS / "curricula.md", CURRICULA))
    page, table = next((page, table) for page, table in kinds if kind in table)
    fields = [field for field in dataclasses.fields(table[kind]) if field.name != "name"]
    if not fields:
        assert kind not in tables(page)
        return
    defaults = {}
    for field in fields:
        made = field.default_factory is not dataclasses.MISSING
        defaults[field.name] = field.default_factory() if made else field.default  # type: ignore[misc]
    if kind == "knights_knaves":
        defaults["people"] = TASKS[kind]().people  # empty stands for what suits
    check_keys(rows_under(page, kind), defaults, kind)


def test_every_reward_and_its_arguments_are_documented_and_no_other():
    page = DOCS / "rewards.md"
    ours = {name: point.load() for name, point in known_rewards().items() if point.value.startswith("posttrain.")}
    for name, function in ours.items():
        parameters = inspect.signature(function).parameters.values()
        kept = [one for one in parameters if one.name != "completion" and one.kind != one.VAR_KEYWORD]
        defaults = {one.name: None if one.default is one.empty else one.default for one in kept}
        documented = rows_under(page, name)
        check_keys(documented, defaults, name)
        columns = {key for key, cells in documented.items() if cells[1] == "column"}
        assert columns == {one.name for one in kept if one.default is one.empty}, name
    fields = {field.name for field in dataclasses.fields(Score)} - {"bounded"}
    assert set(rows_under(page, "Score, parts, notes, None")) == fields


def test_the_configurations_of_launch_are_documented():
    documented = rows_under(DOCS / "gpus.md", "Several GPUs")
    assert set(documented) == set(NAMES)


# ---- what a run leaves behind, against a real one ----


@pytest.fixture(scope="module")
def run(prepared) -> Path:
    return prepared / "runs" / "quickstart"


def lines(run: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / name).open()]


def test_every_field_of_a_step_is_documented_and_no_other(run):
    documented = rows_under(RUNS, "steps.jsonl")
    written = lines(run, "steps.jsonl")
    for stage in ("warmup", "hybrid"):
        fields = {name for line in written if line["stage"] == stage for name in line}
        assert fields == {name for name, cells in documented.items() if cells[1] in ("both", stage)}, stage
    assert set(written[-1]["tokens"]) == {"sft"}
    text = RUNS.read_text()
    for phase in {phase for line in written for phase in line["seconds"]}:
        assert f"`{phase}`" in text, f"seconds.{phase} is not documented"


def test_every_field_of_an_evaluation_is_documented_and_no_other(run):
    fields = {name for line in lines(run, "eval.jsonl") for name in line}
    assert fields | {"pass@k"} == set(rows_under(RUNS, "eval.jsonl"))


def test_every_column_of_the_completions_is_documented_and_no_other(run):
    folder = run / "completions"
    named = [code_in(cells[0])[0] for cells in tables(RUNS)["Completions"] if code_in(cells[0])]
    rollouts, answers = named[: named.index("row")], named[named.index("row") :]
    written = {name for file in folder.glob("step-*.parquet") for name in pq.read_schema(file).names}
    general = {_general(name) for name in written}
    assert general | {"prompt_source"} == set(rollouts), "the run's rows are of no source"
    written = {name for file in folder.glob("eval-*.parquet") for name in pq.read_schema(file).names}
    assert {"SLICE" if name == "people" else name for name in written} | {"prompt_source"} == set(answers)


def _general(column: str) -> str:
    if column.startswith("reward/"):
        return "reward/NAME"
    return "part/REWARD.PART" if column.startswith("part/") else column


def test_every_file_is_documented_and_no_other(run):
    documented = {name.rstrip("/") for cells in tables(RUNS)["Files"] for name in code_in(cells[0])}
    written = {path.name for path in run.iterdir() if path.name != "checkpoints"}
    written |= {f"checkpoints/{path.name}" for path in (run / "checkpoints").iterdir()}
    absent = {
        "errors.jsonl",
        "alarms.jsonl",
        "pass_rates.jsonl",
        "angles.jsonl",
        "curriculum.json",
        "warmup_curriculum.json",
        "trackers.json",
        *("base", "merged", "rest", "averaged"),
    }  # where there is something to say
    assert written - documented == set()
    assert documented - written <= absent
    layout = Layout(Path("run"))
    known = [getattr(layout, name) for name, kind in vars(Layout).items() if isinstance(kind, property)]
    assert len(known) > 10
    assert {path.name for path in known} <= documented


def test_fields_of_what_few_runs_have_are_documented():
    from posttrain.alarms import KINDS

    assert set(rows_under(RUNS, "alarms.jsonl")) >= {
        "step",
        "kind",
        "level",
        "evidence",
        "advice",
        "source_fell",
        *KINDS,
    }
    assert set(rows_under(RUNS, "errors.jsonl")) >= {"step", "reward", "prompt", "completion", "error"}


def test_the_limits_of_the_alarms_are_those_of_the_code():
    from posttrain.alarms import demonstrations, policy, rollouts

    def share(value: float) -> str:
        return f"{value:.0%}".replace("%", " %")

    limits = {
        "dead_groups": (share(rollouts.DEAD), share(rollouts.DEAD_PROBLEM)),
        "truncation": (share(rollouts.TRUNCATED), share(rollouts.TRUNCATED_PROBLEM)),
        "entropy_collapse": (share(policy.ENTROPY), share(policy.ENTROPY_PROBLEM)),
        "kl_blow_up": (
            f"{policy.KL}; {policy.KL_TARGET:g} times",
            f"{policy.KL_PROBLEM}; {policy.KL_TARGET_PROBLEM:g}",
        ),
        "parts_drift": (str(policy.DRIFT), str(policy.DRIFT_PROBLEM)),
        "length_correlation": (str(rollouts.LENGTH_R), "lengths follow"),
        "repetition": tuple(
            f"{share(loop)}; {share(same)}"
            for loop, same in (
                (rollouts.LOOPING, rollouts.IDENTICAL),
                (rollouts.LOOPING_PROBLEM, rollouts.IDENTICAL_PROBLEM),
            )
        ),
        "sampler_mismatch": (str(rollouts.MISMATCH), str(rollouts.MISMATCH_PROBLEM)),
        "method_gate": (f"none; {share(demonstrations.ALWAYS)}", "`passing`"),
        "prefix_not_outgrown": (str(demonstrations.PREFIX_GAP), str(demonstrations.PREFIX_GAP_PROBLEM)),
    }
    documented = rows_under(RUNS, "alarms.jsonl")
    for kind, (warning, problem) in limits.items():
        _, _, warned, bad = documented[kind]
        assert warning in warned, kind
        assert problem in bad, kind
    assert f"over {demonstrations.GATE_WINDOW} generations" in documented["method_gate"][1]
    seen = documented["prefix_not_outgrown"][1]
    assert f"by {demonstrations.OUTGROWN}, at {share(demonstrations.SHORTENED)}" in seen


def test_what_the_alarms_look_at_is_documented(run):
    written = next(line["sampled"] for line in lines(run, "steps.jsonl") if line.get("sampled"))
    assert set(rows_under(RUNS, "sampled")) == set(written)


def test_what_is_known_of_an_engine_is_documented():
    logged = ["sampling_logp_difference/mean", "sampling_logp_difference/max"]
    logged += [f"importance_sampling_ratio/{name}" for name in ("min", "mean", "max")]
    probed = ProbeResult(tokens=1, mean_abs=0.0, max_abs=0.0)
    written = sampling_gap({f"sampling/{name}": 0.0 for name in logged}, probed, stale_steps=0)
    assert set(rows_under(RUNS, "sampling")) == set(written)


def test_what_a_method_records_is_documented_and_no_other():
    from posttrain.methods import METHODS
    from posttrain.methods.base import Arranged, Group
    from posttrain.training.method_records import columns_of, demonstration_row, facts_of

    group, decode = Group((0.0, 1.0), (0.0, 0.0), 1.0, level=1), lambda ids, skip_special_tokens: "x" * len(ids)
    arranged = [Arranged(group.advantages)]
    beside = {"name", "window", "demonstration_loss", "demonstration_nll", "sampled_again"}
    beside |= {"waiting", "entered", "used", *(name for method in METHODS.values() for name in method.measures)}
    assert set(rows_under(RUNS, "method")) == {*facts_of([group], arranged, [[0, 1]], [2]), *beside}
    (row,) = columns_of([group], arranged, [(0, 0)], [[1, 2]], [1], [0.0], decode)
    more = set(rows_under(RUNS, "Completions beside a method"))
    assert more == set(row) - {"advantage"}
    assert set(demonstration_row([1, 2], decode, Arranged((), 1.0), {})) - more <= set(rows_under(RUNS, "Completions"))


def test_what_a_curriculum_records_is_documented_and_no_other():
    columns = {"source": ["a", "b"] * 2, "level": [1, 2] * 2, "skills": ["x", "y"] * 2}
    needy: dict[str, Curriculum] = {"dmt": DMT(special=("a",)), "mixed_sources": MixedSources()}
    needy |= {"skill_it": SkillIt(held_out=1), "aioli": Aioli(held_out=1)}
    needy |= {"exp3": EXP3(held_out=1), "ucb1": UCB1(held_out=1)}
    found: set[str] = set()
    for name, kind in CURRICULA.items():
        curriculum = needy.get(name) or kind()
        some = Sampler(curriculum, curriculum.table(columns, list(columns), [0.5, 1.0] * 2, [[0.1, 0.2, 0.3]] * 4))
        window = some.window(some.start(0), [Outcome(0, (1.0, 0.0))])
        found |= {"name", "windows", "measured", *window, *summed_up([window])}
    assert set(rows_under(RUNS, "curriculum")) == found
    assert set(rows_under(DOCS / "curricula.md", "Curricula")) == set(CURRICULA)


@pytest.mark.parametrize(
    ("page", "begins", "ends"),
    [
        ("idea", "## What was measured", None),
        ("rewards", "Of very cheap rewards", "one pays for"),
        ("gpus", "Under full fine-tuning the KL needs", "Under LoRA it is"),
    ],
)
def test_measured_numbers_are_those_of_the_benchmarks(page, begins, ends):
    text = (DOCS / f"{page}.md").read_text()
    said = text[text.index(begins) : text.index(ends, text.index(begins)) if ends else None]
    numbers = re.findall(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?(?!\w)", re.sub(r"seeds? [\d to]+|pass@1|95 %", "", said))
    measured = (REPOSITORY / "benchmarks" / "README.md").read_text()
    assert len(numbers) >= 2
    for number in numbers:
        assert re.search(rf"(?<![\d.]){re.escape(number)}(?!\d)", measured), f"{page}: {number} is in no benchmark"


def test_every_key_of_a_study_is_documented_and_no_other():
    from posttrain.study.file import StudyFile, TuneSection

    page = tables(DOCS / "studies.md")["STUDY.yaml"]
    named = [code_in(cells[0])[0] for cells in page]
    defaults = {
        **{key: field.get_default() for key, field in StudyFile.model_fields.items()},
        **{key: field.get_default(call_default_factory=True) for key, field in TuneSection.model_fields.items()},
    }
    assert named == [*StudyFile.model_fields, *TuneSection.model_fields]
    for cells in page:
        if written := code_in(cells[1]):
            assert YAML(typ="safe").load(written[0]) == defaults[code_in(cells[0])[0]], cells
