"""What `posttrain plan` counts, against counts by hand, real tensors and the run's own decisions."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from posttrain.inputs.inputs import policy_options
from posttrain.models.load import build_model, load_policy, train_tokenizer
from posttrain.models.snapshot import PolicySnapshot
from posttrain.planning.amounts import Range
from posttrain.planning.lengths import evenly, texts_of
from posttrain.planning.machine import Machine, visible
from posttrain.planning.memory import FILLED, GIB, held, memory_of, needed
from posttrain.planning.model_facts import config_of, describe_model
from posttrain.planning.seconds import shipped
from posttrain.tasks import TaskData
from tests.planning.plans import GRPO_ONLY, TINY, digit_tokenizer, large, numbers, recipe, rows_of

CPU = Machine(device="cpu", memory=8 * GIB)


# ---- amounts ----


def test_amounts_by_hand() -> None:
    some = recipe(
        warmup={"steps": 25, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
        hybrid={
            "steps": 30,
            "per_device_train_batch_size": 8,
            "gradient_accumulation_steps": 2,
            "controller": {"name": "sasr", "gamma": 4.0},
            "grpo": {"num_generations": 4, "max_completion_length": 50},
            "curriculum": {"samples": 3},
        },
        evaluate={"every": 10, "k": [1, 4], "samples": 4},
    )
    _, much = numbers(some, 2)
    assert much.warmup_demonstrations == 25 * 4 * 2 * 2 == 400
    assert much.warmup_passes == 1.0
    assert (much.adaptive, much.p_at_start) == (True, pytest.approx(0.2))
    assert much.sft_steps == Range(0, 30, pytest.approx(6.0))
    assert much.grpo_steps == Range(0, 30, pytest.approx(24.0))
    assert much.demonstrations_per_step == 16  # as many as the warm-up, over 2 processes
    assert much.demonstration_passes == (0.0, pytest.approx(30 * 16 / 400), pytest.approx(6 * 16 / 400))
    assert much.completions_per_step == 8 * 2 * 2 == 32
    assert much.prompts_per_step == 8
    assert much.prompt_passes == (0.0, pytest.approx(30 * 8 / 640), pytest.approx(24 * 8 / 640))
    assert much.sampled_tokens == 30 * 32 * 50
    assert much.evaluations == 1 + 1 + 2 + 1  # start, warm-up, steps 10 and 20, final
    assert much.evaluation_completions == 50 * (1 + 4)
    assert (much.curriculum_completions, much.curriculum_passes) == (3 * 640, 0)
    _, much = numbers(recipe(hybrid={"steps": 3, "curriculum": {"name": "gain_rl"}}))
    assert (much.curriculum_completions, much.curriculum_passes) == (0, 640)


def test_generations_that_serve_twice_sample_half() -> None:
    grpo = {"num_generations": 4, "num_iterations": 2, "max_completion_length": 10}
    _, much = numbers(recipe(hybrid={"steps": 6, "controller": {"name": "grpo_only"}, "grpo": grpo}))
    assert much.sampled_per_step == 4
    assert much.sampled_tokens == 6 * 4 * 10


def test_what_is_refilled_is_in_the_bound_of_what_is_sampled() -> None:
    hybrid = {"steps": 6, "controller": {"name": "grpo_only"}, "grpo": {"max_completion_length": 10}}
    _, plain = numbers(recipe(hybrid=hybrid))
    _, much = numbers(recipe(hybrid={**hybrid, "refill": {"max_batches": 3}}))
    assert much.sampled_tokens == 3 * plain.sampled_tokens == 3 * 6 * 8 * 10
    assert (much.prompts_per_step, much.prompt_passes) == (plain.prompts_per_step, plain.prompt_passes)


@pytest.mark.parametrize("seed", [0, 3])
def test_steps_of_a_fixed_share_are_those_that_will_be_drawn(seed) -> None:
    some = recipe(hybrid={"steps": 40, "controller": {"name": "static", "sft_share": 0.3}}, run={"seed": seed})
    _, much = numbers(some)
    drawn = sum(random.Random(f"{seed}:{step}").random() < 0.3 for step in range(40))
    assert (much.adaptive, much.sft_steps, much.grpo_steps) == (
        False, Range(drawn, drawn, drawn), Range(40 - drawn, 40 - drawn, 40 - drawn),
    )  # fmt: skip


def test_steps_of_other_schedules() -> None:
    taken = {}
    for name, more in (("alternate", {"sft_steps": 1, "grpo_steps": 2}), ("sft_only", {}), ("grpo_only", {})):
        _, much = numbers(recipe(hybrid={"steps": 10, "controller": {"name": name, **more}}))
        taken[name] = (much.sft_steps.most, much.grpo_steps.most, much.sft_steps.known)
    assert taken == {"alternate": (4, 6, True), "sft_only": (10, 0, True), "grpo_only": (0, 10, True)}
    for settings, sft, grpo in (
        ({"name": "switch", "at": 0.3}, (3, 3), (7, 7)),
        ({"name": "chord", "mu_peak": 1.0, "mu_valley": 0.0, "mu_decay_steps": 4}, (4, 4), (9, 9)),
        ({"name": "switch", "at": "flat", "window": 2}, (4, 10), (0, 6)),
        ({"name": "chord", "tau": 0.5}, (0, 10), (10, 10)),
        ({"name": "gac"}, (10, 10), (10, 10)),
    ):
        _, much = numbers(recipe(hybrid={"steps": 10, "controller": settings}))
        ranges = [(each.least, each.most) for each in (much.sft_steps, much.grpo_steps)]
        assert ranges == [sft, grpo], settings
        assert much.adaptive == ("tau" in settings or settings.get("at") == "flat" or settings["name"] == "gac")
    _, much = numbers(recipe(hybrid={"steps": 10, "controller": {"name": "sasr", "mode": "blend"}}))
    assert much.adaptive
    assert much.sft_steps.least == much.grpo_steps.least == 10


# ---- lengths ----


@pytest.fixture(scope="module")
def digits():
    return digit_tokenizer()


def test_truncation_by_hand(digits) -> None:
    some = recipe(
        model={"init": {"max_position_embeddings": 32}},
        warmup={"steps": 1, "max_length": 10},
        hybrid={"grpo": {"max_completion_length": 14}},
    )
    # Each completion has the end of sequence as a token more
    texts = texts_of(some, rows_of((4, 5), (4, 6), (2, 20), (12, 3)), digits, 32)
    assert texts.demonstrations
    assert texts.completions
    assert texts.prompts
    assert (texts.demonstrations.rows, texts.demonstrations.longest) == (4, 23)
    assert texts.demonstrations.mean == (10 + 11 + 23 + 16) / 4
    assert texts.demonstrations.over == 3 / 4  # 10 tokens are 10 tokens
    assert texts.completions.over == 1 / 4
    assert texts.completions.mean == (6 + 7 + 21 + 4) / 4
    assert texts.dropped == 1 / 4  # a prompt of 12 leaves nothing of its completion
    assert texts.kept == 10
    assert texts.labels == pytest.approx((6 + 6 + 8) / 30)
    assert (texts.prompts.limit, texts.prompts.longest) == (32 - 14, 20)
    assert texts.prompts.over == pytest.approx(1 / 3)
    assert [(each.prompt_tokens, each.demonstration_tokens, each.kept_tokens) for each in texts.samples] == [
        (4, 6, 6), (4, 7, 6), (2, 21, 8),
    ]  # fmt: skip


def test_samples_are_what_the_chat_template_makes_of_rows(digits) -> None:
    digits = train_tokenizer(["0123456789 user assistant <s>"], 300)
    digits.chat_template = (
        "{% for m in messages %}<s>{{ m.role }} {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}<s>assistant {% endif %}"
    )
    some = recipe(warmup={"steps": 1})
    sample = texts_of(some, rows_of((3, 2)), digits, None).samples[0]
    assert sample.prompt == "<s>user 111\n<s>assistant "
    assert sample.demonstration == "22\n"
    without, some = TaskData(train=[{"prompt": "7"}]), recipe(warmup={"steps": 0}, hybrid=GRPO_ONLY)
    sample = texts_of(
        recipe(warmup={"steps": 0}, hybrid={"controller": {"name": "grpo_only"}}), without, digits, None
    ).samples[0]
    assert (sample.prompt, sample.demonstration) == ("<s>user 7\n<s>assistant ", "")


def test_rows_are_picked_evenly() -> None:
    assert evenly(range(10), 20) == list(range(10))
    assert evenly(range(10), 4) == [0, 2, 5, 7]


# ---- memory ----


def bytes_of(tensors) -> int:
    return sum(each.numel() * each.element_size() for each in tensors)


@pytest.mark.parametrize("lora", [None, {"r": 4}])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_parts_are_the_bytes_of_a_real_model(digits, lora, dtype) -> None:
    some = recipe(
        model={**TINY, "dtype": dtype}, lora=lora, warmup={"steps": 1}, hybrid={"kl": {"sample": 0.5}, "steps": 2}
    )
    facts = describe_model(some, config_of(some, digits), on_gpu=False)
    parts = held(some, facts, CPU)

    model: Any = build_model(digits, hidden_size=16, layers=2, heads=2).to(getattr(torch, dtype))
    if lora:
        model = get_peft_model(model, LoraConfig(**some.lora.peft_kwargs()))  # type: ignore[union-attr]
    trained = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    for _ in range(2):  # of a fresh adapter, half has no gradient to speak of, but has one
        model(input_ids=torch.ones(1, 4, dtype=torch.long), labels=torch.ones(1, 4, dtype=torch.long)).loss.backward()
        optimizer.step()
    moments = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    assert parts == {
        "weights": bytes_of(model.parameters()),
        "gradients": bytes_of(each.grad for each in trained),
        "optimizer": bytes_of(moments),
        "KL snapshot": bytes_of(PolicySnapshot(model)._values.values()),
    }


@pytest.mark.parametrize("nested", [False, True])
def test_weights_in_4_bits_are_counted_with_their_scales(tmp_path, digits, nested) -> None:
    sizes = {"hidden_size": 256, "layers": 2, "heads": 2}
    some = recipe(
        model={"init": sizes, "load_in_4bit": True, "use_bnb_nested_quant": nested},
        lora={"r": 4}, hybrid={"kl": {"sample": 0.0}},
    )  # fmt: skip
    facts = describe_model(some, config_of(some, digits), on_gpu=False)
    build_model(digits, **sizes).save_pretrained(tmp_path)
    model = load_policy(tmp_path, **policy_options(some, on_gpu=False))
    scales = [
        each for p in model.parameters() if (state := getattr(p, "quant_state", None)) is not None
        for each in (state.absmax, *([state.state2.absmax] if nested else []))
    ]  # fmt: skip
    assert facts.base_bytes == pytest.approx(bytes_of([*model.parameters(), *scales]), rel=1e-4)
    assert facts.base_bytes < 0.3 * 4 * facts.parameters
    adapter = 4 * facts.trained
    assert held(some, facts, CPU)["weights"] == facts.base_bytes + adapter


def test_what_is_held_besides(digits) -> None:
    some = recipe(lora={"r": 4}, warmup={"steps": 0}, hybrid={"grpo": {"beta": 0.1}})
    facts = describe_model(some, config_of(some, digits), on_gpu=True)
    assert (facts.weight_bytes, facts.trained_bytes) == (2, 4)
    parts = held(some, facts, CPU)
    assert "KL snapshot" not in parts  # a fresh adapter is switched off
    assert parts["reference"] == 4 * facts.trained
    full = recipe(hybrid={"kl": {"offload": True}})
    facts = describe_model(full, config_of(full, digits), on_gpu=True)
    gpus = Machine(device="cuda", processes=4, per_node=4, config="ddp")
    parts = held(full, facts, gpus)
    assert "KL snapshot" not in parts
    assert parts["gradient buckets"] == parts["gradients"]
    sharded = held(full, facts, replace(gpus, config="fsdp2"))
    assert sharded == {name: parts[name] / 4 for name in ("weights", "gradients", "optimizer")}
    assert held(full, facts, replace(gpus, config="zero2"))["weights"] == parts["weights"]


def test_the_gpu_that_it_needs() -> None:
    facts, works = large()
    some = recipe(model="m/m", rollout={"engine": "vllm", "gpu_memory_utilization": 0.3})
    gpu = Machine(device="cuda")
    memory = memory_of(some, facts, gpu, works, shipped())
    parts = memory.moments["grpo"]
    assert list(memory.moments) == ["grpo"]  # vLLM samples in its own share
    assert parts["weights"] == 6e9
    assert memory.fits is None
    assert memory.smallest_gpu
    assert memory.smallest_gpu * GIB * (FILLED - 0.3) >= memory.peak == sum(parts.values())
    for size, fits in ((memory.smallest_gpu, True), (memory.peak / GIB / (FILLED - 0.3) - 1, False)):
        assert memory_of(some, facts, replace(gpu, gpus=(int(size * GIB),)), works, shipped()).fits is fits
    asleep = some.model_copy(update={"rollout": some.rollout.model_copy(update={"enable_sleep_mode": True})})
    assert memory_of(asleep, facts, gpu, works, shipped()).engine_share == 0
    assert needed(62.0, 0.3) == pytest.approx(100.0)
    whole = some.model_copy(
        update={"hybrid": some.hybrid.model_copy(update={"args": {"gradient_checkpointing": False}})}
    )
    kept = memory_of(whole, facts, gpu, works, shipped()).moments["grpo"]["activations"]
    # A micro-batch is 4 rows of 800 tokens; packed, 5 completions of 500 share a prompt of 300 in as many positions
    inputs = 4 * 28 * 1536 * 3200
    assert parts["activations"] == pytest.approx(inputs + kept / 28)


def test_processes_share_a_cpus_memory() -> None:
    facts, works = large()
    for count, fits in ((1, True), (4, False)):
        machine = Machine(device="cpu", processes=count, per_node=count, memory=200 * GIB)
        assert memory_of(recipe(rollout={"engine": "transformers"}), facts, machine, works, shipped()).fits is fits


def test_visible_gpus() -> None:
    gpus = [10, 20, 30]
    assert visible(gpus, {}) == (10, 20, 30)
    assert visible(gpus, {"CUDA_VISIBLE_DEVICES": "2,0"}) == (30, 10)
    assert visible(gpus, {"CUDA_VISIBLE_DEVICES": ""}) == ()
    assert visible(gpus, {"CUDA_VISIBLE_DEVICES": "1,7,0"}) == (20,)
    assert visible(gpus, {"CUDA_VISIBLE_DEVICES": "GPU-abc"}) == (10,)
