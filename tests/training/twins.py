"""The same rollouts for `HybridTrainer` and TRL's `GRPOTrainer`, and what both made of them."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from trl import GRPOConfig, GRPOTrainer
from trl.trainer import grpo_trainer

from posttrain.controllers import GRPOOnly
from posttrain.training.trainer import HybridTrainer
from posttrain.training.window.cut import cut_of
from tests.training.conftest import COMMON, hybrid_args

OURS_ALONE = ("packed", "drop_zero_advantage", "kl_sample", "completions_every")


class Trained(NamedTuple):
    """What a training showed.

    Attributes:
        gradients: Of every step, as the optimizer is about to see them.
        positions: Token positions that went through the model with a gradient.
        scored: Those that went through it without one, apart from generation.
        passes: Forward passes with a gradient.
        records: Lines of steps.jsonl; none of TRL's.
        metrics: TRL's own, as logged.
        weights: At the end.
    """

    gradients: list[torch.Tensor]
    positions: int
    scored: int
    passes: int
    records: list[dict[str, Any]]
    metrics: list[dict[str, Any]]
    weights: torch.Tensor


class Rollouts:
    """Completions of random lengths that depend on no model, said again to whoever asks after the first."""

    def __init__(self, tokenizer: Any, longest: int = 6, *, logps: bool = False):
        self.tokenizer, self.longest, self.logps = tokenizer, longest, logps
        self.said: list[dict[str, Any]] = []
        self.prompts: list[list[str]] = []

    def record(self, prompts, trainer):
        random = torch.Generator().manual_seed(len(self.said))
        completions, logps = [], []
        for _ in prompts:
            n = int(torch.randint(1, self.longest, (1,), generator=random))
            ids = torch.randint(2, len(self.tokenizer), (n,), generator=random).tolist()
            completions.append([*ids, self.tokenizer.eos_token_id])
            near = -5.77 + 0.25 * torch.randn(n + 1, generator=random)
            logps.append([None if n == 3 and i == 1 else float(p) for i, p in enumerate(near)])
        self.prompts.append(list(prompts))
        ids = [self.tokenizer(prompt)["input_ids"] for prompt in prompts]
        said = {"prompt_ids": ids, "completion_ids": completions, "logprobs": logps if self.logps else None}
        self.said.append(said)
        return dict(said)

    def replay(self):
        again = iter(zip(self.prompts, self.said, strict=True))

        def rollout(prompts, trainer):
            known, said = next(again)
            assert prompts == known
            return dict(said)

        return rollout


def watched(trainer: Any, run: Any) -> Trained:
    """Call `run` and keep what the trainer's model did."""
    gradients: list[torch.Tensor] = []
    inner = trainer._get_grad_norm
    counts = {"with": 0, "without": 0, "passes": 0}

    def norm(model, grad_norm=None):
        gradients.append(torch.cat([p.grad.flatten().clone() for p in trainer.model.parameters()]))
        return inner(model, grad_norm)

    def count(module, args, output):
        counts["with" if torch.is_grad_enabled() else "without"] += args[0].numel()
        counts["passes"] += torch.is_grad_enabled()

    trainer._get_grad_norm = norm
    handle = trainer.model.get_input_embeddings().register_forward_hook(count)
    records: list[dict[str, Any]] = []
    if isinstance(trainer, HybridTrainer):
        trainer._recorder = SimpleNamespace(step=records.append, completions=lambda step, rows: None)
    run()
    handle.remove()
    weights = torch.cat([p.detach().flatten().clone() for p in trainer.model.parameters()])
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    return Trained(gradients, counts["with"], counts["without"], counts["passes"], records, logged, weights)


def engine_double() -> Any:
    """Stands where a vLLM engine would; the rollouts come from elsewhere."""
    return SimpleNamespace(
        sync_weights=lambda: None, overlapped=0.0, probed=None, engine=SimpleNamespace(samples_aside=False)
    )


def both(
    model, tokenizer, prompts, reward, folder, monkeypatch, *, use_vllm=False, longest=6, **changes
) -> tuple[Trained, Trained]:
    """Train `HybridTrainer`, then `GRPOTrainer` on the same rollouts in the same order.

    Args:
        use_vllm: Whether both take the rollouts for an engine's, whose log-probabilities are to be corrected for.
        changes: Arguments of both; those in `OURS_ALONE` are the hybrid's only.
    """
    twin = copy.deepcopy(model)
    rollouts = Rollouts(tokenizer, longest, logps=use_vllm)
    # max_grad_norm=0 switches clipping off, so that what is compared is the gradient itself
    changes = {"max_grad_norm": 0.0, "max_steps": 3, "optim": "sgd", "learning_rate": 0.5, "kl_sample": 0.0, **changes}
    theirs_too = {name: value for name, value in changes.items() if name not in OURS_ALONE}
    ours = HybridTrainer(
        model,
        reward,
        hybrid_args(folder, **changes),
        prompts,
        processing_class=tokenizer,
        controller=GRPOOnly(),
        rollout_func=rollouts.record,
    )
    if use_vllm:
        ours.use_vllm, ours.vllm_generation = True, engine_double()
    shown = watched(ours, ours.train)

    asked = [prompt for some in rollouts.prompts for prompt in some][:: ours.num_generations]
    answers = {row["prompt"]: row["answer"] for row in prompts}
    rows = type(prompts).from_list([{"prompt": prompt, "answer": answers[prompt]} for prompt in asked])
    settings = {**COMMON, "per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": longest}
    args = GRPOConfig(**{**settings, "output_dir": str(folder / "grpo"), "shuffle_dataset": False, **theirs_too})
    theirs = GRPOTrainer(twin, reward, args, rows, processing_class=tokenizer, rollout_func=rollouts.replay())
    if use_vllm:
        theirs.use_vllm, theirs.vllm_generation, theirs._last_loaded_step = True, engine_double(), -1
    # TRL shuffles a window's rows; which of them a step trains on must be the same
    steps = cut_of(args).steps

    def in_our_order(batch):
        count = len(batch["completion_ids"])
        order = torch.tensor([row for step in range(steps) for row in range(step, count, steps)])
        rowwise = {k: v for k, v in batch.items() if isinstance(v, torch.Tensor) and v.dim()}
        return {**batch, **{name: value[order] for name, value in rowwise.items()}}

    monkeypatch.setattr(grpo_trainer, "shuffle_sequence_dict", in_our_order)
    return shown, watched(theirs, theirs.train)


def assert_same_gradients(ours: Trained, theirs: Trained, bound: float = 1e-5) -> None:
    """Relative L2 of every step's gradient; steps without one have it on neither side."""
    assert len(ours.gradients) == len(theirs.gradients) > 0
    assert max(float(b.norm()) for b in theirs.gradients) > 1e-4, "no gradient to compare"
    for step, (a, b) in enumerate(zip(ours.gradients, theirs.gradients, strict=True), start=1):
        if not b.any():
            assert not a.any(), step
            continue
        assert (a - b).norm() / b.norm() < bound, step
