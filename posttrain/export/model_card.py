"""The model card of an export: what the hub reads (YAML) and what people read (Markdown), from what the run recorded.

Nothing of this machine ends in it: secrets are masked and absolute paths are cut to their last part.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.export.decoding import decoding_of
from posttrain.export.mix_drawing import mix_drawing
from posttrain.export.origin import Origin, is_hub_id, plain_name, without_paths, without_places
from posttrain.reading.compare import difference, problems
from posttrain.reading.compare_spending import spending_in_words, spent
from posttrain.reading.judged import in_words, judge_of, telling_slices
from posttrain.recipe.adapter_serving import adapter_config, flags_for, why_merged
from posttrain.rundir import reading as run_reading
from posttrain.rundir.layout import Layout
from posttrain.scoring.loading import known_rewards
from posttrain.storage import files

if TYPE_CHECKING:
    from jinja2 import Environment

Lines = list[dict[str, Any]]

TASKS = {
    "knights_knaves": "Knights & Knaves puzzles",
    "math": "math problems",
    "json_structure": "JSON extraction by schema",
    "table_structure": "tables as text, HTML and LaTeX",
    "countdown": "Countdown puzzles",
}
STAGES = {"start": "Start", "warmup": "After the warm-up", "hybrid": "On the way",
          "averaged": "Average of checkpoints", "final": "Final"}  # fmt: skip
LONGEST_PROMPT = 800  # characters of a prompt that the card gives as an example


@dataclass(frozen=True)
class Subject:
    """Which of a run's models a card is about.

    Attributes:
        layout: The run.
        folder: Where the model is.
        what: It in words, such as "the final model".
        checkpoint: The step of the hybrid stage, of a checkpoint.
        warmup: It is the model at the end of the warm-up.
        averaged: It is the average of the last checkpoints.
    """

    layout: Layout
    folder: Path
    what: str
    checkpoint: int | None = None
    warmup: bool = False
    averaged: bool = False

    def steps(self) -> Lines:
        """The steps that it has behind it."""
        lines = run_reading.steps(self.layout)
        if self.warmup:
            return [line for line in lines if line["stage"] == "warmup"]
        last = self.checkpoint
        return [line for line in lines if last is None or line["stage"] == "warmup" or line["step"] <= last]

    def evaluations(self) -> dict[str, dict[str, Any]]:
        """The evaluations before it and of it, by stage."""
        found = run_reading.last_evals(run_reading.evals(self.layout))
        if self.warmup:
            return {stage: line for stage, line in found.items() if stage in ("start", "warmup")}
        if self.checkpoint is not None:
            early = ("start", "warmup")
            return {s: line for s, line in found.items() if s in early or line["step"] == self.checkpoint}
        found.pop("final" if self.averaged else "averaged", None)
        return {s: line for s, line in found.items() if s != "hybrid" or not ({"final", "averaged"} & found.keys())}


def write_card(folder: Path, subject: Subject, *, name: str, origin: Origin, kind: str) -> None:
    """Write README.md, and mix.svg where there was a hybrid stage, into an export.

    Args:
        folder: The export.
        subject: Which model it is.
        name: What the model is called: a hub id, or the folder's name.
        origin: What the run began with.
        kind: "whole", "adapter" or "merged".
    """
    layout, name = subject.layout, plain_name(name)
    recipe, steps = _recipe(layout), subject.steps()
    drawing = mix_drawing(steps)
    if drawing:
        files.write_text(folder / "mix.svg", drawing)
    environment = run_reading.environment(layout)
    table, judge = _results(subject), _judge(subject, recipe)
    config = adapter_config(folder) or {}
    decoding = decoding_of(subject.folder, recipe, on_gpu=bool(environment.get("gpus")))
    body = (
        _jinja()
        .get_template("model_card.md.j2")
        .render(
            name=name,
            what=subject.what,
            origin=origin,
            kind=kind,
            four_bit=(four_bit := _four_bit(recipe, decoding.dtype)),
            not_served=why_merged(config, four_bit=bool(four_bit)),
            vllm_flags=flags_for(config),
            task=_task(recipe),
            stages=_stages(recipe, steps),
            programs="grpo" in _losses(steps) and _built_in(recipe),
            graded_by=in_words(judge, lambda each: f"`{_plain(each)}`"),
            table=table,
            ks=list(dict.fromkeys(k for row in table for k in row["pass@k"])),
            slices=_slices(subject),
            mix=bool(drawing),
            mix_words=_mix_words(steps),
            data=_data(layout),
            fingerprints={_of_what(key): value[:16] for key, value in (environment.get("fingerprints") or {}).items()},
            prompt=_prompt(layout),
            decoding=decoding,
            recipe=fence(_yaml(without_places(recipe)), "yaml") if recipe else "",
            environment=_environment(environment),
            spending=spending_in_words(spent(layout, recipe, steps)),
            version=(environment.get("versions") or {}).get("posttrain") or "",
            unfinished=not (
                subject.warmup or subject.checkpoint or {"final", "averaged"} & subject.evaluations().keys()
            ),
        )
    )
    metadata = _metadata(name, recipe, origin, kind, table, _losses(steps), _metric(judge))
    text = f"---\n{metadata.strip()}\n---\n\n{body.strip()}\n"
    files.write_text(folder / "README.md", text)


@cache
def _jinja() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from posttrain.drawing import page

    # Markdown: what could be markup is within a code block, or was made plain before
    jinja = Environment(loader=PackageLoader("posttrain.export", "."), autoescape=False, undefined=StrictUndefined)
    jinja.filters.update(percent=page.percent, points=page.points)
    jinja.trim_blocks = jinja.lstrip_blocks = True
    return jinja


def fence(text: str, language: str = "") -> str:
    """A code block that nothing in the text can close."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}{language}\n{text.rstrip()}\n{ticks}"


def _recipe(layout: Layout) -> dict[str, Any]:
    return run_reading.recipe(layout) if layout.recipe_file.exists() else {}


def _yaml(recipe: dict[str, Any]) -> str:
    from huggingface_hub.repocard_data import yaml_dump

    return yaml_dump(recipe, sort_keys=False)


def _metadata(
    name: str, recipe: dict[str, Any], origin: Origin, kind: str, table: Lines, losses: list[str], metric: str
) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    tasks = [task.get("name", "") for task in _tasks(recipe)]
    datasets = sorted({task["dataset"] for task in _tasks(recipe) if is_hub_id(task.get("dataset") or "")})
    last = next((row for row in table if row["own"]), None)  # of another state the hub must not be told
    result = EvalResult(
        task_type="text-generation", dataset_type="_".join(tasks) or "unknown",
        dataset_name=f"{_task(recipe)}, {last['n']} held out", metric_type="pass@1", metric_name=metric,
        metric_value=round(last["pass@1"], 4),
    ) if last else None  # fmt: skip
    data = ModelCardData(
        license=origin.license,
        base_model=origin.hub_id,
        base_model_relation={"adapter": "adapter"}.get(kind, "finetune") if origin.hub_id else None,
        datasets=datasets or None,
        library_name="peft" if kind == "adapter" else "transformers",
        pipeline_tag="text-generation",
        tags=["posttrain", *losses, *(["lora"] if recipe.get("lora") else []), *tasks],
        model_name=name if result else None,
        eval_results=[result] if result else None,
    )
    return str(data.to_yaml())


def _tasks(recipe: dict[str, Any]) -> Lines:
    task = recipe.get("task") or {}
    return list(task["tasks"]) if task.get("tasks") else [task] if task else []


def _task(recipe: dict[str, Any]) -> str:
    names = [str(task.get("name")) for task in _tasks(recipe)]
    return " and ".join(TASKS.get(name, plain_name(name)) for name in names) or "problems"


def _stages(recipe: dict[str, Any], steps: Lines) -> str:
    """How it was trained, in a sentence."""
    done = Counter(line["stage"] for line in steps)
    parts = [f"{done['warmup']} steps of SFT on demonstrations"] if done["warmup"] else []
    if done["hybrid"]:
        controller = ((recipe.get("hybrid") or {}).get("controller") or {}).get("name") or "a controller"
        mixes = [line.get("mix") or {} for line in steps if line["stage"] == "hybrid"]
        losses = [name for name, key in (("SFT", "sft"), ("GRPO", "grpo")) if any(mix.get(key) for mix in mixes)]
        how = f", mixed step by step by `{controller}`" if len(losses) > 1 else ""
        parts.append(f"{done['hybrid']} steps of {' and '.join(losses)}{how}")
    return ", then ".join(parts) or "no step yet"


def _losses(steps: Lines) -> list[str]:
    """Which of "sft" and "grpo" the steps had."""
    mixes = [{"sft": 1} if line["stage"] == "warmup" else line.get("mix") or {} for line in steps]
    return [name for name in ("sft", "grpo") if any(mix.get(name) for mix in mixes)]


def _own_rewards(recipe: dict[str, Any]) -> Lines:
    """The rewards that the recipe names; none where it leaves them to the task."""
    return [{"name": each} if isinstance(each, str) else each for each in recipe.get("rewards") or []]


def _built_in(recipe: dict[str, Any]) -> bool:
    """Whether every reward is one of posttrain's own, which are programs; what another does is not known."""
    known = {name: point.value for name, point in known_rewards().items()}
    own = [each.get("name") or "" for each in _own_rewards(recipe)]
    if own:
        return all(known.get(name, "").startswith("posttrain.") for name in own)
    tasks = [task.get("name") for task in _tasks(recipe)]
    return bool(tasks) and all(name in TASKS for name in tasks)


def _judge(subject: Subject, recipe: dict[str, Any]) -> dict[str, Any] | None:
    """What the last of the evaluations in the table was judged by."""
    lines = list(subject.evaluations().values())
    return judge_of(lines[-1], recipe) if lines else None


def _plain(name: str) -> str:
    """A reward's name without places of this machine, as it can stand in a code span."""
    return re.sub(r"[`<>\s]+", " ", without_paths(name))


def _metric(judge: dict[str, Any] | None) -> str:
    """What the hub calls the number: what it is, and by which reward."""
    if judge is None:
        return "pass@1, greedy"
    at = f", at {judge['threshold']:g}" if judge["threshold"] < 1 else ""
    return f"pass@1, greedy, by {' and '.join(_plain(each['name']) for each in judge['rewards'])}{at}"


def _of_what(name: str) -> str:
    """What a fingerprint is of, as "data" or "reward NAME"; the name may be a path."""
    kind, space, rest = name.partition(" ")
    return f"{kind}{space}{without_paths(rest)}"


def _mix_words(steps: Lines) -> str:
    mixes = [line.get("mix") or {} for line in steps if line["stage"] == "hybrid"]
    kinds = Counter("both" if m.get("sft") and m.get("grpo") else "SFT" if m.get("sft") else "GRPO" for m in mixes)
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())


def _results(subject: Subject) -> Lines:
    """A row an evaluation, with what changed since the first, paired."""
    rows: Lines = []
    own: tuple[str, ...] = ("hybrid", "final") if subject.checkpoint is not None else ("final",)
    own = ("warmup",) if subject.warmup else ("averaged",) if subject.averaged else own
    first: dict[Any, Any] = {}
    for stage, line in subject.evaluations().items():
        found = problems(run_reading.eval_results(subject.layout, stage, ["passed"]))
        first = first or found
        change = difference(first, found) if rows else {"n": 0}
        keys = {key: line.get(key) for key in ("step", "n", "pass@1", "ci95")}
        named = {"name": STAGES[stage], "own": stage in own, "pass@k": line.get("pass@k") or {}}
        rows.append(named | keys | {"change": change})
    return rows


def _slices(subject: Subject) -> Lines:
    lines = list(subject.evaluations().values())
    by = telling_slices(lines[-1]) if lines else {}
    return [{"column": column, "values": values} for column, values in by.items()]


def _data(layout: Layout) -> Lines:
    found = json.loads(layout.data_file.read_text(encoding="utf-8")) if layout.data_file.exists() else {}
    splits = found.get("splits") or {}
    return [{"name": name, "rows": split.get("rows"), "hash": split.get("hash")} for name, split in splits.items()]


def _prompt(layout: Layout) -> dict[str, Any]:
    """A held-out prompt to try the model on, as Python source: text, or messages."""
    keys = iter(run_reading.eval_results(layout, columns=["passed"]))
    prompt = next((text for _, text in keys if len(text) <= LONGEST_PROMPT), None)
    if prompt is None:
        return {"messages": False, "source": '"..."  # a prompt as in training'}
    try:
        messages = json.loads(prompt)
    except ValueError:
        messages = None
    chat = isinstance(messages, list) and all(isinstance(each, dict) and "role" in each for each in messages)
    return {"messages": chat, "source": ascii(messages if chat else prompt)}


def _four_bit(recipe: dict[str, Any], dtype: str) -> str:
    """How the base was held in 4 bits, as Python source; nothing where it was not."""
    section = recipe.get("model") or {}
    if not isinstance(section, dict) or not section.get("load_in_4bit"):
        return ""
    kind, nested = section.get("bnb_4bit_quant_type", "nf4"), bool(section.get("use_bnb_nested_quant"))
    settings = f"load_in_4bit=True, bnb_4bit_quant_type={kind!r}, bnb_4bit_use_double_quant={nested}"
    settings += f", bnb_4bit_compute_dtype={dtype!r}"
    return f"BitsAndBytesConfig({settings})"


def _environment(environment: dict[str, Any]) -> str:
    """Versions and hardware, without what tells which machine it was."""
    versions = [f"{name} {version}" for name, version in (environment.get("versions") or {}).items() if version]
    gpus = Counter(
        str(gpu.get("name", gpu)) if isinstance(gpu, dict) else str(gpu) for gpu in environment.get("gpus") or []
    )
    hardware = ", ".join(f"{count} x {name}" for name, count in gpus.items()) or "CPU"
    commit = (environment.get("git") or {}).get("commit")
    parts = [", ".join(versions), hardware, f"{environment.get('processes', 1)} process(es)" if versions else ""]
    return "; ".join([part for part in parts if part] + ([f"commit {commit[:12]}"] if commit else []))
