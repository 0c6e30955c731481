"""The SFT half of a hybrid step: demonstrations drawn from a stream, their gradient, and its norm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import wraps
from types import MethodType
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, send_to_device
from datasets import Dataset
from torch import nn
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling
from trl.trainer.utils import add_fused_lm_head

from posttrain.errors import ConfigError
from posttrain.inputs.data import IGNORED, tokenize_demonstrations
from posttrain.inputs.demonstrated import SAMPLE, ends_by, shown
from posttrain.models.inference import inference
from posttrain.models.policy_weights import base_model
from posttrain.packing.scores import installed, label_entropies, label_scores
from posttrain.recipe.section import AGAINST_START, BY_ROW
from posttrain.training.config import HybridConfig
from posttrain.training.gradnorm import reduced_now, take_gradients, total_norm
from posttrain.training.ledger import Ledger
from posttrain.training.losses import count_labels, nll
from posttrain.training.old_scores import WINDOW, OldScores
from posttrain.training.row_statistics import RowStatistics
from posttrain.training.row_weights import row_weights
from posttrain.training.selection import Selection
from posttrain.training.spending import note_passes
from posttrain.training.streams import Stream, micro_batches
from posttrain.training.token_weights import weighted
from posttrain.training.window.kl import DistanceFromStart
from posttrain.training.window.selection import top_entropy

WARMUP_NORM_BATCHES = 4
"""Batches over which G_warmup is measured when nobody recorded it; the norm of a single one is noise."""


class SFTSide:
    """Draws demonstrations for a step and adds their gradient.

    Args:
        demonstrations: Rows with `prompt` and `completion`, or tokenised ones with `input_ids` and `labels`.
        model: The policy, already patched by TRL, not yet wrapped for several processes. Demonstrations are packed if
            `packing.scores.install` has prepared it.
        tokenizer: The policy's.
        args: The trainer's settings.
        accelerator: The trainer's.
        template_kwargs: Arguments of the chat template by which prompts are rendered.

    Attributes:
        start: Holds the policy that training began with; needed by the weights that compare with it.
    """

    def __init__(
        self,
        demonstrations: Any,
        *,
        model: nn.Module,
        tokenizer: Any,
        args: HybridConfig,
        accelerator: Accelerator,
        template_kwargs: Mapping[str, Any],
    ):
        self._args, self._accelerator, self._tokenizer = args, accelerator, tokenizer
        self._rows = _tokenized(demonstrations, tokenizer, args, template_kwargs)
        self._collate = DataCollatorForLanguageModeling(tokenizer.pad_token_id)
        self.stream = Stream(len(self._rows), seed=args.seed, name="demonstrations")
        self.statistics: RowStatistics | None = None
        self.start: DistanceFromStart | None = None
        self._start_sums: list[torch.Tensor] = []
        self._summed: list[dict[str, torch.Tensor]] | None = None
        self.tokens = 0
        self._batches: list[dict[str, torch.Tensor]] = []
        self._places = range(0)
        self._packed = args.packed and installed(model)
        self.window = OldScores(args.sft_window or WINDOW) if args.sft_weight == "clipped" else None
        self._selection = Selection.of(args.tokens) if args.sft_weight == "unselected" else None
        self._entropies: torch.Tensor | None = None  # of the latest pass, where they are needed
        outputs = ("log_probs",) if self._selection is None else ("log_probs", "entropy")
        add_untempered_head(model, cast_lm_head_to_fp32=args.cast_lm_head_to_fp32, outputs=outputs)

    def idle_end(self, ends: Sequence[int]) -> str:
        """What demonstrations end in, in words, where none of a few ends by one of these tokens; else nothing."""
        rows = [self._rows[row]["input_ids"] for row in range(min(SAMPLE, len(self._rows)))]
        if any(ends_by(self._tokenizer, ids, ends) for ids in rows):
            return ""
        return shown(self._tokenizer, rows[0][-2:])

    def texts(self) -> Iterator[tuple[list[int], int]]:
        """Token ids of each demonstration, and where its completion begins."""
        for row in self._rows:
            labels = row["labels"]
            yield row["input_ids"], next((place for place, label in enumerate(labels) if label != IGNORED), len(labels))

    def draw(self, *, advance: bool = True) -> None:
        """Take this process's micro-batches of a step, and count the step's label tokens over all processes."""
        args, accelerator = self._args, self._accelerator
        steps, world_size = args.gradient_accumulation_steps, accelerator.num_processes
        count = (args.demonstration_batch_size or 1) * steps * world_size
        self._places = range(self.stream.cursor, self.stream.cursor + count)
        batches = [self._collated(share) for share in self._shares(self._places)]
        self.stream.cursor += count if advance else 0
        local = torch.tensor(sum(count_labels(batch["labels"]) for batch in batches), device=args.device)
        self.tokens = int(accelerator.reduce(local, reduction="sum"))
        self._batches = send_to_device(batches, args.device)

    def _shares(self, places: Sequence[int]) -> list[list[int]]:
        """This process's micro-batches of a step, as places in the stream."""
        accelerator, steps = self._accelerator, self._args.gradient_accumulation_steps
        rank, world_size = accelerator.process_index, accelerator.num_processes
        return micro_batches(list(places), steps=steps, rank=rank, world_size=world_size)

    def _collated(self, places: Sequence[int]) -> dict[str, torch.Tensor]:
        return self._collate([self._rows[self.stream.row(place)] for place in places])

    def backward(self, model: nn.Module, number: int, ledger: Ledger) -> torch.Tensor:
        """Add the gradient of one micro-batch of the drawn step.

        Args:
            model: The policy, wrapped as it trains.
            number: Which micro-batch, from 0.
            ledger: Takes the loss and the time.

        Returns:
            The micro-batch's part of the step's SFT loss, detached.
        """
        accelerator = self._accelerator
        with ledger.clock("sft"):
            old = self._old_log_probs(model, number, ledger)
            start = self._sums_at_start(model, number, ledger)
            model.train()
            self._note_passes(ledger, "sft", self._batches[number])
            log_probs = self._log_probs(model, self._batches[number])
            loss = plain = nll(log_probs, self.tokens, accelerator.num_processes)
            if self._args.sft_weight != "nll":
                counted = self._counted(log_probs, self._batches[number]["labels"], old, start)
                loss = nll(counted, self.tokens, accelerator.num_processes)
                ledger.add("sft_trained_loss", loss.item(), 1.0 / len(self._batches))
            if self.statistics is not None:
                self.statistics.demonstrations(log_probs, self._batches[number]["labels"][:, 1:] != IGNORED)
            deepspeed = accelerator.distributed_type == DistributedType.DEEPSPEED
            accelerator.backward(loss, **({"scale_wrt_gas": False} if deepspeed else {}))
            ledger.add("sft_loss", plain.item(), 1.0 / len(self._batches))
            return loss.detach()

    def _counted(
        self, log_probs: torch.Tensor, labels: torch.Tensor, old: torch.Tensor | None, start: torch.Tensor | None
    ) -> torch.Tensor:
        """Log-probabilities (B, T - 1) times what each token counts."""
        args = self._args
        if self._selection is not None:
            assert self._entropies is not None
            hard = top_entropy(self._entropies, labels[:, 1:] != IGNORED, self._selection.top_entropy)
            return log_probs.masked_fill(hard, 0.0)
        if args.sft_weight not in BY_ROW:
            return weighted(args.sft_weight, log_probs, old)
        has_label = labels[:, 1:] != IGNORED
        weights = row_weights(args.sft_weight, log_probs, has_label, tries=args.sft_tries, start_sums_B=start)
        return weights * log_probs

    def _sums_at_start(self, model: nn.Module, number: int, ledger: Ledger) -> torch.Tensor | None:
        """(B,) the micro-batch's log-probabilities, summed by row, under the starting policy; `None` without use.

        All of a step's are computed at its first micro-batch: the weights change places twice a step.
        """
        if self._args.sft_weight not in AGAINST_START:
            return None
        if self._summed is not self._batches:
            assert self.start is not None
            policy = self._accelerator.unwrap_model(model)
            with self.start.swapped_into(policy):
                for batch in self._batches:
                    self._note_passes(ledger, "scored", batch)
                self._start_sums = [self._log_probs(policy, batch).sum(dim=1) for batch in self._batches]
            self._summed = self._batches
        return self._start_sums[number]

    def _log_probs(self, model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        autocast = self._accelerator.autocast
        if self._selection is not None:
            return self._with_entropies(model, batch)
        if self._packed:
            return label_scores(model, batch["input_ids"], batch["labels"], autocast=autocast, untempered=True)
        with autocast():
            return model(**batch, use_cache=False, fused_lm_head=True, untempered=True).log_probs

    def _with_entropies(self, model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        autocast = self._accelerator.autocast
        if self._packed:
            scores = label_entropies(model, batch["input_ids"], batch["labels"], autocast=autocast, untempered=True)
            log_probs, self._entropies = scores[0], scores[1].detach()
            return log_probs
        with autocast():
            outputs = model(**batch, use_cache=False, fused_lm_head=True, untempered=True)
        self._entropies = outputs.entropy.detach()
        return outputs.log_probs

    def _note_passes(self, ledger: Ledger, kind: str, batch: dict[str, torch.Tensor]) -> None:
        """Put down a batch of demonstrations that passes through the model."""
        labelled = (batch["labels"] != IGNORED).sum(dim=1)
        lengths = batch["attention_mask"].sum(dim=1) if "attention_mask" in batch else labelled
        positions = None if self._packed else float(batch["input_ids"].numel())
        note_passes(ledger, kind, lengths - labelled, labelled, positions=positions)

    def _old_log_probs(self, model: nn.Module, number: int, ledger: Ledger) -> torch.Tensor | None:
        """Of the micro-batch's labels under the policy at the window's start, which may be now; `None` without one."""
        if self.window is None:
            return None
        if not self.window.holds(self._places):
            count, first = len(self._places), self._places.start
            coming = [range(at, at + count) for at in range(first, first + count * self.window.steps, count)]
            shares = [share for places in coming for share in self._shares(places)]
            with inference(model):
                for share in shares:
                    batch = send_to_device(self._collated(share), self._args.device)
                    self._note_passes(ledger, "scored", batch)
                    self.window.add(share, self._log_probs(model, batch), batch["attention_mask"])
            self.window.until = coming[-1].stop
        return self.window.of(self._shares(self._places)[number])

    def backward_aside(self, model: nn.Module, ledger: Ledger) -> tuple[list[torch.Tensor | None], float]:
        """The gradient of the whole drawn step, taken out of `.grad`, and its norm.

        Raises:
            ConfigError: DeepSpeed and fp16 scaling allow no look at a gradient in the middle of a step.
        """
        if self._accelerator.distributed_type == DistributedType.DEEPSPEED or self._accelerator.scaler is not None:
            raise ConfigError(
                "the SFT gradient cannot be measured apart from a step under DeepSpeed or fp16",
                expected="mode: step, without refresh_every, and with a recorded g_warmup",
                where="hybrid.controller",
                fix="use mode: step, or DDP or FSDP2 in bf16",
            )
        accelerator, last = self._accelerator, len(self._batches) - 1
        # The Trainer accumulates without reducing, and goes on so; here the last micro-batch must reduce
        reducing = accelerator.sync_gradients or accelerator.gradient_state.plugin_kwargs.get("sync_each_batch", False)
        for number in range(last):
            with accelerator.no_sync(model):
                self.backward(model, number, ledger)
        with reduced_now(model, later=reducing):
            self.backward(model, last, ledger)
        parameters = list(model.parameters())
        norm = total_norm(parameters)
        return take_gradients(parameters), norm

    def measure_warmup_norm(self, model: nn.Module) -> float:
        """Mean norm over a few batches of the policy as it is; neither the stream nor the policy moves."""
        cursor, norms = self.stream.cursor, []
        window, self.window = self.window, None  # a window would begin here, so that the ratio is 1
        for _ in range(WARMUP_NORM_BATCHES):
            self.draw()
            norms.append(self.backward_aside(model, Ledger())[1])
        self.stream.cursor, self.window = cursor, window
        return sum(norms) / len(norms)


def add_untempered_head(
    model: nn.Module, *, cast_lm_head_to_fp32: bool = False, outputs: tuple[str, ...] = ("log_probs",)
) -> None:
    """Give TRL's patched forward a second fused head at temperature 1, chosen by `untempered=True`.

    GRPO scores tokens at the sampling temperature, and TRL bakes it into the head; SFT through that head would train
    a tempered likelihood.
    """
    base: Any = base_model(model)
    tempered = base.forward
    add_fused_lm_head(base, cast_lm_head_to_fp32=cast_lm_head_to_fp32, outputs=outputs)
    untempered_head = base.forward

    @wraps(type(base).forward)  # `generate` checks its arguments against the signature
    def forward(self: nn.Module, *args: Any, untempered: bool = False, **kwargs: Any) -> Any:
        return (untempered_head if untempered else tempered)(*args, **kwargs)

    base.forward = MethodType(forward, base)


def _tokenized(demonstrations: Any, tokenizer: Any, args: HybridConfig, template_kwargs: Mapping[str, Any]) -> Any:
    rows = demonstrations if isinstance(demonstrations, Dataset) else list(demonstrations)
    if len(rows) and {"input_ids", "labels"} <= set(rows[0]):
        return rows
    return tokenize_demonstrations(
        rows,
        tokenizer,
        max_length=args.demonstration_max_length,
        template_kwargs=template_kwargs,
        after=args.demonstrations_after,  # type: ignore[arg-type]
    )
