"""What becomes of each field of TRL's configs, and settings that make one stage's loss another than the other's."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import trl

from posttrain.errors import ConfigError
from posttrain.recipe.contradictions import check
from posttrain.recipe.library_fields import DECIDED_ELSEWHERE, REFUSED
from posttrain.recipe.recipe import Recipe, load_recipe
from posttrain.recipe.stage_sections import GRPOSection, HybridSection, WarmupSection
from posttrain.recipe.trl_fields import PASSED_ON, WITHOUT_EFFECT

CONFIGS = {
    "trl.SFTConfig": (trl.SFTConfig, set(WarmupSection.model_fields)),
    "trl.GRPOConfig": (trl.GRPOConfig, {*HybridSection.model_fields, *GRPOSection.model_fields}),
}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text("model: some/model\ntask: knights_knaves\n")
    return tmp_path


def load(*overrides: str) -> Recipe:
    recipe = load_recipe("recipe.yaml", overrides)
    check(recipe)
    return recipe


@pytest.mark.parametrize("config", CONFIGS)
def test_every_field_has_one_place(config):
    real, own = CONFIGS[config]
    tables = [own, DECIDED_ELSEWHERE, REFUSED, WITHOUT_EFFECT[config], PASSED_ON[config]]
    fields = {field.name for field in dataclasses.fields(real) if field.init}
    places = {name: sum(name in table for table in tables) for name in fields}
    assert {name: count for name, count in places.items() if count != 1} == {}
    assert (set(WITHOUT_EFFECT[config]) | PASSED_ON[config]) - fields == set(), "TRL has it no longer"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "warmup.args.completion_only_loss=false",
            "completion_only_loss(.|\n)*no effect: demonstrations are token ids",
        ),
        ("warmup.args.truncation_mode=keep_end", "no effect: demonstrations are token ids"),
        ("warmup.args.dataset_text_field=text", "no effect: demonstrations are token ids"),
        ("warmup.args.dataset_kwargs={skip_prepare_dataset: true}", "no effect: demonstrations are token ids"),
        ("warmup.args.train_sampling_strategy=group_by_length", "no effect: the order of the rows is the seed's"),
        ("hybrid.args.label_smoothing_factor=0.1", "no effect: the SFT half is the plain likelihood"),
        ("hybrid.args.per_device_eval_batch_size=4", "no effect: no trainer is given rows to evaluate on"),
        ("hybrid.args.dataloader_num_workers=4", "no effect: a step's rows are drawn once its mix is known"),
        ("warmup.args.packing=true", "other demonstrations than the stages count; warmup.packed"),
        ("hybrid.args.vllm_server_timeout=3", "decided by rollout.time_limit_s"),
        ("hybrid.args.optim=schedule_free_adamw", "trains at other weights than the averaged ones"),
        ("hybrid.args.optim=schedule_free_radam", "rollouts would be of another policy"),
        ("hybrid.args.optim=schedule_free_sgd", "an optimizer whose weights are the policy's"),
    ],
)
def test_what_would_do_nothing_is_refused_with_the_reason(folder, override, said):
    with pytest.raises(ConfigError, match=said) as caught:
        load(override)
    assert caught.value.where == f"command line: {override.split('=')[0]}"
    assert caught.value.fix


def test_what_is_passed_on_gets_there(folder):
    stages = load("warmup.args={dataloader_num_workers: 2}", "hybrid.args={log_completions: true}")
    assert stages.warmup.trl_kwargs()["dataloader_num_workers"] == 2
    assert stages.hybrid.trl_kwargs()["log_completions"] is True


@pytest.mark.parametrize(
    ("overrides", "where"),
    [
        (["warmup.args.loss_type=dft"], "warmup.args.loss_type"),
        (["warmup.args.label_smoothing_factor=0.1"], "warmup.args.label_smoothing_factor"),
        (["warmup.args.neftune_noise_alpha=5"], "warmup.args.neftune_noise_alpha"),
        (["hybrid.args.neftune_noise_alpha=5"], "hybrid.args.neftune_noise_alpha"),
    ],
)
def test_norms_that_are_compared_are_of_one_loss(folder, overrides, where):
    with pytest.raises(ConfigError, match="the controller sasr compares the two stages' gradient norms") as caught:
        load(*overrides)
    assert where in str(caught.value.where)
    load(*overrides, "hybrid.controller=static")
    load(*overrides, "hybrid.steps=0")
    load(*overrides, "hybrid.controller.g_warmup=2.0")


def test_the_same_noise_in_both_stages_and_the_plain_loss_by_name_are_one_loss(folder):
    load("warmup.args={neftune_noise_alpha: 5, loss_type: nll}", "hybrid.args={neftune_noise_alpha: 5}")


@pytest.mark.parametrize(
    ("overrides", "where", "said"),
    [
        (["hybrid.sft_weight=phi"], "hybrid.sft_weight", "phi, and nll in the warm-up"),
        (["warmup.sft_weight=dft"], "warmup.sft_weight", "dft, and nll in the hybrid stage"),
        (["warmup.args.loss_type=dft", "hybrid.sft_weight=phi"], "warmup.args.loss_type", "another than that"),
        (["warmup.sft_weight=clipped", "hybrid.sft_weight=clipped"], "warmup.sft_weight", "keeps none"),
        (["warmup.sft_weight=phi", "warmup.args.label_smoothing_factor=0.1"], "warmup.sft_weight", "another loss"),
        (["hybrid.sft_weight=phi", "hybrid.controller=grpo_only"], "hybrid.sft_weight", "takes no SFT steps"),
        (
            ["hybrid.sft_weight=phi", "hybrid.method=luffy"],
            "hybrid.sft_weight",
            "luffy trains on no demonstration by its likelihood",
        ),
        (["hybrid.sft_weight=clipped", "hybrid.method=hpt"], "hybrid.sft_weight", "hpt trains on a demonstration once"),
        (["hybrid.method=relift", "hybrid.controller=static"], "hybrid.method", "and so does the method relift"),
        (["hybrid.sft_window=4", "hybrid.sft_weight=nll"], "hybrid", "alone compares with an earlier policy"),
        (["hybrid.sft_weight=phii"], "hybrid.sft_weight", "phi"),
        (["hybrid.sft_tries=4"], "hybrid", "alone counts tries"),
        (["warmup.sft_tries=4", "warmup.sft_weight=js"], "warmup", "alone counts tries"),
        (["warmup.sft_weight=js", "hybrid.sft_weight=js"], "hybrid.sft_weight", "another one in each"),
        (
            ["warmup.sft_weight=dco", "warmup.sft_tries=4", "hybrid.sft_weight=dco"],
            "hybrid.sft_weight",
            "dco of 8 tries, and dco of 4 tries in the warm-up",
        ),
        (["hybrid.sft_weight=dco", "hybrid.method=hpt"], "hybrid.sft_weight", "beside its rollouts, token by token"),
        (["hybrid.sft_weight=dco", "hybrid.controller=gac"], "hybrid.sft_weight", "each token's own probability"),
    ],
)
def test_token_weights_that_cannot_be_or_would_do_nothing_are_refused(folder, overrides, where, said):
    with pytest.raises(ConfigError) as caught:
        load(*overrides)
    assert where in str(caught.value)
    assert said in str(caught.value)


def test_the_same_token_weight_in_both_stages_is_one_loss_also_by_trls_name_for_it(folder):
    stages = load("warmup.sft_weight=phi", "hybrid.sft_weight=phi")
    assert stages.hybrid.sft_weight == "phi"
    load("warmup.args.loss_type=dft", "hybrid.sft_weight=dft")
    load("hybrid.sft_weight=trust", "hybrid.controller=static")
    load("warmup.sft_weight=dco", "hybrid.sft_weight=dco")
    load("warmup.sft_weight=dco", "warmup.sft_tries=8", "hybrid.sft_weight=dco")  # 8 is the default
    load("warmup.sft_weight=js", "hybrid.sft_weight=js", "hybrid.controller=static")
    load("hybrid.sft_weight=pearson", "hybrid.method=relift", "hybrid.controller=grpo_only")
    for method in ("hpt", "uft", "relift"):
        load("hybrid.sft_weight=dft", f"hybrid.method={method}", "hybrid.controller=grpo_only")
    load("hybrid.sft_weight=clipped", "hybrid.sft_window=4", "hybrid.controller=sft_only")
