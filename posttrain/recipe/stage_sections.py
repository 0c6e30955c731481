"""The sections of a recipe that say how to train: the warm-up and the hybrid stage. Importing this loads no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, Union

from pydantic import Field, field_validator, model_validator

from posttrain.controllers import CONTROLLERS, SASR, Controller
from posttrain.curricula import CURRICULA, Curriculum, EasyToHard
from posttrain.errors import ConfigError
from posttrain.methods import METHODS, Method
from posttrain.recipe.library_fields import DECIDED_ELSEWHERE, check_args
from posttrain.recipe.optimizers import TWO_POINTS, name_of
from posttrain.recipe.ratios import check_ratios, ema_ratios
from posttrain.recipe.schedules import KWARGS, check_schedule
from posttrain.recipe.section import Count, NotNegative, Positive, Section, SFTWeight, Share, Size

if TYPE_CHECKING:
    AnyController = Controller
else:
    AnyController = Annotated[Union[tuple(CONTROLLERS.values())], Field(discriminator="name")]  # noqa: UP007
if TYPE_CHECKING:
    AnyMethod = Method
else:
    AnyMethod = Annotated[Union[tuple(METHODS.values())], Field(discriminator="name")]  # noqa: UP007
if TYPE_CHECKING:
    AnyCurriculum = Curriculum
else:
    AnyCurriculum = Annotated[Union[tuple(CURRICULA.values())], Field(discriminator="name")]  # noqa: UP007
from posttrain.recipe.sections import Scheduler


class StageSection(Section):
    """What both stages say about their optimizer; names and meaning as in `transformers.TrainingArguments`.

    `save_steps` null saves at the end of the stage only. `max_skipped_steps` is how many steps in a row may be skipped
    for a gradient that is not finite before the run stops. `migu` is the share of each linear layer's rows that get no
    gradient, those with the smallest outputs. `args` takes any other field of the stage's TRL config.
    """

    steps: Count = 100
    learning_rate: Positive = 2e-5
    per_device_train_batch_size: Size = 8
    gradient_accumulation_steps: Size = 1
    lr_scheduler_type: Scheduler = "linear"
    warmup_steps: Count = 0
    max_grad_norm: NotNegative = 1.0
    weight_decay: NotNegative = 0.0
    save_steps: Size | None = 100
    max_skipped_steps: Count = 5
    migu: Annotated[float, Field(gt=0, lt=1)] | None = None
    args: dict[str, Any] = {}

    @model_validator(mode="after")
    def _schedule(self) -> Self:
        if self.steps:
            check_schedule(
                self.lr_scheduler_type,
                self.args.get(KWARGS),
                learning_rate=self.learning_rate,
                steps=self.steps,
                warmup_steps=self.warmup_steps,
            )
        return self

    def common_kwargs(self) -> dict[str, Any]:
        """The arguments that both TRL configs share."""
        same = set(StageSection.model_fields) - {"steps", "save_steps", "max_skipped_steps", "migu", "args"}
        saving = {"save_strategy": "no"} if self.save_steps is None else {"save_steps": self.save_steps}
        return {"max_steps": self.steps, **self.model_dump(include=same), **saving}


class MuscleSection(Section):
    """What a new model is to stay compatible with (MUSCLE, arXiv 2407.09435).

    Args:
        old: The model before, with the same vocabulary: a hub id or a folder, an adapter's included.
        revision: Of a hub id.
    """

    old: str
    revision: str | None = None


class WarmupSection(StageSection):
    """Stage 1, SFT on the demonstrations. `steps: 0` leaves it out.

    Args:
        max_length: Tokens kept of a demonstration, prompt and completion together; in both stages.
        norm_window: Last steps whose SFT gradient norms are averaged into G_warmup; null takes 10, or all there are.
        packed: As `hybrid.packed`: demonstrations in one sequence without padding, where the model allows it.
        sft_weight, sft_tries: As those of `hybrid`, without `clipped`.
        curriculum: Which demonstration is next, of those that need no rollouts; null shuffles them.
        muscle: Train towards the old model where the policy's own next token is not the demonstration's, and towards
            the policy as it began where it is; null trains on the demonstrations' likelihood.
    """

    max_length: Size | None = 1024
    norm_window: Size | None = None
    packed: bool = True
    sft_weight: SFTWeight = "nll"
    sft_tries: Size | None = None
    curriculum: AnyCurriculum | None = None
    muscle: MuscleSection | None = None

    @field_validator("args")
    @classmethod
    def _known(cls, args: dict[str, Any]) -> dict[str, Any]:
        return check_args(args, "trl.SFTConfig", set(cls.model_fields), DECIDED_ELSEWHERE)

    @model_validator(mode="after")
    def _tries_of_dco(self) -> WarmupSection:
        return _tries_of_dco(self)

    @model_validator(mode="after")
    def _schedule_of_average(self) -> WarmupSection:
        name = name_of(self.args)
        if name.startswith(TWO_POINTS) and self.steps and not self.lr_scheduler_type.startswith("constant"):
            raise ConfigError(
                f"{name}, and lr_scheduler_type: {self.lr_scheduler_type}",
                expected="a constant rate: its average of the weights stands for the decay",
                fix="set lr_scheduler_type: constant, or constant_with_warmup",
            )
        return self

    def window(self) -> int:
        """The number of last steps that are averaged into G_warmup."""
        return min(self.norm_window or 10, self.steps)

    def trl_kwargs(self) -> dict[str, Any]:
        """The arguments of `trl.SFTConfig` that the recipe decides, `args` included."""
        return {**self.common_kwargs(), "max_length": self.max_length, **self.args}


class GRPOSection(Section):
    """The GRPO half of a step; names, meaning and defaults as in `trl.GRPOConfig`."""

    num_generations: Annotated[int, Field(ge=2)] = 8
    max_completion_length: Size = 512
    temperature: Positive = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Count = 0
    min_p: Share | None = None
    repetition_penalty: Positive = 1.0
    beta: NotNegative = 0.0
    epsilon: NotNegative = 0.2
    epsilon_high: NotNegative | None = None
    delta: Positive | None = None
    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"] = "dapo"
    scale_rewards: Literal["group", "batch", "none"] = "group"
    importance_sampling_level: Literal["token", "sequence"] = "token"
    num_iterations: Size = 1
    steps_per_generation: Size | None = None
    mask_truncated_completions: bool = False
    top_entropy_quantile: Share = 1.0
    entropy_coef: float = 0.0

    @field_validator("scale_rewards", mode="before")
    @classmethod
    def _as_trl(cls, value: Any) -> Any:
        return {True: "group", False: "none"}.get(value, value) if isinstance(value, bool) else value


class KLSection(Section):
    """The KL of the policy to the warm-up snapshot.

    Args:
        sample: Share of the rollouts it is measured on; 0 never measures it.
        offload: Keep the snapshot in host memory and bring it to the device for each measurement only.
    """

    sample: Share = 0.25
    offload: bool = False


class BudgetSection(Section):
    """What the hybrid stage may spend, one of these; the stage ends with the step that spends the last of it.

    Schedules are written for `hybrid.steps`, and go by the share of the budget that is spent. Only `steps` and the
    budget itself end the stage, so that it may have fewer or more steps than `hybrid.steps`.

    Args:
        seconds: Of training steps, without evaluations and checkpoints; on CPUs CPU time, reward workers included.
        tokens: Sampled and trained on, together.
        flops: Floating-point operations by the cost model.
        steps: Optimizer steps.
    """

    seconds: Positive | None = None
    tokens: Size | None = None
    flops: Positive | None = None
    steps: Size | None = None

    @model_validator(mode="after")
    def _one(self) -> BudgetSection:
        given = [f"{name}: {value:g}" for name, value in self.given().items()]
        if len(given) != 1:
            expected = "one of seconds, tokens, flops and steps"
            raise ConfigError(" and ".join(given) or "nothing", expected=expected, fix="keep one")
        return self

    def given(self) -> dict[str, float]:
        """The kind that is set, and its amount."""
        return self.model_dump(exclude_none=True)


class BandSection(Section):
    """Entropies of the selected tokens are kept between two of their quantiles (SPINE, arXiv 2511.17938).

    Args:
        coef: Of the loss; the paper's is not known here.
        low, high: The quantiles, of each completion's selected tokens.
    """

    coef: Positive
    low: Share = 0.1
    high: Share = 0.5

    @model_validator(mode="after")
    def _in_order(self) -> BandSection:
        if self.low > self.high:
            raise ConfigError(f"low: {self.low:g}, and high: {self.high:g}", expected="low no higher than high")
        return self


class TokensSection(Section):
    """GRPO trains some tokens of each completion: those with the highest entropies.

    Args:
        top_entropy: Their share.
        per: Of what it is the share: each response has its own.
        kl_too: The penalty of `grpo.beta` acts on them only, too.
        band: What keeps their entropies together; null is nothing.
    """

    top_entropy: Annotated[float, Field(gt=0, lt=1)]
    per: Literal["response"] = "response"
    kl_too: bool = True
    band: BandSection | None = None


class LengthBudgetSection(Section):
    """Tokens that a completion may take: fewer as the stage goes on, told in the prompt (RMT, arXiv 2509.24375).

    Args:
        start: At the stage's beginning.
        rate: What is left of `start` at its end, as a share; in between it decays exponentially.
        least: No budget is lower.
        prompt: The line that tells it at the prompt's end, with `{budget}` in it; null tells nothing.
    """

    start: Size = 800
    rate: Annotated[float, Field(gt=0, le=1)] = 0.2
    least: Size = 1
    prompt: str | None = "Use at most {budget} tokens."

    @model_validator(mode="after")
    def _a_budget(self) -> LengthBudgetSection:
        if self.least > self.start:
            raise ConfigError(f"least: {self.least}, and start: {self.start}", expected="least no higher than start")
        if self.prompt is not None and "{budget}" not in self.prompt:
            expected = "{budget} in it, where the number stands"
            raise ConfigError(f"prompt: {self.prompt!r}", expected=expected, fix="null tells nothing")
        return self


class RefillSection(Section):
    """Groups whose rewards are all equal give way to groups of further prompts, before anything is trained on.

    Args:
        max_batches: Prompts that are sampled for a window at the most, the first ones included, as a multiple of those
            that it has. Groups that are dead then stay.
        ahead: Sample as many further prompts with the first ones as are likely to be needed, by the share of dead
            groups lately; false samples none that is not needed, in more rounds.
    """

    max_batches: Annotated[int, Field(ge=2)]
    ahead: bool = True


def _tries_of_dco(section: Any) -> Any:
    if section.sft_tries and section.sft_weight != "dco":
        raise ConfigError(
            f"sft_tries: {section.sft_tries}, and sft_weight: {section.sft_weight}",
            expected="sft_weight: dco, which alone counts tries",
            fix="leave sft_tries out",
        )
    return section


class AverageSection(Section):
    """The average of the stage's last checkpoints, beside its final model.

    Args:
        last: How many checkpoints, the final one among them.
        weights: `uniform`; `linear`: 1, 2, 3, ... to the latest; `ema`: an exponential moving average that begins at
            the first of them; or numbers, one a checkpoint, the latest last, with the sum 1.
        decay: Of `ema`.
    """

    last: Annotated[int, Field(ge=2)]
    weights: Literal["uniform", "linear", "ema"] | list[float] = "uniform"
    decay: Annotated[float, Field(gt=0, lt=1)] | None = None

    @model_validator(mode="after")
    def _of_as_many(self) -> AverageSection:
        if (self.weights == "ema") != (self.decay is not None):
            seen = "weights: ema without decay" if self.decay is None else f"decay: {self.decay:g} without weights: ema"
            raise ConfigError(seen, expected="both, or neither", fix="set weights: ema and decay: 0.5")
        if isinstance(self.weights, list):
            check_ratios(range(self.last), self.weights, "weights")
            fewer = next((count for count in range(1, self.last) if not sum(self.weights[-count:]) > 0), None)
            if fewer:
                raise ConfigError(
                    f"weights {self.weights}, of which the last {fewer} have the sum {sum(self.weights[-fewer:]):g}",
                    expected="a sum above 0: where the stage ends with fewer checkpoints these share it",
                    where="weights",
                    fix="give the latest a weight, or average fewer checkpoints",
                )
        return self

    def ratios(self, count: int) -> list[float]:
        """The ratio of each of so many checkpoints, the latest last; fewer than `last` share what those have."""
        if self.weights == "ema":
            return ema_ratios(count, self.decay or 0.5)
        given = {"uniform": [1.0] * count, "linear": [float(place + 1) for place in range(count)]}
        shares = self.weights[-count:] if isinstance(self.weights, list) else given[self.weights]
        return [share / sum(shares) for share in shares]


class HybridSection(StageSection):
    """Stage 2, the mix of SFT and GRPO steps under a controller. `steps: 0` leaves it out.

    Args:
        demonstration_batch_size: Demonstrations per device and micro-batch; null takes as many a step as the warm-up.
        save_total_limit: Checkpoints kept; null keeps all.
        time_limit_s: Wall-clock budget of the stage in seconds, after which it ends as if its steps were done.
        budget: What the stage may spend in place of a number of steps; null ends it after `steps`.
        method: What GRPO steps make of a prompt's own demonstration; the controller is then `grpo_only`, if none is
            named.
        curriculum: Which prompt is sampled next; one without a name is `easy_to_hard`; null shuffles them.
        average: The average of the last checkpoints, evaluated beside the final model; null makes none.
        demonstrations_after: What a demonstration's completion stands behind where the chat template gives the sampler
            more than it puts before a completion (an opened `<think>`): `template` refuses such a model,
            `generation_prompt` puts it behind what the sampler is given. In both stages.
        packed: Score rows in one sequence without padding, each group's prompt once, where the model allows it; the
            gradients are those of TRL's padded rows, which false goes back to.
        drop_zero_advantage: Leave out completions whose advantage is 0 where they add nothing to the loss; the
            gradients are those with them.
        tokens: Which tokens of a completion GRPO trains; null is all of them.
        length_budget: Tokens that a completion may take, told in its prompt and paid by the reward of that name; null
            is none.
        refill: Replace groups without a spread in their rewards by groups of further prompts; null keeps them.
        sft_weight: What a demonstration's token counts, by its probability p: `nll` 1, `dft` p, `phi` p(1 - p), `trust`
            min(1, p / 0.1), `clipped` p / p_old up to 1.28 and nothing above. Or by the whole demonstration's: `dco`
            for pass@N, `pearson`, `hellinger` and `js` by how much it has grown since the stage began. Or `unselected`,
            1 on what `tokens` would not select of it and 0 on the rest.
        sft_window: Of `clipped`: the steps with SFT that one p_old serves; null is 8.
        sft_tries: Of `dco`: N of pass@N; null is 8.
    """

    steps: Count = 200
    learning_rate: Positive = 1e-6
    demonstration_batch_size: Size | None = None
    demonstrations_after: Literal["template", "generation_prompt"] = "template"
    save_total_limit: Size | None = 2
    time_limit_s: Positive | None = None
    budget: BudgetSection | None = None
    controller: AnyController = SASR()
    method: AnyMethod | None = None
    grpo: GRPOSection = GRPOSection()
    kl: KLSection = KLSection()
    curriculum: AnyCurriculum | None = None
    average: AverageSection | None = None
    packed: bool = True
    drop_zero_advantage: bool = True
    tokens: TokensSection | None = None
    length_budget: LengthBudgetSection | None = None
    refill: RefillSection | None = None
    sft_weight: SFTWeight = "nll"
    sft_window: Size | None = None
    sft_tries: Size | None = None

    @field_validator("args")
    @classmethod
    def _known(cls, args: dict[str, Any]) -> dict[str, Any]:
        own = {*cls.model_fields, *GRPOSection.model_fields}
        return check_args(args, "trl.GRPOConfig", own, DECIDED_ELSEWHERE)

    @field_validator("curriculum", mode="before")
    @classmethod
    def _easy_to_hard_by_default(cls, value: Any) -> Any:
        """What a curriculum was before there were several."""
        return {"name": EasyToHard.name, **value} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _one_order(self) -> HybridSection:
        if self.curriculum and self.args.get("shuffle_dataset"):
            raise ConfigError("a curriculum, and args.shuffle_dataset: true", expected="one order of the prompts")
        return self

    @model_validator(mode="after")
    def _enough_checkpoints(self) -> HybridSection:
        if self.average is None:
            return self
        last, kept, every = self.average.last, self.save_total_limit, self.save_steps
        if every is None or not self.steps:
            seen = "save_steps: null" if self.steps else "steps: 0"
            raise ConfigError(f"average, and {seen}", expected="checkpoints to average", fix="leave average out")
        if kept is not None and kept < last:
            raise ConfigError(
                f"average: {{last: {last}}}, and save_total_limit: {kept}", expected="as many checkpoints kept",
                fix=f"set save_total_limit: {last}",
            )  # fmt: skip
        if self.budget is None and -(-self.steps // every) < last:
            raise ConfigError(
                f"average: {{last: {last}}}, and {-(-self.steps // every)} checkpoints in {self.steps} steps, one "
                f"every {every} and at the end",
                expected="as many checkpoints written",
                fix=f"set save_steps: {max(self.steps // last, 1)}",
            )
        return self

    @model_validator(mode="after")
    def _one_end(self) -> HybridSection:
        if self.budget and self.time_limit_s is not None:
            raise ConfigError(
                f"time_limit_s: {self.time_limit_s:g}, and a budget",
                expected="one end of the stage",
                fix="leave time_limit_s out: a budget of seconds does as much, and schedules know of it",
            )
        if self.budget and not self.steps:
            raise ConfigError(
                "steps: 0, and a budget for the stage",
                expected="steps above 0: the length that its schedules are written for",
                fix="leave the budget out",
            )
        return self

    @model_validator(mode="after")
    def _window_of_clipped(self) -> HybridSection:
        if self.sft_window and self.sft_weight != "clipped":
            raise ConfigError(
                f"sft_window: {self.sft_window}, and sft_weight: {self.sft_weight}",
                expected="sft_weight: clipped, which alone compares with an earlier policy",
                fix="leave sft_window out",
            )
        return self

    @model_validator(mode="after")
    def _tries_of_dco(self) -> HybridSection:
        return _tries_of_dco(self)

    @property
    def template_kwargs(self) -> dict[str, Any]:
        """The arguments of the chat template."""
        return self.args.get("chat_template_kwargs") or {}

    def trl_kwargs(self) -> dict[str, Any]:
        """The arguments of `trl.GRPOConfig` that the recipe decides, `args` included."""
        limit = {"save_total_limit": self.save_total_limit}
        order = {} if self.curriculum is None else {"shuffle_dataset": False}
        return {**self.common_kwargs(), **limit, **order, **self.grpo.model_dump(), **self.args}
