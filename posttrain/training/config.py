"""The settings of `HybridTrainer`: TRL's, and the few that a second loss needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_args

import torch
from accelerate.utils import DistributedType
from datasets import Dataset
from trl import GRPOConfig

from posttrain.controllers import Controller
from posttrain.errors import ConfigError
from posttrain.inputs.rendering import After
from posttrain.methods.base import Method, weight_refused
from posttrain.models.four_bit import is_four_bit
from posttrain.nearest import hint
from posttrain.recipe.contradictions import TRUNCATED, TRUNCATED_FIX, truncates
from posttrain.recipe.optimizers import check_optim
from posttrain.recipe.section import OF_WHOLE, SFTWeight
from posttrain.recipe.selected_tokens import BUDGET, EXPECTED, own_budget, refused
from posttrain.recipe.sft_losses import BY_TOKEN
from posttrain.training.budget import Budget
from posttrain.training.length_budget import LengthBudget
from posttrain.training.refill import Refill
from posttrain.training.scheduled import check_own_schedule, known_to_transformers
from posttrain.training.selection import Selection


@dataclass
class HybridConfig(GRPOConfig):
    """`trl.GRPOConfig` plus the demonstrations' side of a step.

    `lr_scheduler_type` may be one of `recipe.rates`, too, its arguments in `lr_scheduler_kwargs`.

    Args:
        demonstration_batch_size: Demonstrations per device and micro-batch; `None` takes
            `per_device_train_batch_size`. An SFT step has `gradient_accumulation_steps` such micro-batches.
        demonstration_max_length: Tokens (prompt and completion) kept of a demonstration.
        demonstrations_after: Where the chat template gives the sampler more than it puts before a completion (reasoning
            models: an opened `<think>`), `"template"` refuses demonstrations and `"generation_prompt"` puts their
            completions behind what the sampler is given.
        kl_sample: Share of a step's rollouts on which the KL to the starting policy is measured, at the cost of one
            forward pass without gradient over them; 0 never measures it and keeps no copy of the policy.
        kl_offload: Keep the copy of the starting policy in host memory; it is moved to the device while it scores.
        seeded_rollouts: Without vLLM: a completion is a function of (`seed`, generation, its prompt's place in it, its
            number in the group), so of neither the number of processes nor what else is sampled. `False` leaves TRL's
            own sampling with torch's generators.
        packed: Score rows in one sequence without padding, each group's prompt once, where the model allows it (see
            `packing.scores.supports`); the gradients are those of TRL's padded rows, which `False` goes back to.
        score_ahead: Completions that have ended are scored in the rewards' worker processes while others are still
            being sampled. The scores are the same; `False` is for measuring what that gains.
        drop_zero_advantage: Leave out completions whose advantage is 0 where they add nothing to the loss: `beta` 0, no
            entropy bonus, `top_entropy_quantile` 1, no router loss, no band of entropies, no `migu`, a `loss_type`
            other than bnpo, text. The gradients are those with them. With `packed` false too, micro-batches are of
            TRL's number of rows.
        refill: Replaces groups without a spread in their rewards by groups of further prompts, such as
            `{"max_batches": 3}`: until all have one, or three times a window's prompts were sampled for it. What is
            without one then stays. `{"max_batches": 3, "ahead": False}` samples no prompt that is not needed, in more
            rounds (see `training.refill`).
        tokens: GRPO trains the tokens with the highest entropies of each completion only, such as
            `{"top_entropy": 0.2}`; with `"kl_too": False` the penalty of `beta` stays on all, `"band": {"coef": 0.01}`
            keeps their entropies together (see `training.window.selection`).
        length_budget: A budget of tokens that decays over training, is told in each prompt and paid by the reward
            `length_budget`, such as `{"start": 800, "rate": 0.2}` (see `training.length_budget`).
        migu: Share of each linear layer's rows, those with the smallest outputs, that get no gradient, such as 0.7 (see
            `training.migu`).
        sft_weight: What a demonstration's token counts in the SFT loss, by the probability p that the policy gives it:
            `nll` 1, `dft` p, `phi` p(1 - p), `trust` min(1, p / 0.1), `clipped` p / p_old up to 1.28 and nothing above
            (see `token_weights`); or by the probability of the demonstration as a whole, `dco`, or by its growth since
            training began, `pearson`, `hellinger` and `js` (see `row_weights`); `unselected` is 1 where `tokens` would
            not select it. The weights carry no gradient.
        sft_window: Of `clipped`: the steps with SFT that one p_old serves, each at the cost of one forward pass without
            gradient over its demonstrations; `None` is 8 (PSFT's 256 rows in updates of 32).
        sft_tries: Of `dco`: N of the pass@N that is optimised; `None` is 8, and 1 is `nll`.
        compare_ranks_every: Steps between comparisons of what the processes hold in common: cursors, the controller's
            state, the gradient norm to the last bit. 0 never compares, as devices of different kinds need.
        budget: What training may spend in place of `max_steps`, such as `{"seconds": 240}`; or `tokens` (sampled and
            trained on), `flops` (by the cost model) or `steps`. It ends with the step that spends the last of it, and
            schedules, written for `max_steps`, go by the share that is spent (see `training.budget`).
        max_skipped_steps: Steps in a row that may be skipped for a gradient that is not finite before training stops.
        completions_every: Steps between recorded rollouts in `completions/`; 0 records none.
        vllm_overlap: With `vllm_mode="server"`: in a step of both losses the server samples while the SFT half is at
            work. The rollouts are the same; `False` is for measuring what that gains.
        vllm_ahead: With `vllm_mode="server"`: 1 has the server sample the next window's rollouts while this one is
            trained on, from the policy before its update, under TRL's correction.
        vllm_weights_transfer: With `vllm_mode="server"`: `files`, through a folder; `nccl`, from GPU to GPU, to a
            server started with `posttrain serve MODEL --weights-transfer nccl`; `auto` is `nccl` where the trainer has
            CUDA and the server was started so, else `files`. NCCL follows TRL's client and was not run by our tests.
        vllm_weights_folder: With `vllm_mode="server"`: a folder that this process and the server see under the same
            path, for weights on their way; `None` is memory where the server is on this machine.
        vllm_lora: With `use_vllm` and a LoRA adapter: `adapter` sends the adapter alone, once the base is there;
            `merged` adds it to the weights that are sent; `auto` is `adapter` on a GPU where vLLM adds it exactly.
        vllm_time_limit_s: With `use_vllm`: seconds that one round of sampling or one transfer of weights may take.
        vllm_probe_every: With `use_vllm`: transfers of weights between comparisons of the sampler's
            log-probabilities with the trainer's. The first is always followed by one; 0 leaves it at that.
    """

    demonstration_batch_size: int | None = field(
        default=None, metadata={"help": "Demonstrations per device and micro-batch (default: the train batch size)."}
    )
    demonstration_max_length: int | None = field(
        default=1024, metadata={"help": "Tokens kept of a demonstration, prompt and completion together."}
    )
    demonstrations_after: str = field(
        default="template", metadata={"help": "What demonstrations stand behind: template or generation_prompt."}
    )
    kl_sample: float = field(
        default=0.25, metadata={"help": "Share of rollouts on which the KL to the starting policy is measured."}
    )
    kl_offload: bool = field(default=False, metadata={"help": "Keep the copy of the starting policy in host memory."})
    seeded_rollouts: bool = field(
        default=True, metadata={"help": "Make a completion a function of the seed and its place, not of the processes."}
    )
    packed: bool = field(
        default=True, metadata={"help": "Score rows without padding and each group's prompt once, where supported."}
    )
    score_ahead: bool = field(
        default=True, metadata={"help": "Score completions that have ended while others are still being sampled."}
    )
    drop_zero_advantage: bool = field(
        default=True, metadata={"help": "Leave out completions whose advantage is 0 where they add nothing."}
    )
    refill: dict | None = field(
        default=None, metadata={"help": "Replace groups without a spread in their rewards: max_batches is the limit."}
    )
    tokens: dict | None = field(
        default=None, metadata={"help": "Which tokens of a completion GRPO trains: top_entropy is their share."}
    )
    length_budget: dict | None = field(
        default=None, metadata={"help": "A budget of tokens that decays and is told: start, rate, least, prompt."}
    )
    migu: float | None = field(
        default=None, metadata={"help": "Share of a layer's rows, with the smallest outputs, that get no gradient."}
    )
    sft_weight: str = field(
        default="nll",
        metadata={"help": f"What a demonstration's token counts, one of {', '.join(get_args(SFTWeight))}."},
    )
    sft_window: int | None = field(
        default=None, metadata={"help": "Steps with SFT that one p_old of sft_weight=clipped serves (default: 8)."}
    )
    sft_tries: int | None = field(default=None, metadata={"help": "Of sft_weight=dco: N of pass@N (default: 8)."})
    compare_ranks_every: int = field(
        default=10, metadata={"help": "Steps between comparisons of what the processes hold in common; 0 for none."}
    )
    budget: dict | None = field(
        default=None, metadata={"help": "What training may spend, one of seconds, tokens, flops and steps."}
    )
    max_skipped_steps: int = field(
        default=5, metadata={"help": "Steps in a row that may be skipped for a non-finite gradient."}
    )
    completions_every: int = field(default=10, metadata={"help": "Steps between recorded rollouts; 0 for none."})
    vllm_overlap: bool = field(
        default=True, metadata={"help": "Let a vLLM server sample while the SFT half of the step is at work."}
    )
    vllm_ahead: int = field(
        default=0, metadata={"help": "Windows that a vLLM server samples ahead of training: 0 or 1."}
    )
    vllm_weights_transfer: str = field(
        default="auto", metadata={"help": "How weights travel to a vLLM server: auto, files or nccl."}
    )
    vllm_weights_folder: str | None = field(
        default=None, metadata={"help": "A folder that trainer and server share, for weights on their way."}
    )
    vllm_lora: str = field(
        default="auto", metadata={"help": "How a LoRA adapter gets to vLLM: auto, adapter (alone) or merged."}
    )
    vllm_time_limit_s: float = field(
        default=600.0, metadata={"help": "Seconds that one round of sampling or one transfer of weights may take."}
    )
    vllm_probe_every: int = field(
        default=50, metadata={"help": "Transfers of weights between checks of vLLM's log-probabilities."}
    )

    def __post_init__(self):
        with known_to_transformers(self):
            super().__post_init__()
        check_own_schedule(self, self.max_steps)
        if self.demonstration_batch_size is None:
            self.demonstration_batch_size = self.per_device_train_batch_size
        if self.demonstrations_after not in get_args(After):
            raise ConfigError(
                repr(self.demonstrations_after),
                expected=" or ".join(get_args(After)),
                where="demonstrations_after",
                fix="generation_prompt puts completions behind what the sampler is given",
            )
        if self.sft_weight not in get_args(SFTWeight):
            seen = f"{self.sft_weight!r}{hint(self.sft_weight, get_args(SFTWeight))}"
            raise ConfigError(seen, expected=", ".join(get_args(SFTWeight)), where="sft_weight")
        if self.sft_window is not None and (self.sft_weight != "clipped" or self.sft_window < 1):
            raise ConfigError(
                f"sft_window {self.sft_window} with sft_weight {self.sft_weight!r}",
                expected="one step or more, with sft_weight='clipped', which alone compares with an earlier policy",
                where="sft_window",
                fix="leave it out",
            )
        if self.sft_weight == "unselected" and not self.tokens:
            raise ConfigError(
                "sft_weight 'unselected' without tokens",
                expected="a selection, of which it is the rest",
                where="sft_weight",
                fix="tokens={'top_entropy': 0.2}",
            )
        if self.sft_tries is not None and (self.sft_weight != "dco" or self.sft_tries < 1):
            raise ConfigError(
                f"sft_tries {self.sft_tries} with sft_weight {self.sft_weight!r}",
                expected="one try or more, with sft_weight='dco', which alone counts them",
                where="sft_tries",
                fix="leave it out",
            )
        Budget.of(self.budget)
        Refill.of(self.refill)
        if self.migu is not None and not 0.0 < self.migu < 1.0:
            raise ConfigError(f"{self.migu}", expected="a share above 0 and below 1", where="migu", fix="leave it out")
        Selection.of(self.tokens)
        LengthBudget.of(self.length_budget)
        if not 0.0 <= self.kl_sample <= 1.0:
            raise ConfigError(f"{self.kl_sample}", expected="a share between 0 and 1", where="kl_sample")


def check_arguments(
    args: Any,
    train_dataset: Any,
    demonstrations: Any,
    controller: Controller,
    environment_factory: Any = None,
    method: Method | None = None,
) -> None:
    """Refuse arguments of `HybridTrainer` that contradict each other.

    Raises:
        ConfigError: With what to change.
    """
    if not isinstance(args, HybridConfig):
        raise ConfigError(
            f"args is a {type(args).__name__}", expected="a HybridConfig (a GRPOConfig with a few more)", where="args"
        )
    if train_dataset is None:
        _check_without_data(args, environment_factory)
    elif not isinstance(train_dataset, Dataset):
        raise ConfigError(
            f"train_dataset is a {type(train_dataset).__name__}",
            expected="a datasets.Dataset: its rows are drawn by number, which is what makes resuming exact",
            where="train_dataset",
            fix="pass Dataset.from_list(rows); of an iterable data set Dataset.from_list(list(rows.take(N)))",
        )
    check_optim(args.optim, "optim")
    if args.save_only_model:
        raise ConfigError(
            "save_only_model: resuming would start the optimizer and the learning rate's schedule anew",
            expected="checkpoints that training can go on from",
            where="save_only_model",
            fix="leave it out; to save a model alone, call save_model",
        )
    wants_sft, wants_grpo = controller.shares()
    if wants_sft and demonstrations is None:
        raise ConfigError(
            f"the controller {controller.name!r} takes SFT steps, but there are no demonstrations",
            expected="rows with prompt and completion",
            where="demonstrations",
            fix="pass demonstrations=..., or use GRPOOnly()",
        )
    if method is not None and not wants_grpo:
        raise ConfigError(
            f"the controller {controller.name!r} takes no GRPO step, of which the method {method.name} is",
            expected="one that does",
            where="controller",
            fix="controller=GRPOOnly(), or leave the method out",
        )
    if method is not None and method.buffer and wants_sft:
        raise ConfigError(
            f"the controller {controller.name!r} takes SFT steps, and so does the method {method.name}",
            expected="one that decides on them",
            where="controller",
            fix="controller=GRPOOnly(), or another method",
        )
    if args.refill and (method is not None or not wants_grpo):
        raise ConfigError(
            f"refill with the method {method.name}, which makes something of groups without a spread, too"
            if method is not None
            else f"refill, but the controller {controller.name!r} takes no GRPO step",
            expected="GRPO steps by themselves",
            where="refill",
            fix="leave it out",
        )
    if args.length_budget and (method is not None or not wants_grpo):
        raise ConfigError(
            f"length_budget, and the method {method.name}, whose demonstrations were told none"
            if method is not None
            else f"length_budget, but the controller {controller.name!r} samples nothing",
            expected="GRPO steps by themselves",
            where="length_budget",
            fix="leave it out",
        )
    if args.length_budget and train_dataset is not None and BUDGET in train_dataset.column_names:
        raise own_budget(train_dataset.column_names, "length_budget")
    if selection := Selection.of(args.tokens):
        name, band = method.name if method is not None else None, selection.band is not None
        if problem := refused(args, controller=controller, method=name, band=band):
            raise ConfigError(f"tokens, and {problem[0]}", expected=EXPECTED, where="tokens", fix=problem[1])
    if method is not None and args.sft_weight != "nll":
        if why := weight_refused(method, args.sft_weight, sft_steps=wants_sft, by_row=args.sft_weight in OF_WHOLE):
            raise ConfigError(f"sft_weight {args.sft_weight!r}: {why}", where="sft_weight", fix="leave it out")
    elif args.sft_weight != "nll" and not wants_sft:
        raise ConfigError(
            f"sft_weight {args.sft_weight!r}, but the controller {controller.name!r} takes no SFT steps",
            expected="a controller that does",
            where="sft_weight",
            fix="leave it out",
        )
    if args.sft_weight in OF_WHOLE and getattr(controller, "needs_statistics", False):
        raise ConfigError(
            f"sft_weight {args.sft_weight!r} and the controller {controller.name!r}: {BY_TOKEN}",
            expected="a weight by token",
            where="sft_weight",
            fix="sft_weight='phi', or another controller",
        )
    if getattr(controller, "kl_target", None) is not None and wants_grpo and args.kl_sample == 0:
        raise ConfigError(
            "kl_target is set, but the KL is never measured",
            expected="kl_sample above 0",
            where="kl_sample",
            fix="set kl_sample=0.25, or remove kl_target",
        )


def _check_without_data(args: HybridConfig, environment_factory: Any) -> None:
    """Prompts come from environments that own them, for as many steps as are said."""
    if environment_factory is None:
        raise ConfigError(
            "there is no train_dataset",
            expected="a datasets.Dataset with a prompt in each row and the columns that the rewards take",
            where="train_dataset",
            fix="pass one, such as Dataset.from_list(rows); an environment whose reset() gives the prompt, as "
            "environment_factory, needs none",
        )
    if isinstance(environment_factory, Mapping):
        raise ConfigError(
            "several environments, and no train_dataset",
            expected="a datasets.Dataset whose column `environment` names the one of each row",
            where="train_dataset",
            fix="pass one, or a single environment",
        )
    if args.max_steps <= 0:
        raise ConfigError(
            "an environment that owns its data, and max_steps is not set",
            expected="the length of the training: there is no data set to tell an epoch by",
            where="max_steps",
            fix="set it above 0",
        )


IGNORED_WITH_OUR_ENGINE = (
    "generation_kwargs", "vllm_model_impl", "vllm_server_host", "vllm_server_port", "vllm_structured_outputs_regex",
    "vllm_tensor_parallel_size",
)  # fmt: skip
"""Settings of TRL's own vLLM engine that ours has no use for."""


def check_engine_arguments(args: HybridConfig, more: Mapping[str, Any]) -> None:
    """Refuse what sampling with vLLM would silently do otherwise than asked.

    Args:
        args: The trainer's settings.
        more: Its other arguments by name.

    Raises:
        ConfigError: With what to set.
    """
    if not args.use_vllm:
        return
    defaults = {each.name: each.default for each in fields(args)}
    for name in IGNORED_WITH_OUR_ENGINE:
        if getattr(args, name) not in (defaults[name], None):
            raise ConfigError(
                f"{name} with use_vllm", where=name, fix="leave it out: posttrain's engine has no use for it"
            )
    for name in ("tools", "environment_factory", "rollout_func"):
        if more.get(name):
            raise ConfigError(
                f"{name} with use_vllm", expected="single-turn rollouts", where=name, fix="use_vllm=False"
            )
    correction = args.vllm_importance_sampling_correction
    if correction and truncates(args):
        raise ConfigError(
            TRUNCATED[0], expected=TRUNCATED[1], where="vllm_importance_sampling_correction", fix=TRUNCATED_FIX
        )
    if correction and args.loss_type == "vespo" and not args.vllm_importance_sampling_mode.startswith("token"):
        raise ConfigError(
            f"loss_type vespo with vllm_importance_sampling_mode {args.vllm_importance_sampling_mode}",
            expected="token_truncate or token_mask",
            where="vllm_importance_sampling_mode",
        )


def check_model(trainer: Any, *, measures_kl: bool) -> None:
    """Refuse what a constructed trainer could only do wrongly.

    Raises:
        ConfigError: With what to set.
    """
    if trainer.args.use_vllm and (how := _out_of_reach(trainer.accelerator)):
        raise ConfigError(
            f"vLLM with weights sharded by {how}",
            expected="one process, DDP, FSDP2, or DeepSpeed up to ZeRO-2",
            where="use_vllm",
            fix="launch with fsdp_version: 2, or set use_vllm=False",
        )
    if trainer.is_fsdp_enabled and getattr(trainer.accelerator.state.fsdp_plugin, "fsdp_version", 1) == 1:
        raise ConfigError(
            "FSDP1, whose shards show no gradient norm",
            expected="FSDP2, DDP, DeepSpeed or one process",
            where="accelerate's fsdp_config",
            fix="set fsdp_version: 2",
        )
    sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    if sharded and is_four_bit(trainer.model):
        raise ConfigError(
            "a base in 4 bits whose weights are sharded, which has not been tested",
            expected="DDP, or one process",
            where="model",
            fix="launch with --config ddp, or load the base as it is",
        )
    if any(p.requires_grad and p.dtype == torch.float16 for p in trainer.model.parameters()):
        raise ConfigError(
            "weights that train are in float16: steps round to nothing or run over",
            expected="weights that train in float32",
            where="model",
            fix="load the model with dtype=torch.float32; fp16=True computes in float16",
        )
    if measures_kl and trainer._is_vlm:
        raise ConfigError(
            "the KL to the starting policy cannot be measured on images",
            expected="text",
            where="kl_sample",
            fix="set kl_sample to 0",
        )
    if trainer.aux_loss_enabled and trainer.controller.shares()[0]:
        raise ConfigError(
            "the model has a router loss, which the SFT half does not add",
            expected="a dense model, or router_aux_loss_coef=0",
            where="args.router_aux_loss_coef",
        )


def _out_of_reach(accelerator: Any) -> str | None:
    """What spreads the weights so that they cannot be sent to an engine; `None` if nothing does.

    ZeRO-1 and ZeRO-2 keep whole weights on every process. That path has no test of its own.
    """
    state = accelerator.state
    if accelerator.distributed_type == DistributedType.FSDP and state.fsdp_plugin.fsdp_version == 1:
        return "FSDP1"
    if accelerator.distributed_type == DistributedType.DEEPSPEED and state.deepspeed_plugin.zero_stage == 3:
        return "DeepSpeed ZeRO-3"
    if accelerator.distributed_type == DistributedType.MEGATRON_LM:
        return "Megatron-LM"
    return None
