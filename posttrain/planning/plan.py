"""What a recipe would do, before it does: `make_plan` gathers what is needed and what can be had, and counts.

Nothing here loads weights. What cannot be had (a model of the hub without a network) is named in `Plan.missing`, and
the rest is told without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from posttrain.errors import PosttrainError
from posttrain.inputs.applying import idle_rewards, try_rewards, uses_rewards
from posttrain.inputs.compatible import check_old
from posttrain.inputs.four_bit import check_unsharded
from posttrain.inputs.inputs import load_data, load_judges, load_rewards, loading
from posttrain.inputs.looked_for import in_words as leaks_in_words
from posttrain.inputs.looked_for import look_for_leaks
from posttrain.inputs.misfits import misfits
from posttrain.inputs.rendering import UnlikePrompts
from posttrain.planning.amounts import Amounts, amounts
from posttrain.planning.curriculum import curriculum_in_words
from posttrain.planning.lengths import Texts, texts_of
from posttrain.planning.machine import Machine
from posttrain.planning.memory import Memory, memory_of
from posttrain.planning.methods import Paired, method_findings
from posttrain.planning.mistakes import Finding, Level, Seen, likely_mistakes
from posttrain.planning.model_facts import (
    ModelFacts,
    config_of,
    describe_model,
    is_absent,
    is_hub_id,
    name_is_absent,
    old_bytes,
    tokenizer_of,
)
from posttrain.planning.padded import stages_in_words
from posttrain.planning.past import Past, differences, past_of, tells_of
from posttrain.planning.rates import Curve, curves
from posttrain.planning.routes import routes_in_words
from posttrain.planning.seconds import Time, measured, shipped, time_of
from posttrain.planning.work import Assumed, works_of
from posttrain.recipe.arithmetic import BatchPlan, batch_plan, for_processes
from posttrain.recipe.contradictions import contradictions
from posttrain.recipe.recipe import Recipe
from posttrain.recipe.zero import check_recipe
from posttrain.rundir.facts import processes_of
from posttrain.running.remedies import Part, remedies
from posttrain.scoring.score import Reward
from posttrain.tasks import TaskData

__all__ = ["Missing", "Plan", "make_plan", "needs_hub"]


@dataclass(frozen=True)
class Missing:
    """Something that the plan had to do without.

    Attributes:
        what: `model`, `the old model`, `tokenizer` or `data`.
        why: What was seen.
        without: What cannot be told without it.
        stops: Whether a run here would stop at this.
    """

    what: str
    why: str
    without: str
    stops: bool = True


@dataclass(kw_only=True)
class Plan:
    """All that is told of a recipe. What is None could not be; `missing` and `findings` say why.

    Attributes:
        recipe: As it would run on that many processes.
        machine: Where.
        batch: The arithmetic of a step.
        amounts: That of the run.
        counts: Rows of each stream, by name: train, demonstrations, eval. None: not known.
        counted: Whether these were counted in the data, or are what the recipe asks for.
        notes: What the task says of its rows.
        model: Its sizes.
        texts: Lengths of its rows.
        memory: What a process needs.
        time: What the run takes.
        past: What the run directory shows.
        findings: Contradictions, likely mistakes, notes; the worst first.
        missing: What could not be had.
        paired: Prompts and demonstrations, of a recipe with a method.
        curriculum: What the curriculum draws by, in words, of a recipe with one that goes by columns.
        routes: Which rewards score which source's prompts, in words, where they are routed.
        leaks: Of held-out rows in what is trained on, as `looked_for.look_for_leaks` has it.
        rates: The learning rate over each stage.
    """

    recipe: Recipe
    machine: Machine
    batch: BatchPlan
    amounts: Amounts
    counts: dict[str, int | None]
    counted: bool
    notes: list[str] = field(default_factory=list)
    model: ModelFacts | None = None
    texts: Texts | None = None
    memory: Memory | None = None
    time: Time
    past: Past | None = None
    findings: list[Finding] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)
    paired: Paired | None = None
    curriculum: list[str] = field(default_factory=list)
    routes: list[str] = field(default_factory=list)
    leaks: dict[str, Any] | None = None
    rates: dict[str, Curve] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """`problem`: the run would refuse. `warning`: likely a mistake, or something is missing. Else `ok`."""
        levels = {finding.level for finding in self.findings}
        return "problem" if "problem" in levels else "warning" if "warning" in levels or self.missing else "ok"


def needs_hub(recipe: Recipe) -> bool:
    """Whether the model or the data are to come from the hub."""
    return is_hub_id(recipe) or _hub_data(recipe)


def make_plan(recipe: Recipe, machine: Machine, *, offline: bool = False, points: str | Path | None = None) -> Plan:
    """Everything that is told of a recipe.

    Args:
        recipe: The recipe.
        machine: Where it is to run.
        offline: The hub cannot be asked; what is in its cache can be had.
        points: Measured points of that machine, for the cost model.

    Raises:
        DataError: `points` holds something else.
    """
    made = _Maker(recipe, machine, offline)
    return made.plan(points)


class _Maker:
    """Gathers what can be had, and remembers what could not."""

    def __init__(self, recipe: Recipe, machine: Machine, offline: bool):
        self.machine, self.offline = machine, offline
        self.findings: list[Finding] = []
        self.missing: list[Missing] = []
        self.rewards: list[Reward] = []
        self.trained_by: list[Reward] = []
        self.folder = Path(recipe.run.dir or "runs/run")
        self.recipe = self._fitted(recipe)

    def plan(self, points: str | Path | None) -> Plan:
        recipe, machine = self.recipe, self.machine
        costs = measured(points) if points else shipped()
        self._contradictions()
        data = self._data()
        counts, counted = _counts(recipe, data)
        prompts, demonstrations, held_out = (counts[name] for name in ("train", "demonstrations", "eval"))
        paired = Paired.of(data) if data and recipe.hybrid.method and recipe.hybrid.steps else None
        prompts = paired.prompts if paired else prompts
        batch = batch_plan(recipe, machine.processes, prompts=prompts or 0, demonstrations=demonstrations or 0)
        much = amounts(recipe, batch, prompts=prompts, demonstrations=demonstrations, held_out=held_out)
        texts, model = self._model(data)
        past = self._past()
        expected = past.completion if past else texts.completions.mean if texts and texts.completions else None
        trained = model.trained if model else None
        works = [
            works_of(recipe, batch, assumed, held_out=held_out, trained=trained, padded=model.padded if model else None)
            for assumed in (
                Assumed.of(recipe, texts, expected),
                replace(Assumed.of(recipe, texts, None), longest=float(recipe.hybrid.grpo.max_completion_length)),
                Assumed.at_most(recipe, texts),
            )
        ]
        shape = model.shape if model else None
        known = costs if points or machine.device == "cpu" else None
        time = time_of(recipe, batch, much, works=(works[0], works[1]), shape=shape, costs=known, past=past)
        memory = memory_of(recipe, model, machine, works[2], costs) if model and shape else None
        self._too_large(memory)
        positions = model.positions if model else None
        on_gpu = machine.device == "cuda"
        seen = Seen(recipe, batch, much, texts, past, positions, prompts, held_out, on_gpu)
        self.findings += likely_mistakes(seen)
        leaks = self._leaks(data)
        self.findings += method_findings(recipe, paired, texts.completions if texts else None, self.trained_by)
        order = ("problem", "warning", "note")
        return Plan(
            recipe=recipe, machine=machine, batch=batch, amounts=much, counts=counts, counted=counted,
            notes=data.notes if data else [], model=model, texts=texts, memory=memory, time=time, past=past,
            findings=sorted(self.findings, key=lambda finding: order.index(finding.level)), missing=self.missing,
            paired=paired, curriculum=curriculum_in_words(recipe, data, batch.warmup_rows_per_step),
            routes=routes_in_words(self.trained_by, data), leaks=leaks, rates=curves(recipe),
        )  # fmt: skip

    def _fitted(self, recipe: Recipe) -> Recipe:
        """The recipe as the run in its directory goes on with it on this number of processes."""
        try:
            started_on = processes_of(self.folder)
            return for_processes(recipe, started_on or self.machine.processes, self.machine.processes)
        except PosttrainError as error:
            self._problem("processes", error)
            return recipe

    def _contradictions(self) -> None:
        for each in contradictions(self.recipe, self.machine.processes):
            self._problem("contradiction", each)
        try:
            sharding = {"fsdp2": "FSDP", "zero2": "DeepSpeed", "zero3": "DeepSpeed"}
            check_unsharded(self.recipe, sharding.get(self.machine.config))
        except PosttrainError as error:
            self._problem("sharded", error)
        if self.machine.config in ("zero2", "zero3"):
            try:
                check_recipe(self.recipe, int(self.machine.config[-1]))
            except PosttrainError as error:
                self._problem("zero", error)

        visible, asked = self.machine.visible, self.machine.per_node
        if self.machine.device != "cuda" or visible >= asked:
            return
        if visible:
            seen = f"{asked} GPUs, of which {visible} {'is' if visible == 1 else 'are'} visible here"
        else:
            refuses = self.recipe.run.device == "cuda"
            run = "run` here would refuse to start" if refuses else "run` here would train on the CPU"
            launched = "launch` here would refuse to start"
            would = launched if self.machine.launched else run
            which = "a GPU" if asked == 1 else f"{asked} GPUs"
            seen = f"no GPU is visible: this plan is for {which}; `posttrain {would}"
        fix = "start it where there are as many" if asked > 1 else "start it where there is one, or plan with --cpu"
        self.findings.append(Finding("warning", "gpus", "--gpus" if self.machine.launched else "", seen, fix))

    def _data(self) -> TaskData | None:
        """The rows; the rewards are loaded on them, as the run does, to know that they can be."""
        try:
            data = load_data(self.recipe)
        except PosttrainError as error:
            if self.offline and _hub_data(self.recipe):
                without = "rendered prompts, lengths and truncation; rows are counted as the recipe asks for them"
                self.missing.append(Missing("data", error.seen, without))
            else:
                self._problem("data", error)
            return None
        try:
            rewards = self.trained_by = load_rewards(self.recipe, data)
            judges = load_judges(self.recipe, data, rewards)  # often the same
            self.rewards = [*rewards, *(each for each in judges if each not in rewards)]
            if uses_rewards(self.recipe):
                for alone, idle in idle_rewards(try_rewards(self.recipe, rewards, data)):
                    self._found("problem" if alone else "warning", "rewards", idle)
        except PosttrainError as error:
            self._problem("rewards", error)
        return data

    def _leaks(self, data: TaskData | None) -> dict[str, Any] | None:
        """How much of the held-out rows stands in what is trained on."""
        if data is None:
            return None
        found = look_for_leaks(self.recipe, data)
        if found["contaminated"]:
            shown = "look at the nearest pairs by `posttrain data leaks`, and leave such rows out of one side"
            where = self.recipe.where("task")
            self.findings.append(
                Finding("warning", "leaks", where, leaks_in_words(found).removeprefix("leaks: "), shown)
            )
        return found

    def _model(self, data: TaskData | None) -> tuple[Texts | None, ModelFacts | None]:
        recipe, texts, model = self.recipe, None, None
        if recipe.model.init is not None and data is None:
            self.missing.append(Missing("model", "its tokenizer is made from the data", "memory and time"))
            return None, None
        try:
            rows = [*data.demonstrations, *data.train] if data else []
            tokenizer = tokenizer_of(recipe, rows, offline=self.offline)
            config = config_of(recipe, tokenizer, offline=self.offline)
            unfit = list(misfits(recipe, tokenizer, config, local=self.offline))
            for problem in unfit:
                self._problem("model", problem)
            model = describe_model(recipe, config, on_gpu=self.machine.device == "cuda")
            if recipe.warmup.steps and recipe.warmup.muscle:
                model = self._beside_old(model, tokenizer, config)
            if model.shape is None:
                self.missing.append(Missing("shape", model.uncounted, "memory and time", stops=False))
            self._padded(model)
            texts = self._texts(data, tokenizer, model.positions) if data else None
            if data and not unfit:
                self._same_stream(data, tokenizer)
        except PosttrainError as error:
            if is_absent(recipe, offline=self.offline):
                without = "memory, time, rendered prompts, token counts and truncation"
                self.missing.append(Missing("model", error.seen, without))
            else:
                self._problem("model", error)
        return texts, model

    def _beside_old(self, model: ModelFacts, tokenizer: Any, config: Any) -> ModelFacts:
        """The model's facts with those of the one that `warmup.muscle` names, where that is here."""
        section = self.recipe.warmup.muscle
        assert section is not None
        try:
            old = check_old(self.recipe, tokenizer, config, loading=loading, local=self.offline)
            return replace(model, old_bytes=old_bytes(self.recipe, old, on_gpu=self.machine.device == "cuda"))
        except PosttrainError as error:
            if name_is_absent(section.old, offline=self.offline):
                self.missing.append(Missing("the old model", error.seen, "its memory, and whether its tokens fit"))
            else:
                self._problem("model", error)
        return model

    def _padded(self, model: ModelFacts) -> None:
        """Where `packed: true` will come to nothing."""
        for of, why in stages_in_words(model.padded):
            if why == "packed: false":
                continue
            key = "warmup.packed" if of == "warm-up" else "hybrid.packed"
            seen = f"true, but rows of the {of} will be padded, not packed: {why}"
            advice = "right, and slower; time and memory are those of padded rows"
            self.findings.append(Finding("note", "padded", self.recipe.where(key), seen, advice))

    def _texts(self, data: TaskData, tokenizer: Any, positions: int | None) -> Texts:
        """The rows in tokens; without the demonstrations where they are of other prompts than the sampler is given."""
        try:
            return texts_of(self.recipe, data, tokenizer, positions)
        except UnlikePrompts as error:
            self._problem("chat_template", error)
            return texts_of(self.recipe, replace(data, demonstrations=[]), tokenizer, positions)

    def _same_stream(self, data: TaskData, tokenizer: Any) -> None:
        """Whether what is trained is what is sampled."""
        from posttrain.inputs.ends import ends_of
        from posttrain.inputs.same_stream import differences_of

        ends = ends_of(self.recipe, tokenizer, **({"local_files_only": True} if self.offline else {}))
        with suppress(UnlikePrompts):  # which has been told
            for each in differences_of(self.recipe, data, tokenizer, ends, self.rewards):
                self._found("problem" if each.refused else "warning", "same_stream", each.error)

    def _past(self) -> Past | None:
        """What the run directory shows of this very recipe."""
        try:
            past, other = past_of(self.folder), differences(self.folder, self.recipe)
        except PosttrainError as error:
            self.findings.append(Finding("warning", "run_directory", str(self.folder), error.seen))
            return None
        if not other:
            return past
        shown = "; ".join(other[:3]) + (f"; and {len(other) - 3} more" if len(other) > 3 else "")
        self.findings.append(
            Finding(
                "warning",
                "other_run",
                self.recipe.where("run.dir"),
                f"{self.folder} has a run of another recipe ({shown}): this one would be refused there",
                "another run.dir=..., --restart (which keeps the old run aside), or --accept-changes to go on with it",
            )
        )
        return past if tells_of(other) else None

    def _too_large(self, memory: Memory | None) -> None:
        if memory is None or memory.fits is not False:
            return
        moment: Part = memory.worst  # type: ignore[assignment]
        on_gpu = self.machine.device == "cuda"
        found = remedies(self.recipe, moment, self.machine.processes, on_gpu=on_gpu)
        self.findings.append(
            Finding(
                "warning",
                "memory",
                moment,
                f"{memory.peak / 2**30:.1f} GiB are needed at the worst moment, and {memory.of} has "
                f"{(memory.available or 0) / 2**30:.1f} GiB"
                + (f", {memory.engine_share:.0%} of it vLLM's" if memory.engine_share else ""),
                "; or ".join(each.in_words() for each in found[:3]),
            )
        )

    def _problem(self, kind: str, error: PosttrainError) -> None:
        self._found("problem", kind, error)

    def _found(self, level: Level, kind: str, error: PosttrainError) -> None:
        advice = "; ".join(filter(None, [error.expected and f"expected: {error.expected}", error.fix]))
        self.findings.append(Finding(level, kind, error.where or "", error.seen, advice))


def _hub_data(recipe: Recipe) -> bool:
    tasks: Sequence[object] = getattr(recipe.task, "tasks", [recipe.task])
    names = [getattr(task, "dataset", None) for task in tasks]
    return any(name and not Path(name).exists() for name in names)


def _counts(recipe: Recipe, data: TaskData | None) -> tuple[dict[str, int | None], bool]:
    """Rows of each stream, and whether they were counted."""
    names = ("train", "demonstrations", "eval")
    if data is not None:
        return {name: len(getattr(data, name)) for name in names}, True
    return {name: getattr(recipe.task, name, None) for name in names}, False
