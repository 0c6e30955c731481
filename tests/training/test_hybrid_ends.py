"""The hybrid at its two ends is SFTTrainer and GRPOTrainer, to float round-off."""

from __future__ import annotations

import copy

import pytest
import torch
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from posttrain.controllers import GRPOOnly, SFTOnly
from posttrain.training.trainer import HybridTrainer
from tests.training.conftest import COMMON, hybrid_args, reward


def parameters(model) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize(("accumulation", "packed"), [(1, True), (4, True), (4, False)])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_sft_only_gives_the_parameters_of_sft_trainer(
    model, tokenizer, prompts, demonstrations, tmp_path, accumulation, packed, temperature
):
    twin, steps, batch = copy.deepcopy(model), 5, 4
    args = hybrid_args(
        tmp_path,
        max_steps=steps,
        gradient_accumulation_steps=accumulation,
        demonstration_batch_size=batch,
        temperature=temperature,
        packed=packed,
    )
    hybrid = HybridTrainer(
        model, reward, args, prompts, processing_class=tokenizer, demonstrations=demonstrations, controller=SFTOnly()
    )
    order = hybrid.sft.stream.peek(steps * batch * accumulation)
    hybrid.train()

    sft_args = SFTConfig(
        **COMMON,
        output_dir=str(tmp_path / "sft"),
        max_steps=steps,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        train_sampling_strategy="sequential",
    )
    rows = demonstrations.select_columns(["prompt", "completion"]).select(order)
    sft = SFTTrainer(twin, sft_args, train_dataset=rows, processing_class=tokenizer)
    start = parameters(twin).clone()
    sft.train()

    assert (parameters(twin) - start).abs().max() > 1e-3, "nothing was trained"
    torch.testing.assert_close(parameters(model), parameters(twin), rtol=1e-5, atol=1e-6)
    norms = [entry["grad_norm"] for entry in sft.state.log_history if "grad_norm" in entry]
    ours = [entry["grad_norm"] for entry in hybrid.state.log_history if "grad_norm" in entry]
    assert ours == pytest.approx(norms, rel=1e-5)
    losses = [entry["loss"] for entry in sft.state.log_history if "loss" in entry]
    assert [entry["hybrid/sft_loss"] for entry in hybrid.state.log_history if "loss" in entry] == pytest.approx(
        losses, rel=1e-5
    )


class Gradients:
    """Keeps the gradients of every step, as the optimizer is about to see them unclipped."""

    def __init__(self, trainer):
        self.steps: list[torch.Tensor] = []
        inner = trainer._get_grad_norm

        def watched(model, grad_norm=None):
            self.steps.append(torch.cat([p.grad.flatten().clone() for p in trainer.model.parameters()]))
            return inner(model, grad_norm)

        trainer._get_grad_norm = watched


@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("loss_type", ["dapo", "grpo"])
def test_grpo_only_gives_the_gradients_of_grpo_trainer(
    model, tokenizer, prompts, demonstrations, tmp_path, accumulation, loss_type
):
    twin = copy.deepcopy(model)
    recorded = []

    def record(prompts, trainer):
        """Rollouts of differing lengths that do not depend on a sampler."""
        ids = [tokenizer(p)["input_ids"] for p in prompts]
        length = torch.Generator().manual_seed(len(recorded))
        completions = []
        for _ in prompts:
            n = int(torch.randint(1, 6, (1,), generator=length))
            body = torch.randint(2, len(tokenizer), (n,), generator=length).tolist()
            completions.append([*body, tokenizer.eos_token_id])
        recorded.append((list(prompts), completions))
        return {"prompt_ids": ids, "completion_ids": completions, "logprobs": None}

    # max_grad_norm=0 switches clipping off, so that what is compared is the gradient itself
    shared = {"gradient_accumulation_steps": accumulation, "loss_type": loss_type, "max_grad_norm": 0.0, "max_steps": 3}
    ours = HybridTrainer(
        model,
        reward,
        hybrid_args(tmp_path, **shared),
        prompts,
        processing_class=tokenizer,
        demonstrations=demonstrations,
        controller=GRPOOnly(),
        rollout_func=record,
    )
    our_gradients = Gradients(ours)
    ours.train()

    replayed = iter(list(recorded))
    queue = [row for texts, _ in recorded for row in texts]

    def replay(prompts, trainer):
        texts, completions = next(replayed)
        assert prompts == texts
        return {
            "prompt_ids": [tokenizer(p)["input_ids"] for p in prompts],
            "completion_ids": completions,
            "logprobs": None,
        }

    answers = {row["prompt"]: row["answer"] for row in prompts}
    unique = queue[::4]
    rows = type(prompts).from_list([{"prompt": p, "answer": answers[p]} for p in unique])
    theirs = GRPOTrainer(
        twin,
        reward,
        GRPOConfig(
            **COMMON,
            output_dir=str(tmp_path / "grpo"),
            per_device_train_batch_size=8,
            num_generations=4,
            max_completion_length=6,
            shuffle_dataset=False,
            **shared,
        ),
        rows,
        processing_class=tokenizer,
        rollout_func=replay,
    )
    their_gradients = Gradients(theirs)
    theirs.train()

    assert len(our_gradients.steps) == len(their_gradients.steps) == 3
    for a, b in zip(our_gradients.steps, their_gradients.steps, strict=True):
        assert b.norm() > 1e-4
        assert (a - b).norm() / b.norm() < 1e-5
