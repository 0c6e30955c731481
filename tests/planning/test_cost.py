"""Counts of work against what real models do, and the cost model against measurements that it was not fitted to."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
)
from trl.trainer.utils import add_fused_lm_head

from posttrain.errors import ConfigError, DataError
from posttrain.models.cost_counts import (
    ModelShape,
    Passes,
    StepWork,
    decode_counts,
    memory_counts,
    pass_counts,
    sft_passes,
    time_counts,
    training_passes,
)
from posttrain.planning.cost import (
    COEFFICIENTS,
    HELD,
    CostModel,
    Measured,
    coefficients_of,
    leave_one_out,
    read_measured,
)
from posttrain.planning.least_squares import nonnegative_least_squares
from posttrain.planning.work import Assumed
from posttrain.training.window.plan import Limits, Row, plan_step, positions

SHIPPED = Path(__file__).parents[2] / "benchmarks" / "results" / "scaling.json"

SIZES = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip
CONFIGS = [
    LlamaConfig(**SIZES, tie_word_embeddings=True),
    LlamaConfig(**SIZES, tie_word_embeddings=False, head_dim=16),
    LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True),
    MistralConfig(**SIZES),
    Qwen2Config(**SIZES, tie_word_embeddings=True),
    Qwen3Config(**SIZES, head_dim=12),
]


def shape(**changes) -> ModelShape:
    base = ModelShape.of(LlamaConfig(**SIZES, tie_word_embeddings=True))
    return replace(base, **changes)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)
def test_parameters_are_those_of_the_real_model(config):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert ModelShape.of(config).parameters == model.num_parameters()


@pytest.mark.parametrize("config", [MixtralConfig, Qwen3MoeConfig, DeepseekV3Config])
def test_a_mixture_of_experts_is_refused(config):
    with pytest.raises(ConfigError, match=r"experts=\d+"):
        ModelShape.of(config(**SIZES))


def test_a_config_of_another_kind_needs_only_its_attributes():
    plain = SimpleNamespace(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=100, model_type="gpt2"
    )
    one = ModelShape.of(plain)
    assert (one.intermediate, one.kv_heads, one.head_dim, one.gated) == (256, 4, 16, False)
    assert one.linear_weights == 2 * (4 * 64 * 64 + 2 * 64 * 256)


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("config", [CONFIGS[0], CONFIGS[5]], ids=["llama", "qwen3"])
def test_operations_are_those_that_torch_counts(config, backward):
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config)
    add_fused_lm_head(model)
    rows, length = 2, 10
    ids = torch.ones(rows, length, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        logps = model(ids, labels=ids, fused_lm_head=True).log_probs
        if backward:
            logps.sum().backward()
    counts = pass_counts(
        ModelShape.of(config), Passes(rows * length, rows * (length - 1), rows * length**2, 1, rows), backward=backward
    )
    rotary = 2 * config.head_dim // 2 * length  # angles: an outer product
    # Two of the head's products are addmm_ in place, which torch's counter does not know
    unseen = 2 * 2 * config.hidden_size * config.vocab_size * rows * (length - 1) if backward else 0
    assert counter.get_total_flops() == counts["matrix"] + counts["attention"] + rotary - unseen


def test_checkpointing_repeats_the_layers_and_not_the_head():
    passes = Passes(10, 10, 100, 1, 1)
    plain, again = (pass_counts(shape(), passes, backward=True, checkpointing=each) for each in (False, True))
    forward = pass_counts(shape(), passes, backward=False)
    assert again["attention"] - plain["attention"] == forward["attention"]
    assert again["matrix"] - plain["matrix"] == 2 * shape().linear_weights * 10
    assert again["logits"] == plain["logits"] == 4 * forward["logits"]


def test_decoding_counts_every_token_before_every_token():
    lengths, prompt, one = [3, 5, 10], 7, shape()
    mean = sum(lengths) / 3
    spread = math.sqrt(sum((n - mean) ** 2 for n in lengths) / 3) / mean
    counts = decode_counts(one, StepWork(rows=3, prompt=prompt, completion=mean, spread=spread, longest=10))
    before = sum(prompt + token + 0.5 for n in lengths for token in range(n))
    assert counts["cache"] == pytest.approx(4 * 2 * one.layers * one.kv_heads * one.head_dim * before)
    assert counts["calls"] == one.layers * 10
    assert counts["weights"] == one.parameters * 4 * 10


def test_packed_positions_are_those_of_the_plan():
    lengths = [5, 9, 14, 20] * 4
    rows = [Row(number, number // 4, 12, length, number >= 8) for number, length in enumerate(lengths)]
    plan = plan_step(rows, Limits(1, 4, 4, 4 * (12 + 20), packed=True))[0]
    counted = sum(positions([rows[number] for number in of], packed=True) for of in plan)
    work = StepWork(rows=16, group=4, prompt=12, completion=12, longest=20, dropped=0.5, micro_batch=4)
    passes = training_passes(work)
    assert passes.positions == counted == 2 * 12 + 2 * 48
    assert training_passes(replace(work, packed=False)).positions == 16 * 32
    assert math.ceil(passes.calls) == sum(map(bool, plan))


def test_memory_of_weights_gradients_and_moments():
    known, _ = memory_counts("training", shape(), StepWork(rows=4, prompt=8, completion=8))
    assert known == {
        "weights": 4 * shape().parameters, "gradients": 4 * shape().parameters, "optimizer": 8 * shape().parameters,
    }  # fmt: skip
    adapter, _ = memory_counts("training", shape(), StepWork(rows=4, weight_bytes=2, trainable=100))
    assert adapter == {"weights": 2 * shape().parameters, "gradients": 200, "optimizer": 800}


def test_least_squares_without_negatives():
    source = np.random.default_rng(0)
    for _ in range(50):
        matrix, wanted = source.normal(size=(9, 4)), source.normal(size=9)
        found = nonnegative_least_squares(matrix, wanted)
        # The one minimum: no slope along what is free, none downhill along what is bound
        slope = matrix.T @ (matrix @ found - wanted)
        assert (found >= 0).all()
        assert np.abs(slope[found > 0]).max(initial=0.0) < 1e-8
        assert slope[found == 0].min(initial=0.0) > -1e-8


def made_up(part: str, number: int) -> tuple[ModelShape, StepWork]:
    source = np.random.default_rng(number)
    hidden = int(source.integers(1, 9)) * 32
    one = shape(layers=int(source.integers(2, 9)), hidden=hidden, intermediate=int(source.integers(2, 5)) * hidden)
    work = StepWork(
        rows=int(source.integers(1, 9)) * 8, group=8, prompt=float(source.integers(9, 300)), micro_batch=8,
        completion=float(source.integers(9, 300)), logprob_rows=8 * number, demonstrations=8 * number,
        demonstration=float(source.integers(9, 300)),
    )  # fmt: skip
    return one, work


def test_a_fit_finds_the_coefficients_that_made_the_points():
    made = {"matrix": 2e-11, "attention": 5e-11, "elements": 1e-9, "logits": 3e-9, "spans": 1e-5, "calls": 1e-4}
    points = []
    for number in range(1, 12):
        one, work = made_up("training", number)
        seconds = sum(made[name] * count for name, count in time_counts("training", one, work).items())
        points.append(Measured(part="training", shape=one, work=work, seconds=seconds))
    model = CostModel.fit(points, machine="none")
    assert model.coefficients["training"] == pytest.approx(made, rel=1e-3)
    assert CostModel.from_json(model.to_json()) == model


def test_padded_passes_keep_more_of_a_position_and_are_not_what_seconds_are_fitted_to():
    one, work = made_up("training", 1)
    points = [
        Measured(part="training", shape=one, work=replace(work, packed=packed), seconds=seconds, peak=peak)
        for packed, seconds, peak in ((True, 1.0, 10**9), (False, 500.0, 3 * 10**9))
    ]
    model = CostModel.fit(points)
    predicted = [model.predict(one, replace(work, packed=packed)) for packed in (True, False)]
    assert predicted[0].seconds["training"] == pytest.approx(1.0)
    assert 1.0 < predicted[1].seconds["training"] < 50.0
    assert [each.peak_bytes for each in predicted] == pytest.approx([10**9, 3 * 10**9], rel=1e-6)


def test_padded_demonstrations_are_as_long_as_the_longest_beside_them(measured):
    work = StepWork(demonstrations=8, demonstration=100.0, demonstration_batch=4, labels=0.5)
    padded = replace(work, packed=False, demonstration_width=170.0)
    assert (sft_passes(work).positions, sft_passes(padded).positions) == (800.0, 1360.0)
    model = CostModel.fit(measured)
    packed, more = (model.predict(measured[0].shape, each) for each in (work, padded))
    assert more.seconds["sft"] > 1.5 * packed.seconds["sft"]
    assert more.peak_bytes > packed.peak_bytes


def test_the_longest_of_a_few_demonstrations():
    assumed = Assumed(0.0, 2.0, 1.0, 0.0, 0.0, (3, 1, 2))
    assert assumed.widest(1) == pytest.approx(2.0)
    pairs = [max(one, other) for one in (1, 2, 3) for other in (1, 2, 3)]
    assert assumed.widest(2) == pytest.approx(sum(pairs) / len(pairs))
    assert replace(assumed, demonstrations=()).widest(2) == 2.0


@pytest.mark.parametrize("seconds", [0.0, math.nan])
def test_a_point_without_seconds_is_refused(seconds):
    one, work = made_up("training", 1)
    with pytest.raises(DataError, match="'slow'"):
        CostModel.fit([Measured(part="training", shape=one, work=work, seconds=seconds, name="slow")])


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "other.json"
    path.write_text('{"machine": "none", "points": [{"seconds": 1}]}')
    with pytest.raises(DataError, match=r"other\.json does not hold measured points"):
        read_measured(path)


def test_loads_no_torch():
    code = "import posttrain.planning.cost, sys; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- on what was measured ----


@pytest.fixture(scope="module")
def measured() -> list[Measured]:
    return read_measured(SHIPPED)[1]


def test_a_point_left_out_is_predicted_within_a_quarter_and_of_generation_within_31_percent(measured):
    parts = {point.part for point in measured}
    assert parts == {"training", "logprobs", "optimizer", "sft", "generation"}
    off = {}
    for point, (seconds, peak) in zip(measured, leave_one_out(measured), strict=True):
        off[point.part, point.name, "seconds"] = seconds / point.seconds - 1
        if peak is not None and point.peak:
            off[point.part, point.name, "peak"] = peak / point.peak - 1
    most = {key: 0.31 if key[0] == "generation" else 0.25 for key in off}
    assert {key: f"{error:+.0%}" for key, error in off.items() if abs(error) > most[key]} == {}


def test_far_fewer_coefficients_than_points(measured):
    model = CostModel.fit(measured)
    for name, coefficients in model.coefficients.items():
        names = HELD if name.endswith(" memory") else COEFFICIENTS
        of = name.removesuffix(" memory")
        points = [each for each in measured if coefficients_of(each.part, each.work, names) == of]
        assert sum(value > 0 for value in coefficients.values()) <= len(points) / 2, name


def test_more_work_never_takes_less(measured):
    model = CostModel.fit(measured)
    one = measured[0].shape
    work = StepWork(
        rows=32, group=8, prompt=100, completion=200, spread=0.5, longest=400, micro_batch=8, logprob_rows=8,
        demonstrations=8, demonstration=200, reward_seconds=0.01,
    )  # fmt: skip
    base = model.predict(one, work)
    assert all(value > 0 for value in base.seconds.values())
    for changes in (
        {"rows": 64}, {"prompt": 200}, {"completion": 300}, {"spread": 0.9},
        {"logprob_rows": 16}, {"demonstrations": 16}, {"demonstration": 400}, {"checkpointing": True},
        {"reward_seconds": 0.02},
    ):  # fmt: skip
        more = model.predict(one, replace(work, **changes))
        assert all(more.seconds[part] >= value - 1e-12 for part, value in base.seconds.items()), changes
    # Passes may have as many positions as padded ones would, so that longer rows can mean fewer passes
    assert model.predict(one, replace(work, longest=800)).seconds["decode"] > base.seconds["decode"]
    fewer = model.predict(one, replace(work, dropped=0.5))
    assert fewer.seconds["training"] < base.seconds["training"]
    larger = model.predict(replace(one, layers=2 * one.layers, parameters=2 * one.parameters), work)
    assert larger.total_seconds > base.total_seconds
    assert larger.peak_bytes > base.peak_bytes


def test_what_was_not_measured_is_not_known(measured):
    model = CostModel.fit([each for each in measured if each.part == "training"])
    predicted = model.predict(measured[0].shape, measured[0].work)
    assert predicted.seconds["training"] > 0
    assert predicted.seconds["sft"] == 0
    assert math.isnan(predicted.seconds["decode"])
    assert math.isnan(predicted.total_seconds)
