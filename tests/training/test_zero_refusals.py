"""What `HybridTrainer` refuses under DeepSpeed, which need not be installed for it: the accelerator says it is used."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
from accelerate.utils import DistributedType
from trl import GRPOTrainer

from posttrain import cli
from posttrain.controllers import SASR, Cosine, SFTOnly, Static
from posttrain.errors import ConfigError, TrainingError
from posttrain.processes import deepspeed_releases, zero
from posttrain.processes.deepspeed_releases import sound_from
from posttrain.recipe.recipe import load_recipe
from posttrain.recipe.zero import check_recipe
from posttrain.training import zero as training_zero
from posttrain.training.trainer import HybridTrainer
from tests.training.conftest import hybrid_args, reward


def accelerator(stage: int | None = 2, **more):
    kind = DistributedType.NO if stage is None else DistributedType.DEEPSPEED
    state = SimpleNamespace(deepspeed_plugin=SimpleNamespace(zero_stage=stage))
    return SimpleNamespace(distributed_type=kind, state=state, num_processes=2, **more)


@pytest.fixture
def construct(model, tokenizer, prompts, demonstrations, tmp_path, monkeypatch):
    def make(controller, stage=2, *, kl_sample=0.0, **more) -> HybridTrainer:
        monkeypatch.setattr(zero, "stage_of", lambda accelerator: stage)
        monkeypatch.setattr(training_zero, "stage_of", lambda accelerator: stage)
        return HybridTrainer(
            model=model, reward_funcs=reward, args=hybrid_args(tmp_path, kl_sample=kl_sample), train_dataset=prompts,
            demonstrations=demonstrations, controller=controller, processing_class=tokenizer, **more,
        )  # fmt: skip

    return make


@pytest.mark.parametrize(
    ("controller", "more", "said"),
    [
        (SASR(mode="blend"), {"g_warmup": 1.0}, "controller.mode: blend, under DeepSpeed"),
        (SASR(mode="blend", match_norms=True), {"g_warmup": 1.0}, "controller.mode: blend"),
        (Static(mode="blend", sft_share=0.5), {}, "controller.mode: blend"),
        (Cosine(mode="blend"), {}, "controller.mode: blend"),
        (SASR(refresh_every=5), {"g_warmup": 1.0}, "controller.refresh_every: 5, under DeepSpeed"),
        (SASR(), {}, "controller.g_warmup: no g_warmup, so that it would have to be measured"),
        (
            SASR(),
            {"g_warmup": 1.0, "kl_sample": 0.5, "stage": 3},
            "kl_sample: the KL to the starting policy under ZeRO",
        ),
        (SFTOnly(), {"stage": 0}, "zero_stage: DeepSpeed without ZeRO, which gives no gradient norm"),
    ],
)
def test_refused(controller, more, said, construct):
    with pytest.raises(ConfigError, match=said) as caught:
        construct(controller, **more)
    assert "--config " in str(caught.value)  # what would work
    construct(controller, **{**more, "stage": None})  # and does, without DeepSpeed


@pytest.mark.parametrize(
    ("controller", "more"),
    [
        (SASR(), {"g_warmup": 1.0}),
        (SASR(g_warmup=1.0), {}),
        (SASR(), {"g_warmup": 1.0, "kl_sample": 0.5}),
        (Static(mode="blend", sft_share=1.0), {}),
        (Static(), {"stage": 3}),
    ],
)
def test_allowed(controller, more, construct):
    construct(controller, **more)


RECIPE = "model: m\ntask: knights_knaves\n"


@pytest.mark.parametrize(
    ("stage", "overrides", "said"),
    [
        (2, [], []),
        (3, [], ["hybrid.kl.sample (default): the KL"]),
        (3, ["hybrid.kl.sample=0"], []),
        (3, ["hybrid.controller=sft_only"], []),
        (3, ["hybrid.steps=0", "hybrid.controller={name: sasr, mode: blend}"], []),
        (2, ["hybrid.controller={name: sasr, mode: blend, refresh_every: 3}"], ["mode: blend", "refresh_every: 3"]),
        (2, ["hybrid.controller=chord"], ["chord, a blend, under DeepSpeed", "one loss a step"]),
        (2, ["hybrid.controller=switch"], []),
        (2, ["hybrid.method={name: rlsd, teacher_kl: 0.1}"], ["hybrid.method", "teacher_kl, under DeepSpeed"]),
        (2, ["hybrid.method=rlsd"], []),
    ],
)
def test_a_recipe_is_refused_before_its_warm_up(stage, overrides, said, tmp_path):
    (tmp_path / "r.yaml").write_text(RECIPE)
    recipe = load_recipe(tmp_path / "r.yaml", overrides)
    if not said:
        check_recipe(recipe, stage)
        return
    with pytest.raises(ConfigError) as caught:
        check_recipe(recipe, stage)
    assert all(part in str(caught.value) for part in said)


# ---- releases that lose gradients ----


@pytest.mark.parametrize(
    ("version", "stage", "offloads", "sound"),
    [
        ("0.16.9", 2, False, None), ("0.17.5", 2, False, None), ("0.17.6", 2, False, "0.18.3"),
        ("0.18.2", 2, False, "0.18.3"), ("0.18.3", 2, False, None), ("0.19.8", 2, False, None),
        ("0.17.6", 1, False, None), ("0.17.6", 3, True, None), ("0.18.9", 2, True, "0.19.0"),
        ("0.16.0", 1, True, "0.19.0"), ("0.19.0", 2, True, None), ("0.18.2+abc", 2, False, "0.18.3"),
        ("of my own", 2, True, None),
    ],
)  # fmt: skip
def test_releases_of_deepspeed(version, stage, offloads, sound):
    assert sound_from(version, stage, offloads=offloads) == sound


@pytest.fixture
def old_deepspeed(monkeypatch):
    monkeypatch.setattr(deepspeed_releases, "installed_version", lambda: "0.18.2")


def test_a_recipe_that_accumulates_is_refused_on_a_release_that_loses_gradients(tmp_path, old_deepspeed):
    (tmp_path / "r.yaml").write_text(RECIPE)
    several = ["warmup.gradient_accumulation_steps=2", "hybrid.gradient_accumulation_steps=4"]
    recipe = load_recipe(tmp_path / "r.yaml", several)
    with pytest.raises(ConfigError) as caught:
        check_recipe(recipe, 2)
    said = str(caught.value)
    assert "2 under ZeRO-2 in DeepSpeed 0.18.2, which loses gradients" in said
    assert "4 under ZeRO-2 in DeepSpeed 0.18.2, which loses gradients" in said
    assert "deepspeed>=0.18.3" in said
    check_recipe(load_recipe(tmp_path / "r.yaml", ["hybrid.kl.sample=0", *several]), 3)
    check_recipe(load_recipe(tmp_path / "r.yaml", []), 2)
    with pytest.raises(ConfigError, match=r"ZeRO-1 with its optimizer on the CPU(.|\n)*0\.19\.0 or newer"):
        check_recipe(recipe, 1, offloads=True)


@pytest.mark.parametrize("device", ["none", "cpu"])
def test_a_trainer_asks_what_deepspeed_was_given(device, old_deepspeed):
    """As a file of DeepSpeed's own says it, of which the launcher sets no variable."""
    given = accelerator(2 if device == "none" else 1)
    given.state.deepspeed_plugin.deepspeed_config = {"zero_optimization": {"offload_optimizer": {"device": device}}}
    zero.check_gives_norms(given, accumulation=1)
    with pytest.raises(ConfigError, match="loses gradients of some of these micro-batches") as caught:
        zero.check_gives_norms(given, accumulation=4)
    assert caught.value.where == "gradient_accumulation_steps"


def test_run_asks_what_the_launcher_set(tmp_path, monkeypatch, capsys):
    (tmp_path / "r.yaml").write_text(RECIPE)
    for name, value in {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["run", str(tmp_path / "r.yaml"), "hybrid.per_device_train_batch_size=8"]) == 2
    assert "the KL to the starting policy under ZeRO-3" in capsys.readouterr().err


def test_the_stage_is_the_plugin_s():
    assert [zero.stage_of(accelerator(stage)) for stage in (None, 0, 3)] == [None, 0, 3]


@pytest.mark.parametrize("norm", [math.nan, math.inf])
def test_a_step_that_deepspeed_took_on_a_bad_gradient_ends_the_run(norm):
    taken = accelerator(2, optimizer_step_was_skipped=False)
    said = r"step 7: the gradient's norm is (nan|inf), and DeepSpeed has stepped on it"
    with pytest.raises(TrainingError, match=said) as caught:
        zero.check_step(taken, norm, step=7)
    assert caught.value.shared
    zero.check_step(taken, 3.5, step=7)
    zero.check_step(accelerator(2, optimizer_step_was_skipped=True), norm, step=7)
    zero.check_step(accelerator(None, optimizer_step_was_skipped=False), norm, step=7)


@pytest.mark.parametrize("norm", [None, 2.5])
def test_a_norm_that_deepspeed_does_not_tell(norm, construct, monkeypatch):
    """Its engine gives a float, or None where it left a step out; a tensor is TRL's usual."""
    made = construct(SFTOnly(), stage=None)
    monkeypatch.setattr(GRPOTrainer, "_get_grad_norm", lambda self, model, grad_norm=None: norm)
    made.train()
    record = made.last_record
    assert record["step"] == 4
    assert (record["grad_norm"], record["sft_norm"]) == (norm, norm)
