"""The numbers of a plan as lines of text."""

from __future__ import annotations

from collections.abc import Iterator

from posttrain.inputs.looked_for import in_words as leaks_in_words
from posttrain.planning.amounts import Range
from posttrain.planning.lengths import room_for_prompts, shares_over
from posttrain.planning.methods import method_in_words
from posttrain.planning.odds import least_rate
from posttrain.planning.padded import stages_in_words
from posttrain.planning.plan import Plan
from posttrain.planning.seconds import ACCURACY, Phase
from posttrain.recipe.section import TRIES
from posttrain.recipe.stage_sections import HybridSection, WarmupSection
from posttrain.storage.files import size_in_words

NAMES = {
    "warmup": "a warm-up step", "sft": "an SFT step", "grpo": "a GRPO step", "both": "a step of both losses",
    "sampling": "sampling rollouts", "evaluation": "an evaluation",
}  # fmt: skip
WEIGHED = {"dft": "p", "phi": "p * (1 - p)", "trust": "min(1, p / 0.1)", "clipped": "p / p_old, above 1.28 nothing"}
"""Kinds of `sft_weight` other than the plain likelihood."""
OF_GROWTH = {"pearson": "2 u", "hellinger": "1 / (2 sqrt(u))", "js": "1 / (1 + u)"}
"""Those by how much a demonstration's mean token probability has grown since the stage began."""
Passes = tuple[float, float, float]


def planned_for_in_words(plan: Plan) -> Iterator[str]:
    """How many processes, and how to plan for others."""
    machine, on_cpu = plan.machine, plan.machine.device == "cpu"
    count, what = machine.processes, "process" if machine.processes == 1 else "processes"
    said = f"planned for {count} {what}" + (" on the CPU" if on_cpu else ", a GPU each" if count > 1 else " on a GPU")
    if count > 1:
        yield f"{said} ({machine.config})"
    else:
        yield f"{said}; {'--cpu --processes N' if on_cpu else '--gpus N'} plans for N"


def amounts_in_words(plan: Plan) -> Iterator[str]:
    """The batch arithmetic of the run."""
    much, batch, recipe, counts = plan.amounts, plan.batch, plan.recipe, plan.counts
    rows = [f"{_count(counts[key])} {name}" for key, name in
            (("train", "prompts"), ("demonstrations", "demonstrations"), ("eval", "held-out rows"))]  # fmt: skip
    yield ", ".join(rows) + ("" if plan.counted else " (as the recipe asks for; not counted)")
    yield from (line for note in plan.notes for line in note.splitlines())
    processes = f" over {batch.num_processes} processes" if batch.num_processes > 1 else ""
    if much.warmup_steps:
        passes = "" if much.warmup_passes is None else f", {much.warmup_passes:.3g} passes over them"
        yield (
            f"warm-up: {much.warmup_steps:,} SFT steps of {batch.warmup_rows_per_step} demonstrations{processes}: "
            f"{much.warmup_demonstrations:,} rows{passes}{_tokens(plan, much.warmup_demonstrations)}"
            + _weighted(recipe.warmup)
        )
    if much.hybrid_steps:
        yield from _hybrid(plan, processes)
    if much.hybrid_steps and recipe.hybrid.method:
        yield method_in_words(recipe, plan.paired, plan.texts.completions if plan.texts else None)
    for of, why in stages_in_words(plan.model.padded) if plan.model else ():
        yield f"rows of the {of} are padded, not packed: {why}"
    yield (
        f"evaluation: {much.evaluations} times, {much.evaluation_completions:,} completions each"
        + (f" (1 greedy and {recipe.evaluate.samples} sampled a row)" if max(recipe.evaluate.k) > 1 else " (greedy)")
    )  # fmt: skip
    if much.curriculum_completions:
        to = "order" if recipe.hybrid.curriculum and recipe.hybrid.curriculum.name == "easy_to_hard" else "choose"
        yield f"curriculum: {much.curriculum_completions:,} completions sampled first, to {to} the prompts"
    if much.curriculum_passes:
        lengths = plan.texts.prompts if plan.texts else None
        about = f", about {round(lengths.mean * much.curriculum_passes):,} tokens" if lengths else ""
        yield (
            f"curriculum: {much.curriculum_passes:,} prompts pass through the model once first{about}, to order them "
            "by the angles of their hidden states"
        )
    yield from plan.curriculum
    yield from plan.routes
    if said := leaks_in_words(plan.leaks):
        yield said


def _hybrid(plan: Plan, processes: str) -> Iterator[str]:
    much, recipe = plan.amounts, plan.recipe
    controller = recipe.hybrid.controller
    if much.adaptive and controller.name == "switch":
        mix = "SFT until its loss is flat, then GRPO, so that only bounds are known"
    elif much.adaptive and not much.grpo_steps.known:
        mix = (
            f"p begins at {much.p_at_start:.3g}"
            + (f" (1 / (1 + gamma), gamma {getattr(controller, 'gamma', 1):g})" if controller.name == "sasr" else "")
            + " and follows what training shows, so that only bounds are known"
        )
    elif much.adaptive:
        mix = f"both losses in every step, the SFT share begins at {much.p_at_start:.3g}"
    else:
        mix = "a fixed schedule, so that the numbers are known"
    yield f"hybrid: {much.hybrid_steps:,} steps under {controller.name}: {mix}"
    stays = controller.name != "switch"  # whose mix does not go on as it begins
    if much.sft_steps.most:
        yield (
            f"  SFT steps: {_range(much.sft_steps, stays)}, of {much.demonstrations_per_step} demonstrations{processes}"
            + _passes(much.demonstration_passes, much.sft_steps, "the demonstrations")
            + _weighted(recipe.hybrid)
        )
    if much.grpo_steps.most:
        grpo = recipe.hybrid.grpo
        yield (
            f"  GRPO steps: {_range(much.grpo_steps, stays)}, of {much.prompts_per_step:.3g} new prompts and "
            f"{much.completions_per_step} completions ({grpo.num_generations} a prompt){processes}"
            + _passes(much.prompt_passes, much.grpo_steps, "the prompts")
        )
        if (least := least_rate(grpo.num_generations)) is not None and least < 0.5:
            yield (
                f"  groups of {grpo.num_generations}: more than half have something to learn from where the policy "
                f"solves {least:.1%} to {1 - least:.1%} of a prompt's tries"
            )
        if (chosen := recipe.hybrid.tokens) is not None:
            yield (
                f"  tokens: GRPO trains the {chosen.top_entropy:.0%} of each completion with the highest entropies"
                + (", and a band keeps these together, on completions without an advantage, too" if chosen.band else "")
            )
        if (told := recipe.hybrid.length_budget) is not None:
            least = max(told.least, int(told.start * told.rate))
            yield f"  length_budget: a completion has {told.start} tokens at the start, about {least} at the end"
        batches = recipe.hybrid.refill.max_batches if recipe.hybrid.refill else 1
        if batches > 1:
            yield (
                "  refill: groups without a difference give way to further prompts, in all up to "
                f"{batches} times those of a window; these count in the tokens below, not in passes and time"
            )
        completions = round(much.grpo_steps.most * much.sampled_per_step) * batches
        yield (
            f"  sampled: at most {completions:,} completions of at most "
            f"{grpo.max_completion_length} tokens: {much.sampled_tokens:,} tokens"
        )
        if recipe.rollout.uses_vllm():
            ahead = "; a window ahead of training" if recipe.rollout.ahead else ""
            yield f"  by vLLM: a group's prompt is computed once (prefix caching), no token by speculation{ahead}"


def memory_in_words(plan: Plan) -> Iterator[str]:
    """Bytes by part at the worst moment, and whether they are there."""
    memory, model = plan.memory, plan.model
    if model:
        four_bit = f", {model.four_bit:,} of them in 4 bits" if model.four_bit else ""
        trains = f"{model.trained:,} of an adapter train" if model.has_adapter else "all train"
        yield f"{model.parameters:,} parameters ({model.kind}){four_bit}, {trains}"
    if memory is None:
        yield "not known: see what is missing above"
        return
    for moment, parts in sorted(memory.moments.items(), key=lambda each: -sum(each[1].values())):
        listed = ", ".join(f"{name} {size_in_words(int(size))}" for name, size in parts.items() if size)
        yield f"{NAMES[moment]}: {size_in_words(int(sum(parts.values())))}: {listed}"
    estimate = "an upper estimate" if plan.machine.device == "cuda" else "estimates"
    yield f"counted: {', '.join(memory.exact)}; the rest are {estimate}, for the longest rows"
    if plan.machine.device == "cpu":
        yield "Python and its libraries take about 1 GiB a process beside that, workers of rewards some more"
    if memory.fits is not None:
        yield f"{'fits' if memory.fits else 'does NOT fit'} {memory.of} ({size_in_words(memory.available or 0)})"
    elif plan.machine.device == "cuda":
        yield "the memory of the GPU here is not known" if plan.machine.visible else "no GPU is visible here"
    if plan.machine.device == "cuda":
        beside = f", of which vLLM takes {memory.engine_share:.0%}" if memory.engine_share else ""
        size = f"one with {memory.smallest_gpu} GB" if memory.smallest_gpu else "more than any single GPU has"
        yield f"the GPU it needs: {size}{beside}"


def time_in_words(plan: Plan) -> Iterator[str]:
    """Seconds of each kind of step, and of the run."""
    time = plan.time
    for name, phase in time.phases.items():
        yield f"{NAMES[name]}: {_phase(phase)}"
    yield f"the whole run: {_whole(plan)}"
    if plan.recipe.hybrid.method and plan.recipe.hybrid.steps:
        group = plan.recipe.hybrid.grpo.num_generations
        yield f"a step of the method is taken as one of GRPO; a demonstration is at most a row beside {group} rollouts"
    if plan.past and any(phase.source == "recorded" for phase in time.phases.values()):
        yield f"recorded: the mean of the steps in {plan.past.path}"
    if time.machine:
        yield f"predicted by a cost model measured on {time.machine}: {ACCURACY}, elsewhere in proportion at best"
    grpo = time.phases.get("grpo") or time.phases.get("both")
    if grpo and grpo.source == "model" and plan.machine.device == "cpu":
        yield (
            "predicted sampling is a random policy's, whose completions have little in common; of three trained ones "
            "each token took a third to two thirds as long"
        )
    if any(phase.source == "unknown" for phase in time.phases.values()):
        if plan.model is None:
            return
        gpu = "this GPU is" if plan.machine.visible else "the GPU that it is for is"
        what = "sampling with vLLM is" if plan.machine.device == "cpu" else gpu
        yield (
            f"{what} not in the cost model: measure it with `python benchmarks/scaling.py --json FILE` and give "
            "--measured FILE, or let some steps run: a run directory's own steps are used"
        )


def _whole(plan: Plan) -> str:
    """The run's seconds, the range first: where the controller follows what training shows, no middle is likely."""
    time = plan.time
    if time.begun is None:
        return "not known"
    less = ", without loading, saving and scoring"
    if time.least is None or time.most is None or time.most <= time.least:
        return f"about {_duration(time.begun)}{less}"
    bounds = f"{_duration(time.least)} to {_duration(time.most)}"
    if time.half is None:
        return f"{bounds}, by how long completions become{less}"
    return (
        f"{bounds}, by how many of the hybrid steps are SFT and how long completions become; about "
        f"{_duration(time.half)} if half of the steps are SFT{less}"
    )


def lengths_in_words(plan: Plan) -> Iterator[str]:
    """Tokens of the rows, and what the limits cut off."""
    texts = plan.texts
    if texts is None:
        yield "not known: see what is missing above"
        return
    chat = "rows go through the model's chat template"
    yield chat if texts.chat else "plain text: the tokenizer has no chat template"
    bound = room_for_prompts(plan.recipe, plan.model.positions if plan.model else None)[1]
    limits = {
        "prompts": f"left of {bound} beside a completion",
        "demonstrations": "warmup.max_length, prompt included",
        "completions": "hybrid.grpo.max_completion_length, of the demonstrations' completions",
    }
    for name, lengths in shares_over(texts).items():
        some = "" if lengths.rows == lengths.of else f" (of {lengths.rows:,} of {lengths.of:,} rows)"
        over = "" if lengths.limit is None else f"; {lengths.over:.1%} over {lengths.limit} ({limits[name]})"
        yield f"{name}: {lengths.mean:.4g} tokens on average, {lengths.longest} at most{some}{over}"
    if texts.dropped:
        yield f"{texts.dropped:.1%} of the demonstrations lose their whole completion and are left out"


def _tokens(plan: Plan, rows: int) -> str:
    return f", about {round(rows * plan.texts.kept):,} tokens" if plan.texts and plan.texts.kept else ""


def _weighted(stage: WarmupSection | HybridSection) -> str:
    name = stage.sft_weight
    if isinstance(stage, WarmupSection) and stage.muscle:
        return (
            f"; each token's KL to {stage.muscle.old} where the policy's own next token is another, to the policy as "
            "it began where it is the same (muscle): two forward passes more over every row"
        )
    if name == "nll":
        return ""
    if name == "dco":
        tries = stage.sft_tries or TRIES
        return (
            f"; for pass@{tries}: a demonstration of probability p weighs {tries} p (1 - p)^{tries - 1} / "
            f"(1 - (1 - p)^{tries}) ({name}), next to 1, as by nll, where p is far below 1 / {tries}: behind all but "
            "short completions"
        )
    if name == "unselected":
        return "; the tokens of a demonstration with the highest entropies count nothing (unselected)"
    if name in OF_GROWTH:
        return (
            f"; a demonstration weighs {OF_GROWTH[name]}, u how much its tokens' mean probability has grown since the "
            f"stage began ({name}): one forward pass more over each"
        )
    return f"; a token of probability p weighs {WEIGHED[name]} ({name})"


def _range(steps: Range, stays: bool) -> str:
    return steps.in_words() + ("" if steps.known or not stays else f" ({steps.begun:,.0f} if p stayed)")


def _passes(passes: Passes | None, steps: Range, of: str) -> str:
    if passes is None:
        return ""
    if steps.known:
        return f": {passes[1]:.3g} passes over {of}"
    return f": {passes[0]:.3g} to {passes[1]:.3g} passes over {of}"


def _count(rows: int | None) -> str:
    return "an unknown number of" if rows is None else f"{rows:,}"


def _phase(phase: Phase) -> str:
    if phase.seconds is None or phase.most is None:
        return "not known"
    if phase.source == "recorded":
        return f"{phase.seconds:.3g} s (recorded, {phase.counted} times)"
    more = f", {phase.most:.3g} s with completions at their limit" if phase.most > 1.05 * phase.seconds else ""
    return f"{phase.seconds:.3g} s (predicted){more}"


def _duration(seconds: float) -> str:
    """Such as 40 s, 12 min or 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
