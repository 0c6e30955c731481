"""What single hybrid steps do: which loss, which gradient, which norm, which KL, and what they leave alone."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model

from posttrain.controllers import SASR, Alternate, GRPOOnly, Mix, SFTOnly, Static, check_mix
from posttrain.errors import ConfigError, TrainingError
from posttrain.storage.files import read_lines
from posttrain.training.losses import kl_k3
from posttrain.training.trainer import HybridTrainer
from tests.training.conftest import hybrid_args, reward


@pytest.fixture
def build(model, tokenizer, prompts, demonstrations, tmp_path):
    def make(controller, *, policy=None, **changes):
        return HybridTrainer(
            policy if policy is not None else model,
            reward,
            hybrid_args(tmp_path, **changes),
            prompts,
            processing_class=tokenizer,
            demonstrations=demonstrations,
            controller=controller,
        )

    return make


def records(trainer) -> list[dict]:
    return read_lines(Path(trainer.args.output_dir) / "steps.jsonl")


def gradients(trainer) -> torch.Tensor:
    return torch.cat([p.grad.flatten().clone() for p in trainer.model.parameters()])


def last_gradient(trainer) -> torch.Tensor:
    """Train, and return what the last step's optimizer saw."""
    kept = []
    inner = trainer._get_grad_norm

    def watched(model, grad_norm=None):
        kept.append(gradients(trainer))
        return inner(model, grad_norm)

    trainer._get_grad_norm = watched
    trainer.train()
    return kept[-1]


def test_sft_steps_never_call_the_sampler(build):
    trainer = build(Alternate(sft_steps=2, grpo_steps=1), max_steps=6, gradient_accumulation_steps=2)
    calls = []
    generate = trainer._generate_single_turn
    trainer._generate_single_turn = lambda *a, **k: (calls.append(trainer.state.global_step), generate(*a, **k))[1]
    trainer.train()
    assert calls == [2, 5]
    lines = records(trainer)
    assert [line["mix"]["grpo"] for line in lines] == [0, 0, 1, 0, 0, 1]
    assert [line["prompt_cursor"] for line in lines] == [0, 0, 4, 4, 4, 8]
    assert [line["demonstration_cursor"] for line in lines] == [16, 32, 32, 48, 64, 64]
    assert [line["rollouts"] for line in lines] == [0, 0, 16, 16, 16, 32]


def test_the_recorded_norm_is_the_unclipped_one(build):
    trainer = build(SFTOnly(), max_steps=1, max_grad_norm=1e-3)
    seen = []
    clip = trainer._clip_grad_norm
    trainer._clip_grad_norm = lambda model: (seen.append(gradients(trainer).norm().item()), clip(model))[1]
    clipped = last_gradient(trainer)
    assert clipped.norm().item() == pytest.approx(1e-3, rel=1e-3)
    assert records(trainer)[0]["sft_norm"] == pytest.approx(seen[0], rel=1e-5)
    assert seen[0] > 0.1


def test_sasr_measures_g_warmup_and_follows_its_own_norms(build):
    trainer = build(SASR(gamma=1.0), max_steps=12)
    before = copy.deepcopy(trainer.model.state_dict())
    trainer.train()
    lines = records(trainer)
    assert {line["mix"]["sft"] for line in lines} == {0.0, 1.0}, "both kinds of step must occur for this to prove much"
    g_last = g_warmup = lines[0]["controller"]["g_warmup"]
    for line in lines:
        assert line["p"] == g_last / (g_last + g_warmup)
        after = line["controller"]["g_last"]
        assert after == (line["sft_norm"] if line["mix"]["sft"] else g_last)  # bit-identical after a GRPO step
        g_last = after
    assert any((before[k] != v).any() for k, v in trainer.model.state_dict().items())


@pytest.mark.parametrize("match_norms", [False, True])
def test_a_blend_is_the_weighted_sum_of_both_gradients(build, model, match_norms):
    """Same weights, rows and random state: one step each of SFT, GRPO and the blend."""
    p, parts = 0.3, {}
    for name, controller in [
        ("sft", SFTOnly()),
        ("grpo", GRPOOnly()),
        ("blend", Static(sft_share=p, mode="blend", match_norms=match_norms)),
    ]:
        # one step ahead of the optimizer, clipping off: `.grad` is the gradient itself
        trainer = build(
            controller, policy=copy.deepcopy(model), max_steps=1, max_grad_norm=0.0, gradient_accumulation_steps=2
        )
        parts[name] = last_gradient(trainer)
    line = records(trainer)[-1]
    sft_norm, grpo_norm = parts["sft"].norm().item(), parts["grpo"].norm().item()
    assert line["sft_norm"] == pytest.approx(sft_norm, rel=1e-5)
    assert line["grpo_norm"] == pytest.approx(grpo_norm, rel=1e-5)
    weight = p * grpo_norm / sft_norm if match_norms else p
    expected = weight * parts["sft"] + (1 - p) * parts["grpo"]
    assert (parts["blend"] - expected).norm() / expected.norm() < 1e-5
    if match_norms:
        shares = line["sft_weight"] * sft_norm, (1 - p) * grpo_norm
        assert shares[0] / sum(shares) == pytest.approx(p, rel=1e-5)


def test_the_gradient_does_not_depend_on_how_a_batch_is_cut(build, model):
    whole = last_gradient(
        build(SFTOnly(), policy=copy.deepcopy(model), max_steps=1, max_grad_norm=0.0, demonstration_batch_size=8)
    )
    cut = last_gradient(
        build(
            SFTOnly(),
            policy=copy.deepcopy(model),
            max_steps=1,
            max_grad_norm=0.0,
            demonstration_batch_size=2,
            gradient_accumulation_steps=4,
        )
    )
    assert (whole - cut).norm() / whole.norm() < 1e-5


def test_kl_is_measured_against_the_policy_that_training_began_with(build, model):
    start = copy.deepcopy(model)
    trainer = build(GRPOOnly(), max_steps=4, kl_sample=1.0, learning_rate=5e-3, temperature=0.8)
    captured = {}
    compute = trainer.compute_loss

    def watched(policy, inputs, *args, **kwargs):
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
        mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
        width = inputs["completion_ids"].size(1)

        def score(network):
            with torch.no_grad():
                logits = network(input_ids=ids, attention_mask=mask).logits[:, :-1] / 0.8
            return logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)[:, -width:]

        kl = kl_k3(score(start), score(trainer.model))[inputs["completion_mask"].bool()]
        captured[trainer.state.global_step + 1] = kl.mean().item()
        return compute(policy, inputs, *args, **kwargs)

    trainer.compute_loss = watched
    trainer.train()
    lines = records(trainer)
    assert lines[0]["kl"] == pytest.approx(0.0, abs=1e-7)
    assert lines[-1]["kl"] > 1e-4
    assert [line["kl"] for line in lines] == pytest.approx([captured[s] for s in range(1, 5)], rel=1e-3, abs=1e-6)


def test_a_stale_norm_is_measured_without_stepping_on_it(build, model):
    """With the rewards all alike GRPO moves nothing, so any change would come from the measurement."""
    trainer = HybridTrainer(
        model,
        lambda completions, **kwargs: [1.0] * len(completions),
        hybrid_args(build(GRPOOnly()).args.output_dir, max_steps=8),
        build(GRPOOnly()).train_dataset,
        processing_class=build(GRPOOnly()).processing_class,
        demonstrations=[{"prompt": "1 plus 1 is", "completion": " 2."}] * 8,
        controller=SASR(gamma=1e9, refresh_every=3),
    )
    before = copy.deepcopy(model.state_dict())
    trainer.train()
    lines = records(trainer)
    assert [line["sft_norm"] is not None for line in lines] == [False, False, False, True, False, False, False, True]
    assert {line["demonstration_cursor"] for line in lines} == {0}
    assert all((before[name] == value).all() for name, value in model.state_dict().items())


def test_steps_with_a_gradient_that_is_not_finite_are_skipped_counted_and_then_fatal(build, model):
    def poison(trainer, steps):
        draw = trainer.sft.backward

        def poisoned(network, number, ledger):
            loss = draw(network, number, ledger)
            if trainer.state.global_step + 1 in steps:
                next(network.parameters()).grad.fill_(math.nan)
            return loss

        trainer.sft.backward = poisoned

    trainer = build(SFTOnly(), max_steps=5)
    poison(trainer, {2, 3})
    trainer.train()
    lines = records(trainer)
    assert [line["skipped"] for line in lines] == [False, True, True, False, False]
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())
    assert lines[1]["sft_norm"] is None

    doomed = build(SFTOnly(), max_steps=20, max_skipped_steps=2)
    poison(doomed, set(range(3, 20)))
    with pytest.raises(TrainingError, match="3 steps in a row"):
        doomed.train()


def test_lora_trains_the_adapter_alone_and_measures_kl_from_its_start(build, model):
    policy = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    base = {n: p.detach().clone() for n, p in policy.named_parameters() if "lora_" not in n}
    trainer = build(Static(sft_share=0.5, mode="blend"), policy=policy, max_steps=4, kl_sample=1.0, learning_rate=1e-2)
    trainer.train()
    lines = records(trainer)
    assert lines[0]["kl"] == pytest.approx(0.0, abs=1e-7)
    assert lines[-1]["kl"] > 1e-5
    now = dict(trainer.model.named_parameters())
    assert all((now[name] == value).all() for name, value in base.items())
    assert any(p.abs().max() > 0 for name, p in now.items() if "lora_B" in name)
    assert all(line["sft_norm"] > 0 and line["grpo_norm"] is not None for line in lines)


def test_weights_that_train_in_float16_are_refused(model, tokenizer, prompts, tmp_path):
    args = hybrid_args(tmp_path)
    with pytest.raises(ConfigError, match="float16"):
        HybridTrainer(model.half(), reward, args, prompts, processing_class=tokenizer, controller=GRPOOnly())


def test_contradictions_are_refused_before_anything_loads(model, tokenizer, prompts, tmp_path):
    with pytest.raises(ConfigError, match="no demonstrations"):
        HybridTrainer(model, reward, hybrid_args(tmp_path), prompts, processing_class=tokenizer, controller=SFTOnly())
    with pytest.raises(ConfigError, match="save_only_model: resuming would start the optimizer"):
        HybridTrainer(model, reward, hybrid_args(tmp_path, save_only_model=True), prompts, processing_class=tokenizer)
    with pytest.raises(ConfigError, match="KL is never measured"):
        HybridTrainer(
            model,
            reward,
            hybrid_args(tmp_path, kl_sample=0.0),
            prompts,
            processing_class=tokenizer,
            demonstrations=[{"prompt": "a", "completion": "b"}],
            controller=SASR(kl_target=0.1),
        )


def test_recorded_rollouts_can_be_read_back(build, tmp_path):
    from posttrain.rundir.completions import read_completions

    trainer = build(GRPOOnly(), max_steps=1)
    trainer.train()
    rows = read_completions(tmp_path / "completions" / "step-000001.parquet")
    assert len(rows) == 8
    assert {"prompt", "completion", "advantage", "reward/reward", "note", "truncated"} <= set(rows[0])
    assert [row["prompt"] for row in rows[:4]] == [rows[0]["prompt"]] * 4


def test_rollouts_are_recorded_at_the_first_generation_that_is_due(build, tmp_path):
    """Generations happen in steps 1, 3, 5, 7 only; every second step is to be recorded."""
    trainer = build(GRPOOnly(), max_steps=8, per_device_train_batch_size=4, steps_per_generation=2, completions_every=2)
    trainer.train()
    assert sorted(path.name for path in (tmp_path / "completions").iterdir()) == [
        f"step-00000{step}.parquet" for step in (1, 3, 5, 7)
    ]


def test_the_reference_of_a_kl_penalty_is_the_policy_that_was_handed_in(build, model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    trainer = build(GRPOOnly(), beta=0.1, max_steps=1)
    for a, b in zip(trainer.ref_model.parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b)
    trainer.train()
    assert trainer.state.log_history[0]["kl"] == pytest.approx(0.0, abs=1e-7)


def test_tokenised_demonstrations_may_be_a_plain_list(build, model, tokenizer, prompts, tmp_path):
    rows = [{"input_ids": [5, 6, 7, 8], "labels": [-100, -100, 7, 8]}] * 8
    trainer = HybridTrainer(
        model,
        reward,
        hybrid_args(tmp_path, max_steps=2),
        prompts,
        processing_class=tokenizer,
        demonstrations=rows,
        controller=SFTOnly(),
    )
    trainer.train()
    assert [line["tokens"]["sft"] for line in records(trainer)] == [16, 16]


@pytest.mark.parametrize(
    ("mix", "demonstrated", "message"),
    [
        (Mix(0.1, 0.0), True, "stands alone has weight 1"),
        (Mix(0.0, 0.0), True, "stands alone has weight 1"),
        (Mix(1.5, 0.5), True, r"weights in \[0, 1\]"),
        (Mix(1.0, 0.0), False, "demonstrations to train on"),
    ],
)
def test_a_mix_that_cannot_be_carried_out_as_it_reads_is_refused(mix, demonstrated, message):
    with pytest.raises(ConfigError, match=message):
        check_mix(mix, has_demonstrations=demonstrated)


def test_demonstrations_are_rendered_by_the_arguments_that_prompts_are_rendered_by(model, tokenizer, tmp_path):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = (
        "{% if quiet %}#{% endif %}{% for m in messages %}[{{ m.role[0] }}]{{ m.content }}"
        "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}[a]{% endif %}"
    )
    chat = [{"prompt": [{"role": "user", "content": "1"}], "completion": [{"role": "assistant", "content": "2"}]}] * 8
    trainer = HybridTrainer(
        model,
        reward,
        hybrid_args(tmp_path, chat_template_kwargs={"quiet": True}),
        Dataset.from_list([{"prompt": chat[0]["prompt"], "answer": "2"}] * 25),
        processing_class=tokenizer,
        demonstrations=chat,
        controller=SFTOnly(),
    )
    assert tokenizer.decode(trainer.sft._rows[0]["input_ids"]) == "#[u]1[a]2<|end|>"
