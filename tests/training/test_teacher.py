"""RLSD and SDPG on real steps: what the teacher is shown, what it says, the gradient by hand, and both ends."""

from __future__ import annotations

import copy
import shutil
import warnings

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma2ForCausalLM

from posttrain.errors import ConfigError, DataError
from posttrain.inputs.shown import contexts
from posttrain.methods import RLSD
from posttrain.models.load import build_model
from posttrain.training.full_kl import full_kl
from posttrain.training.teacher import NAME
from posttrain.training.trainer import HybridTrainer
from tests.training.conftest import ROWS, StopAt, hybrid_args
from tests.training.test_methods import LARGE, moved, off, row, solved, trained

METHODS = {
    "rlsd": RLSD(clip=0.1),
    "sdpg": RLSD(share=0.0, teacher_kl=0.5),
    "both": RLSD(share=0.8, clip=0.05, teacher_kl=0.2, context="{demonstration} {prompt}"),
}
TEMPERATURE = 0.7


def scores(model, prompt, ids):
    """(tokens, vocabulary) log-probabilities at the temperature of sampling."""
    logits = model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
    return (logits / TEMPERATURE).log_softmax(-1)


def by_hand(trainer, model, method, tokenizer):
    """The first step's loss, and the weights of the tokens, from single rows without padding."""
    share, pairs, loss, seen = trainer._share, trainer.pairs, torch.zeros(()), []
    rows = [row(share, place) for place in range(len(share["completion_ids"]))]
    tokens = sum(len(ids) for _, ids in rows)
    for place, (prompt, ids) in enumerate(rows):
        own, advantage = scores(model, prompt, ids), float(share["advantages"][place])
        logps = own[range(len(ids)), ids]
        weights = torch.ones(len(ids))
        if (number := int(share["demonstration"][place])) >= 0:
            shown = pairs.rows[number]
            text = method.context.format(prompt=shown["prompt"], demonstration=shown["completion"])
            with torch.no_grad():
                teacher = scores(model, tokenizer(text)["input_ids"], ids)
            ratio = teacher[range(len(ids)), ids].exp() / logps.detach().exp()
            ratio = ratio if advantage > 0 else 1 / ratio
            weights = (1 - method.share) + method.share * ratio.clip(1 - method.clip, 1 + method.clip)
            loss = loss + method.teacher_kl * (own.exp() * (own - teacher)).sum() / tokens
            seen += weights.tolist() if advantage else []
        loss = loss - (advantage * weights * logps).sum() / tokens
    return loss, seen


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
def test_the_gradient_is_the_one_by_hand(name, packed, model, tokenizer, prompts, demonstrations, tmp_path):
    method = METHODS[name]
    some = demonstrations.select(range(0, 25, 2))  # of half the prompts
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer, start = trained(
            model, tokenizer, prompts, some, tmp_path, method,
            packed=packed, per_device_train_batch_size=32, temperature=TEMPERATURE,
        )  # fmt: skip
    assert len(trainer.last_record["method"]["groups"]) == 2
    loss, weights = by_hand(trainer, start, method, tokenizer)
    loss.backward()
    expected = torch.cat([p.grad.flatten() for p in start.parameters()])
    assert off(moved(trainer, start), expected) < 1e-5
    record = trainer.last_record["method"]
    assert record["teacher_share"] == pytest.approx(method.share)
    if method.share:
        mean = sum(weights) / len(weights)
        assert record["teacher_weight"] == pytest.approx(mean, abs=1e-5)
        assert 0.0 < record["teacher_clipped"] <= 1.0
    assert (record["teacher_kl"] or 0.0) > 0.0 or not method.teacher_kl


def test_the_kl_is_over_the_whole_vocabulary_and_leaves_the_teacher_alone():
    torch.manual_seed(0)
    policy, teacher, weight, bias = (torch.randn(shape).requires_grad_() for shape in ((5, 3), (5, 3), (7, 3), (7,)))
    found = full_kl(policy, teacher, weight, bias, 0.7)
    p, q = (((hidden @ weight.T + bias) / 0.7).softmax(-1) for hidden in (policy, teacher))
    expected = (p * (p / q.detach()).log()).sum(-1)
    assert torch.allclose(found, expected, atol=1e-6)
    assert full_kl(policy, policy, weight, bias, 0.7).abs().max() < 1e-6
    of_weight = torch.autograd.grad(found.sum(), [policy, weight], retain_graph=True)
    assert torch.autograd.grad(found.sum(), teacher, allow_unused=True) == (None,)
    for one, other in zip(of_weight, torch.autograd.grad(expected.sum(), [policy, weight]), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_an_adapter_has_the_gradient_of_the_kl(model, tokenizer, prompts, demonstrations, tmp_path):
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    method = METHODS["sdpg"]
    trainer, start = trained(
        adapted, tokenizer, prompts, demonstrations, tmp_path, method,
        per_device_train_batch_size=8, gradient_accumulation_steps=2, temperature=TEMPERATURE,
    )  # fmt: skip
    loss, _ = by_hand(trainer, start, method, tokenizer)
    loss.backward()
    expected = torch.cat([p.grad.flatten() for p in start.parameters() if p.requires_grad])
    pairs = zip(start.parameters(), trainer.model.parameters(), strict=True)
    found = torch.cat([(one - other).detach().flatten() for one, other in pairs if one.requires_grad])
    assert off(found / LARGE, expected) < 1e-5


def test_what_the_teacher_says_is_of_the_policy_that_sampled(model, tokenizer, prompts, demonstrations, tmp_path):
    """In a window of two optimizer steps the second looks at the column of the first."""
    settings = {"max_steps": 2, "steps_per_generation": 2, "per_device_train_batch_size": 16}
    trainer, start = trained(model, tokenizer, prompts, demonstrations, tmp_path, RLSD(), **settings)
    share = trainer._share
    checked = 0
    for place in range(len(share["completion_ids"])):
        said = share[NAME][place]
        assert said.isnan().all() == (float(share["advantages"][place]) == 0.0)
        if said.isnan().all():
            continue
        _, ids = row(share, place)
        shown = trainer.pairs.rows[int(share["demonstration"][place])]
        text = f"A right answer:\n{shown['completion']}\n\n{shown['prompt']}"
        logits = start(torch.tensor([[*tokenizer(text)["input_ids"], *ids]])).logits[0, -len(ids) - 1 : -1]
        torch.testing.assert_close(said[: len(ids)], logits.log_softmax(-1)[range(len(ids)), ids], atol=1e-5, rtol=0)
        checked += 1
    assert checked
    assert trainer.last_record["method"]["teacher_share"] == pytest.approx(0.49)


def test_behind_its_last_step_it_is_grpo_to_the_last_bit(
    model_folder, model, tokenizer, prompts, demonstrations, tmp_path
):
    def trainer(folder, model, method, **more):
        args = hybrid_args(folder, max_steps=3, save_strategy="no")
        return HybridTrainer(
            model, solved, args, prompts, processing_class=tokenizer, demonstrations=demonstrations,
            controller="grpo_only", method=method, **more,
        )  # fmt: skip

    first = trainer(tmp_path / "rlsd", copy.deepcopy(model), RLSD(fades_in=1), callbacks=[StopAt(1)])
    first.train()
    shutil.copytree(tmp_path / "rlsd", tmp_path / "grpo")
    ended = []
    for name, method in (("rlsd", RLSD(fades_in=1)), ("grpo", None)):
        ended.append(trainer(tmp_path / name, AutoModelForCausalLM.from_pretrained(model_folder), method))
        ended[-1].train(resume_from_checkpoint=True)
    for one, other in zip(ended[0].model.parameters(), ended[1].model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert ended[0].last_record["method"]["teacher_share"] == 0.0
    assert NAME not in ended[0]._share


def test_rollouts_of_a_prompt_without_a_demonstration_keep_their_advantage(
    model, tokenizer, prompts, demonstrations, tmp_path
):
    with pytest.warns(UserWarning, match="1 of 25 prompts have a demonstration"):
        trainer, start = trained(model, tokenizer, prompts, demonstrations.select([24]), tmp_path, RLSD(), seed=8)
    assert trainer.last_record["method"]["groups"] == {"no demonstration: GRPO": 2}
    alone = HybridTrainer(
        copy.deepcopy(model),
        solved,
        hybrid_args(tmp_path, max_steps=1, optim="sgd", learning_rate=LARGE, max_grad_norm=0.0, seed=8),
        prompts,
        processing_class=tokenizer,
        controller="grpo_only",
    )
    alone.train()
    assert torch.equal(moved(trainer, start), moved(alone, start))


def test_a_chat_has_the_demonstration_in_its_last_message(tokenizer):
    chat = copy.deepcopy(tokenizer)
    chat.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
    )
    prompt = [{"role": "system", "content": "plus"}, {"role": "user", "content": "1 plus {demonstration} is"}]
    rows = [{"prompt": prompt, "completion": [{"role": "assistant", "content": " {prompt} 2."}]}]
    (ids,) = contexts(rows, "{prompt}: {demonstration}", chat, {})
    assert chat.decode(ids) == "<system>plus<user>1 plus {demonstration} is:  {prompt} 2.<a>"
    rows[0]["completion"][0]["content"] = [{"type": "text", "text": "2"}]
    with pytest.raises(DataError, match="a teacher cannot be shown a demonstration"):
        contexts(rows, "{prompt}: {demonstration}", chat, {})


def test_a_context_beyond_the_models_positions_is_counted_or_refused_and_never_cut(tokenizer, prompts, tmp_path):
    long = [{**row, "completion": row["completion"] + " plus" * (15 if row["answer"] > 3 else 0)} for row in ROWS]
    model = build_model(tokenizer, hidden_size=32, layers=1, heads=2, max_position_embeddings=40)
    args = hybrid_args(tmp_path, max_completion_length=24)
    method = RLSD(context="{demonstration} {prompt}")
    with pytest.warns(UserWarning, match="10 of 25 prompts .* 15 leave a teacher no positions for a completion"):
        HybridTrainer(
            model, solved, args, prompts, processing_class=tokenizer, demonstrations=Dataset.from_list(long),
            method=method,
        )  # fmt: skip
    with pytest.raises(DataError, match="with 15 demonstrations before its prompt, a completion may end beyond"):
        HybridTrainer(
            model, solved, args, prompts, processing_class=tokenizer, demonstrations=Dataset.from_list(long),
            method=RLSD(context=method.context, too_long="refuse"),
        )  # fmt: skip


def test_a_model_that_caps_its_logits_has_no_kl_to_a_teacher(tokenizer, prompts, demonstrations, tmp_path):
    config = Gemma2Config(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, head_dim=16, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"final_logit_softcapping: 30\.0, with teacher_kl"):
        HybridTrainer(
            Gemma2ForCausalLM(config), solved, hybrid_args(tmp_path), prompts, processing_class=tokenizer,
            demonstrations=demonstrations, method=RLSD(teacher_kl=0.1),
        )  # fmt: skip
