"""Stage 1: SFT on the demonstrations with `trl.SFTTrainer`, measuring the gradient norm that SASR starts from."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, PrinterCallback, TrainerCallback, TrainerState
from trl import SFTConfig, SFTTrainer

from posttrain.curricula import Curriculum, Sampler
from posttrain.curricula.flad import GRADIENTS
from posttrain.errors import ConfigError, TrainingError
from posttrain.models.four_bit import adapters_kept, is_four_bit
from posttrain.models.positions import count_by_mask
from posttrain.models.snapshot import PolicySnapshot
from posttrain.packing.scores import label_inputs, label_scores
from posttrain.processes.ranks import Ranks
from posttrain.processes.zero import check_gives_norms
from posttrain.recipe.section import AGAINST_START, BY_ROW
from posttrain.recipe.sft_losses import CLIPPED_LATER
from posttrain.storage.checkpoints import step_of
from posttrain.training.checkpoints.whole import WholeCheckpoints
from posttrain.training.drawn_demonstrations import DrawnDemonstrations, demonstrations_by
from posttrain.training.gradnorm import total_norm
from posttrain.training.ledger import Recorder
from posttrain.training.migu import RowsByMagnitude
from posttrain.training.muscle import Compatibility
from posttrain.training.packable import OWN_CHOICE, ROUTER_LOSS, pack, warn_of_padding
from posttrain.training.padding_row import PaddingKept
from posttrain.training.row_weights import row_weights
from posttrain.training.scheduled import Scheduled, check_own_schedule, known_to_transformers
from posttrain.training.skipped import SaveLater, SkippedSteps, too_many
from posttrain.training.source_gradients import check_whole_weights
from posttrain.training.streams import Stream
from posttrain.training.token_weights import WEIGHTS, weighted


@dataclass
class WarmupConfig(SFTConfig):
    """`trl.SFTConfig`, whose `lr_scheduler_type` may be one of `recipe.rates`, too."""

    def __post_init__(self):
        with known_to_transformers(self):
            super().__post_init__()
        check_own_schedule(self, self.max_steps)


class WarmupTrainer(Scheduled, WholeCheckpoints, SFTTrainer):
    """`trl.SFTTrainer` with checkpoints that are whole or absent, and batches without padding.

    Where the loss is more or other than the NLL of the labels (`sft_weight`, `old`, `loss_type`, label smoothing, a
    router loss), what it logs has that NLL as `nll`: the mean over the label tokens of the step, in nats.

    Args:
        packed: Hand batches to the model as one sequence without padding, with the head on labels only, where the model
            and the arguments allow it; TRL's loss and metrics are computed from what comes back.
        sft_weight: What a token counts (see `token_weights`). `dft` is TRL's own `loss_type`; under another one, TRL is
            handed log-probabilities times their weights and computes its loss of them. Or what a whole demonstration
            counts (see `row_weights`); the policy that some of these compare with is the one handed in.
        sft_tries: Of `dco`: its N.
        draws: Draws each step's demonstrations, in place of the order of `train_dataset`.
        old: The model before, with as many logits a token; what is trained is then the loss of `muscle`.

    Attributes:
        padded: Why batches have padding; `None` where they have none.

    Raises:
        ConfigError: A weight that there is not here, or together with another loss.
    """

    def __init__(
        self,
        model: Any,
        args: SFTConfig,
        *,
        packed: bool = True,
        sft_weight: str = "nll",
        sft_tries: int | None = None,
        draws: DrawnDemonstrations | None = None,
        old: Any = None,
        **kwargs: Any,
    ):
        check_weight(args, sft_weight, kwargs.get("compute_loss_func"), compatible=old is not None)
        if sft_weight == "dft":
            args.loss_type, sft_weight = "dft", "nll"
        padding = PaddingKept(model)
        super().__init__(model, args, **kwargs)
        self.add_callback(padding.built(self.model))
        count_by_mask(self.model)
        self._weight, self._tries, self.draws = sft_weight, sft_tries, draws
        if draws is not None and self.accelerator.parallelism_config is not None:
            raise _cut_up(draws)
        if draws is not None and draws.stream.sampler.curriculum.asks == GRADIENTS:
            check_whole_weights(self.accelerator, draws.stream.sampler.curriculum.name)
        against = f"sft_weight {sft_weight!r}", "warmup.sft_weight"
        self._start = self._snapshot(*against) if sft_weight in AGAINST_START else None
        self._start_sums: list[torch.Tensor] = []
        self.padded: str | None = self._pack(old) if packed else OWN_CHOICE
        warn_of_padding(self.padded)
        self._seen: Any = None
        self._nll: torch.Tensor | None = None
        self._compatible = None if old is None else self._compatibility(old)
        other = args.loss_type != "nll" or sft_weight != "nll" or old is not None
        if self.aux_loss_enabled or self.label_smoother is not None or other:
            self.model.register_forward_hook(self._look, with_kwargs=True)

    def _pack(self, old: Any) -> str | None:
        if self.aux_loss_enabled:  # looks at padded logits, as does a loss of one's own
            return ROUTER_LOSS
        if self.compute_loss_func is not None:
            return "compute_loss_func: it is given logits of whole rows"
        if self.accelerator.parallelism_config is not None:
            return "parallelism_config: sequence parallelism cuts rows up"
        if old is not None and (reason := pack(old, self.args)):
            return f"of the old model: {reason}"
        return pack(self.model, self.args)

    def _snapshot(self, what: str, where: str) -> PolicySnapshot:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise ConfigError(
                f"{what} compares with the policy as it was handed in, and this start cuts it up",
                expected="one process, or several under DDP",
                where=where,
                fix="launch with DDP, or take another loss",
            )
        return PolicySnapshot(self.model)

    def _compatibility(self, old: Any) -> Compatibility:
        new = self._snapshot("muscle", "warmup.muscle")
        if not is_four_bit(old):  # those are where they were loaded to
            old.to(self.args.device)
        return Compatibility(self.model, new, old, self.accelerator.autocast)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """TRL's; where weights compare with the starting policy, the step's demonstrations are scored by it at once.

        A curriculum draws them here, when the step before has moved the weights.
        """
        if self.draws is not None:
            epoch_iterator = self.draws.batches(self, num_batches)
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self._start is not None:
            policy = self.accelerator.unwrap_model(self.model)
            with self._start.swapped_into(policy):
                self._start_sums = [self.label_log_probs(policy, batch).sum(dim=1) for batch in batches]
        return batches, items

    def label_log_probs(self, policy: Any, batch: dict[str, Any]) -> torch.Tensor:
        """(B, T - 1) log-probabilities of a batch's labels, in nats; 0 where there is none."""
        inputs, autocast = send_to_device(batch, self.args.device), self.accelerator.autocast
        if self.padded is None:
            return label_scores(policy, inputs["input_ids"], inputs["labels"], autocast=autocast)
        with autocast():
            return policy(**inputs, use_cache=False, fused_lm_head=True).log_probs

    def _counted(self, log_probs: torch.Tensor, mask: torch.Tensor, tree: Any) -> torch.Tensor:
        """Log-probabilities times what they count: (B, T - 1), or (1, S) of a packed batch's scored positions."""
        if self._weight not in BY_ROW:
            return weighted(self._weight, log_probs)
        rows, has_label = (log_probs, mask) if tree is None else (tree.spread(log_probs), tree.spread(mask.float()))
        start = self._start_sums.pop(0) if self._start is not None else None
        weights = row_weights(self._weight, rows, has_label, tries=self._tries, start_sums_B=start)
        if tree is None:
            return weights * log_probs
        packed = torch.ones_like(log_probs)  # a batch without labels has one position, which none is
        packed[0, : tree.cells.numel()] = weights.expand_as(rows).flatten()[tree.cells]
        return packed * log_probs

    def _look(self, model: Any, args: Any, kwargs: Any, output: Any) -> None:
        """Behind a forward pass, which has the labels' log-probabilities where it went through TRL's fused head."""
        if model.training and getattr(output, "log_probs", None) is not None:
            self._seen = output.log_probs.detach(), output.label_mask
            if self._compatible is not None:
                output.log_probs = -self._compatible.kl(kwargs)
            elif self._weight != "nll":
                output.log_probs = self._counted(output.log_probs, output.label_mask, kwargs.get("tree"))

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """TRL's, on a packed batch where that is possible."""
        if self.padded is None and self.model.training:
            inputs = label_inputs(inputs["input_ids"], inputs["labels"], inputs["attention_mask"])
        looking = self._compatible.beside(inputs) if self._compatible and self.model.training else nullcontext()
        with looking:
            loss = super().compute_loss(model, inputs, *args, **kwargs)
        if self._seen is not None:
            (log_probs, mask), tokens = self._seen, kwargs.get("num_items_in_batch")
            part = -log_probs.sum() / (mask.sum() if tokens is None else tokens)
            self._nll, self._seen = part if self._nll is None else self._nll + part, None
        return loss

    def save_more(self, checkpoint: Path) -> None:
        """The state of the curriculum."""
        if self.draws is not None and self.accelerator.is_main_process:
            self.draws.save(checkpoint)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """TRL's, with the NLL since the last time, over all processes."""
        if self._nll is not None and "loss" in logs:
            logs["nll"] = float(self.accelerator.reduce(self._nll, reduction="sum"))
            self._nll = None
            if self._compatible is not None:
                logs["toward_old"] = self._toward_old(self._compatible)
        super().log(logs, *args, **kwargs)

    def _toward_old(self, compatible: Compatibility) -> float:
        """Share of the label tokens since the last time whose KL was to the old model, over all processes."""
        assert compatible.toward_old is not None
        old, tokens = self.accelerator.reduce(compatible.toward_old, reduction="sum").tolist()
        compatible.toward_old = None
        return old / tokens if tokens else 0.0


def check_weight(args: SFTConfig, sft_weight: str, own_loss: Any = None, *, compatible: bool = False) -> None:
    """Refuse a token weight that the warm-up cannot give, or a second loss beside one.

    Raises:
        ConfigError: `clipped`; no such weight; or one beside another loss.
    """
    names = (*WEIGHTS, *BY_ROW)
    if sft_weight not in names:
        raise ConfigError(repr(sft_weight), expected=" or ".join(names), where="sft_weight", fix=CLIPPED_LATER)
    others = {"loss_type": args.loss_type != "nll", "label_smoothing_factor": args.label_smoothing_factor > 0}
    found = [name for name, other in {**others, "compute_loss_func": own_loss is not None}.items() if other]
    if compatible and sft_weight != "nll":
        found.append(f"sft_weight {sft_weight!r}")
    if found and (compatible or sft_weight != "nll"):
        one = "an old model" if compatible else f"sft_weight {sft_weight!r}"
        raise ConfigError(f"{one} and {found[0]}", expected="one loss", where="sft_weight", fix="leave one out")


@dataclass(frozen=True)
class Warmup:
    """What the warm-up hands on.

    Attributes:
        g_warmup: Mean norm of the SFT gradient over the last steps, before clipping; skipped steps have none.
        steps: Optimizer steps done; fewer than asked for if training was stopped.
        demonstration_cursor: Demonstrations taken so far of the shuffled stream, which the hybrid stage goes on with; 0
            where a curriculum drew them.
    """

    g_warmup: float
    steps: int
    demonstration_cursor: int


def warm_up(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    demonstrations: Dataset,
    args: SFTConfig,
    *,
    norm_window: int,
    recorder: Recorder,
    callbacks: Sequence[TrainerCallback] = (),
    checkpoint: Path | None = None,
    on_end: Callable[[SFTTrainer], None] | None = None,
    max_skipped_steps: int = 5,
    packed: bool = True,
    on_start: Callable[[WarmupTrainer], None] | None = None,
    sft_weight: str = "nll",
    sft_tries: int | None = None,
    migu: float | None = None,
    curriculum: Curriculum | Sampler | str | None = None,
    old: Any = None,
) -> Warmup:
    """Train the model on the demonstrations.

    The rows are laid out beforehand in the order of the demonstrations' stream and read in sequence, so that the
    order depends on the seed alone and the hybrid stage can continue it. The processes take micro-batches in turn, so
    that a step has the same rows on any number of them. The loss is the mean NLL of completion tokens, each times its
    weight, over a whole optimizer step: the reduction whose gradient the hybrid stage measures, too.

    Args:
        model: Trained in place.
        tokenizer: Its tokenizer.
        demonstrations: `input_ids` and `labels` (see `data.tokenize_demonstrations`).
        args: With `max_steps`; logging and sampling order are set here.
        norm_window: Last steps whose gradient norms are averaged.
        recorder: Takes a record of each step.
        callbacks: Added to the trainer's own.
        checkpoint: A whole one to go on from.
        on_end: Called with the trainer when its steps are done; every process must get there.
        max_skipped_steps: Steps in a row that may be skipped for a gradient that is not finite.
        packed: Batches without padding where the model allows it (see `WarmupTrainer`).
        on_start: Called with the trainer before its first step.
        sft_weight, sft_tries: What a token counts (see `WarmupTrainer`).
        migu: Share of each linear layer's rows that get no gradient (see `migu`).
        curriculum: Which demonstrations are next, or its name: one whose columns `demonstrations` has, or a sampler
            over as many rows. `None` shuffles them.
        old: The model before (see `WarmupTrainer`).

    Raises:
        ConfigError: The curriculum goes by rollouts.
        TrainingError: Too many steps in a row were skipped, or more than one at the end: what makes gradients infinite
            may be in the weights, and nothing after them shows that it is not.
    """
    args.train_sampling_strategy = "sequential"
    args.logging_steps, args.logging_first_step = 1, True
    args.shuffle_dataset = False
    args.logging_nan_inf_filter = False  # else a loss that is NaN is logged as 0
    stream = Stream(len(demonstrations), seed=args.seed, name="demonstrations")
    per_step = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    order = stream.take(args.max_steps * per_step)
    draws = demonstrations_by(curriculum, demonstrations, seed=args.seed, max_length=args.max_length)
    skipped = SkippedSteps(max_skipped_steps, "warmup.max_skipped_steps")
    with adapters_kept(model):
        trainer = WarmupTrainer(
            model,
            args,
            packed=packed,
            sft_weight=sft_weight,
            sft_tries=sft_tries,
            draws=draws,
            train_dataset=demonstrations.select_columns(["input_ids", "labels"]).select(order),
            old=old,
            processing_class=tokenizer,
            callbacks=[(watch := _Watch(recorder, per_step, skipped)), SaveLater(skipped), *callbacks],
        )
    if migu is not None:
        trainer.add_callback(RowsByMagnitude(trainer.model, trainer.accelerator, migu, "warmup.migu"))
    check_gives_norms(trainer.accelerator, accumulation=args.gradient_accumulation_steps)
    watch.padded, watch.draws = trainer.padded, draws
    if draws is not None and checkpoint is not None:
        draws.go_on(checkpoint, step_of(checkpoint) * per_step)
    if on_start is not None:
        on_start(trainer)
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if callable(getattr(trainer.optimizer, "eval", None)):
        trainer.optimizer.eval()  # schedule-free: the model is the average of the weights that trained
    step, norms = trainer.state.global_step, _norms(trainer.state)
    tail = [norm for norm in norms[-norm_window:] if math.isfinite(norm)]
    if step >= args.max_steps and (skipped.in_a_row > 1 or not tail):
        raise too_many(skipped.in_a_row, "the last ones", expected="a warm-up that ends in sound steps", where=step)
    if on_end is not None:
        on_end(trainer)
    cursor = step * per_step if draws is None else 0
    return Warmup(sum(tail) / len(tail) if tail else math.nan, step, cursor)


def _norms(state: TrainerState) -> list[float]:
    """The norm of each step's gradient so far, earlier sessions included."""
    return [entry["grad_norm"] for entry in state.log_history if "grad_norm" in entry]


class _Watch(TrainerCallback):
    """Records each step, and skips those whose gradient is not finite."""

    def __init__(self, recorder: Recorder, per_step: int, skipped: SkippedSteps):
        self._recorder, self._per_step, self._skipped = recorder, per_step, skipped
        self._started, self._was_skipped = 0.0, False
        self.padded: str | None = None
        self.draws: DrawnDemonstrations | None = None

    def on_train_begin(self, args, state, control, **kwargs):
        """Count what an earlier session skipped."""
        for norm in _norms(state):
            bad = not math.isfinite(norm)
            self._skipped.total += bad
            self._skipped.in_a_row = self._skipped.in_a_row + 1 if bad else 0

    def on_step_begin(self, args, state, control, **kwargs):
        """Start the step's clock."""
        self._started = time.perf_counter()

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        """Keep a gradient that is not finite from the optimizer; clipping has spread it, so any norm shows it."""
        has_gradients = any(p.grad is not None for p in model.parameters())  # DeepSpeed keeps them elsewhere
        if has_gradients and not math.isfinite(total_norm(model.parameters())):
            self._skipped.skip(model)

    def on_step_end(self, args, state, control, **kwargs):
        """Close the books on the step."""
        self._was_skipped = self._skipped.finish_step()
        if self.draws is not None:
            self.draws.finish_step()

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Turn a log entry of the trainer into a line of `steps.jsonl`."""
        if not logs or "grad_norm" not in logs:
            return
        loss, norm = logs["loss"], logs["grad_norm"]
        if self._was_skipped:
            self._skipped.check(state.global_step, f"SFT loss {loss:.4g}")
        elif not (math.isfinite(loss) and math.isfinite(norm)):
            error = TrainingError(
                f"the SFT loss is {loss} and the norm of its gradient {norm}, and the step was taken",
                expected="finite numbers",
                where=f"warm-up step {state.global_step}",
                fix="lower warmup.learning_rate or train in float32, and start over by --restart, which keeps this run "
                "aside; its earlier checkpoints are whole",
            )
            error.shared = args.world_size > 1  # loss and norm are over all processes
            raise error
        record = {
            "stage": "warmup",
            "step": state.global_step,
            "mix": {"sft": 1.0, "grpo": 0.0},
            "p": None,
            "reason": "warm-up",
            "sft_loss": logs.get("nll", loss),
            "sft_trained_loss": loss if "nll" in logs else None,
            "toward_old": logs.get("toward_old"),
            "sft_norm": None if self._was_skipped else norm,
            "grad_norm": norm,
            "entropy": logs.get("entropy"),
            "learning_rate": logs.get("learning_rate"),
            "padded": self.padded,
            "seconds": self._seconds(),
            "demonstration_cursor": state.global_step * self._per_step,
            "skipped": self._was_skipped,
        }
        if self.draws is not None:
            record["curriculum"] = self.draws.record()
        Ranks.joined().on_main(lambda: self._recorder.step(record))  # a full disk ends all processes, not one

    def _seconds(self) -> dict[str, float]:
        total = time.perf_counter() - self._started
        if self.draws is None:
            return {"total": round(total, 4)}
        return {"total": round(total + self.draws.seconds, 4), "curriculum": round(self.draws.seconds, 4)}


def _cut_up(draws: DrawnDemonstrations) -> ConfigError:
    return ConfigError(
        f"the curriculum {draws.stream.sampler.curriculum.name}, and a parallelism_config that cuts rows or layers up",
        expected="processes that take rows in turn",
        where="curriculum",
        fix="leave the curriculum or the parallelism_config out",
    )
