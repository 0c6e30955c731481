"""The sections of a recipe: their keys, what a left-out key means, and what a key alone can get wrong.

Names are TRL's, transformers' and PEFT's wherever one exists. Importing this loads no torch.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import ConfigDict, Field, field_validator, model_validator

from posttrain.controllers import CONTROLLERS, Controller
from posttrain.errors import ConfigError
from posttrain.recipe.section import Count, Positive, Section, Share, Size
from posttrain.recipe.tracking import TrackingSection
from posttrain.tasks.countdown import Countdown
from posttrain.tasks.json_structure import JsonStructure
from posttrain.tasks.knights_knaves import KnightsKnaves
from posttrain.tasks.math import Math
from posttrain.tasks.mixture import Mixture
from posttrain.tasks.rows import Rows
from posttrain.tasks.table_structure import TableStructure

# fmt: off
Scheduler = Literal[
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt",
    "cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay", "wsd_s", "infinite", "power", "refined",
]
Tracker = Literal[
    "azure_ml", "clearml", "codecarbon", "comet_ml", "dagshub", "dvclive", "flyte", "kubeflow", "mlflow", "neptune",
    "swanlab", "tensorboard", "trackio", "wandb",
]
# fmt: on


class RewardConfig(Section):
    """One reward: built in (`name`), in a file (`path: FILE.py:FUNCTION`) or importable (`import: MODULE:FUNCTION`).

    `:FUNCTION` may be left out when it is `score`. A relative path starts at the folder of the recipe that names it.
    `weight` multiplies the score, `kwargs` are passed to every call, `tasks` names the tasks of a mixture whose rows it
    applies to, `sources` the values of the rows' column `source`. `- NAME` is short for `- {name: NAME}`.
    """

    model_config = ConfigDict(populate_by_name=True)

    name: str | None = None
    path: str | None = None
    import_: str | None = Field(default=None, alias="import")
    weight: float = 1.0
    kwargs: Mapping[str, Any] = {}
    tasks: Annotated[list[str], Field(min_length=1)] | None = None
    sources: Annotated[list[str], Field(min_length=1)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_source(self) -> RewardConfig:
        named = [key for key, value in (("name", self.name), ("path", self.path), ("import", self.import_)) if value]
        if len(named) != 1:
            raise ConfigError(
                f"the reward has {' and '.join(named) or 'no source'}", expected="one of name, path or import"
            )
        return self


if TYPE_CHECKING:
    AnyController = Controller
else:
    AnyController = Annotated[Union[tuple(CONTROLLERS.values())], Field(discriminator="name")]  # noqa: UP007
if TYPE_CHECKING:
    AnyTask = Any
else:
    AnyTask = Annotated[
        KnightsKnaves | Math | JsonStructure | TableStructure | Countdown | Rows | Mixture, Field(discriminator="name")
    ]


class RolloutSection(Section):
    """What samples completions, in training and in evaluations; names after `trl.GRPOConfig`'s `vllm_*`.

    Args:
        engine: `auto` takes vLLM where it is installed, else transformers.
        mode: vLLM in the training process (`colocate`), or a server of its own (`server`).
        server_base_url: Where the server listens, such as http://localhost:8000; `posttrain serve` starts one.
        weights_transfer: How weights travel to a server: `files`; `nccl`, from GPU to GPU, where it was started with
            `posttrain serve MODEL --weights-transfer nccl`; `auto` is nccl where that is so and the run has CUDA.
        weights_folder: For files: a folder that the run and the server see under the same path; null is memory where
            the server is on this machine.
        lora: How an adapter gets to vLLM: `adapter` sends it alone, once its base is there; `merged` adds it to the
            weights that are sent; `auto` is adapter on a GPU where vLLM adds it exactly, else merged.
        overlap: In a step of both losses a server samples while the SFT half is at work; the rollouts are the same.
        ahead: Windows that a server samples ahead of training. With 1 the next window's rollouts are of the policy
            before this window's update, and TRL's correction says what they are worth.
        gpu_memory_utilization: Share of the GPU that a colocated vLLM may take, weights and cache.
        max_model_length: Longest prompt and completion together, in tokens; null takes what the task's longest prompt
            and a completion need.
        enable_sleep_mode: Free the engine's GPU memory while the policy trains; its weights wait in the CPU's.
        time_limit_s: Seconds that one round of sampling or one transfer of weights may take before the run ends.
        probe_every: Transfers of weights between comparisons of the sampler's log-probabilities with the trainer's;
            the first is always followed by one, and 0 leaves it at that.
    """

    engine: Literal["auto", "transformers", "vllm"] = "auto"
    mode: Literal["colocate", "server"] = "colocate"
    server_base_url: str | None = None
    weights_transfer: Literal["auto", "files", "nccl"] = "auto"
    weights_folder: str | None = None
    lora: Literal["auto", "adapter", "merged"] = "auto"
    overlap: bool = True
    ahead: Literal[0, 1] = 0
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.3
    max_model_length: Size | None = None
    enable_sleep_mode: bool = False
    time_limit_s: Positive = 600
    probe_every: Count = 50

    @model_validator(mode="after")
    def _server(self) -> RolloutSection:
        if (self.mode == "server") != bool(self.server_base_url):
            raise ConfigError(
                f"mode: {self.mode} with server_base_url: {self.server_base_url}",
                expected="server_base_url with mode: server, and only there",
                fix="start a server with `posttrain serve` and give its address" if self.mode == "server" else None,
            )
        if self.engine == "transformers" and self.mode == "server":
            raise ConfigError("mode: server with engine: transformers", fix="set engine to vllm")
        if self.ahead and self.mode != "server":
            raise ConfigError(
                f"ahead: {self.ahead} with mode: {self.mode}",
                expected="mode: server, whose sampling goes on beside training",
                fix="start a server with `posttrain serve`, or leave ahead out",
            )
        return self

    def uses_vllm(self) -> bool:
        """Whether vLLM samples: asked for, or there to be taken."""
        if self.engine == "auto":
            return self.mode == "server" or importlib.util.find_spec("vllm") is not None
        return self.engine == "vllm"

    def trl_kwargs(self) -> dict[str, Any]:
        """The arguments of `HybridConfig` that the recipe decides here."""
        if not self.uses_vllm():
            return {"use_vllm": False}
        own = self.model_dump(exclude={"engine"}, exclude_none=True)
        return {"use_vllm": True, **{f"vllm_{name}": value for name, value in own.items()}}


class ScoringSection(Section):
    """How completions are scored: in worker processes that a reward can hang or kill without harm to the run.

    Args:
        workers: Processes; null takes one a CPU core, at most 8; 0 scores in the training process, without limits.
        time_limit_s: Seconds that one completion may take before its worker is killed and replaced.
        memory_limit_mb: What a worker may allocate; null sets no limit.
        max_error_rate: Share of one reward's latest scores that may fail (an exception, a time-out) before the run
            stops.
        ahead: Workers score completions that have ended while others are still being sampled; the scores are the same.
    """

    workers: Count | None = None
    time_limit_s: Positive = 5.0
    memory_limit_mb: Size | None = 4096
    max_error_rate: Share = 0.1
    ahead: bool = True


class EvaluateSection(Section):
    """Evaluation on the task's held-out rows: greedy pass@1 always, pass@k from `samples` where `k` asks for it.

    Args:
        every: Hybrid steps between evaluations; 0 evaluates at the ends of the stages only.
        times: Evaluations spread evenly over the hybrid stage or its budget, the final one among them; 0 for none.
        k: The k of pass@k, one or a list. 1 is greedy pass@1.
        samples: Completions sampled per row, at `temperature`, where a k above 1 is asked for.
        batch_size: Completions generated at once.
        at_start: Evaluate the model before any training, too.
        max_completion_length: Tokens; null takes hybrid.grpo.max_completion_length.
        reward: What judges, as under `rewards`, one or a list; null takes the rewards that the policy is trained by.
        threshold: A completion passes where the mean of its scores, weighed by the rewards' weights, reaches this.
    """

    every: Count = 0
    times: Count = 0
    k: Annotated[list[Size], Field(min_length=1)] = [1]
    samples: Size = 1
    temperature: Positive = 1.0
    batch_size: Size = 64
    at_start: bool = True
    max_completion_length: Size | None = None
    reward: Annotated[list[RewardConfig], Field(min_length=1)] | None = None
    threshold: Annotated[float, Field(gt=0, le=1)] = 1.0

    @field_validator("k", "reward", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, int | str | Mapping) and not isinstance(value, bool) else value


class RunSection(Section):
    """Where a run lives and what it reports.

    Args:
        dir: The run's directory, from the working directory; null is `runs/` and the name of the recipe's file.
        report_to: Trackers that transformers knows.
        tracking: How the run is called there.
        threads: CPU threads of torch; null leaves its choice.
        log_every: Hybrid steps between entries sent to `report_to`; steps.jsonl has every step.
        save_completions_every: Hybrid steps between recorded rollouts; 0 records none.
        process_timeout_s: Of a run on several processes: seconds that one waits for another before it gives up.
        compare_ranks_every: Hybrid steps between comparisons of what the processes hold (controller, cursors, recipe,
            data); 0 never compares.
    """

    dir: str | None = None
    seed: Count = 0
    report_to: list[Tracker] = []
    tracking: TrackingSection | None = None
    threads: Size | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    log_every: Size = 1
    save_completions_every: Count = 10
    process_timeout_s: Positive = 1800
    compare_ranks_every: Count = 10

    @field_validator("report_to", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        if value in ("none", None):
            return []
        return [value] if isinstance(value, str) else value
