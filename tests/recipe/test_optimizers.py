"""Optimizers by name: what excludes what, what each needs, and what it keeps."""

from __future__ import annotations

import pytest

from posttrain.errors import ConfigError
from posttrain.recipe.contradictions import check
from posttrain.recipe.optimizers import frugal_settings, states_of
from posttrain.recipe.recipe import load_recipe

SMALL = "model: some/model\ntask: knights_knaves\n"


def recipe(tmp_path, *overrides, more=""):
    (tmp_path / "recipe.yaml").write_text(SMALL + more)
    return load_recipe(tmp_path / "recipe.yaml", overrides)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("warmup.args.optim=schedule_free_adamw", "a constant rate: its average of the weights stands for the decay"),
        ("warmup.args.optim=galore_adamw_layerwise", "steps while gradients are computed"),
        ("hybrid.args.optim=lomo", "steps while gradients are computed"),
        ("hybrid.args.optim=galore_adamw", "without optim_target_modules"),
        ("hybrid.args={optim: frugal, optim_args: rank=4}", "optim_args rank with frugal"),
        ("hybrid.args={optim: frugal, optim_args: density=2}", "density from 0 to 1"),
        ("hybrid.args={optim_target_modules: [q_proj]}", "which has no use for it"),
    ],
)
def test_what_an_optimizer_cannot_do_is_refused(tmp_path, override, said):
    with pytest.raises(ConfigError, match=said):
        recipe(tmp_path, override)


@pytest.mark.parametrize("args", ["{optim: frugal}", "{optim: galore_adamw, optim_target_modules: [attn]}"])
def test_nothing_to_project_in_an_adapter(tmp_path, args):
    check(recipe(tmp_path, f"hybrid.args={args}"))
    with pytest.raises(ConfigError, match="nothing to project"):
        check(recipe(tmp_path, f"hybrid.args={args}", more="lora: {}\n"))


def test_schedule_free_at_a_constant_rate_in_the_warmup(tmp_path):
    constant = "warmup.lr_scheduler_type=constant"
    assert recipe(tmp_path, "warmup.args.optim=schedule_free_adamw", constant).warmup.args


def test_what_is_kept():
    size = {"trained": 1000, "linear": 800, "hidden": 256}
    assert states_of({}, **size) == 2000
    assert states_of({"optim": "sgd"}, **size) == 0
    assert states_of({"optim": "frugal"}, **size) == 2 * (200 + 200)
    assert states_of({"optim": "frugal", "optim_args": "density=1"}, **size) == 2000
    assert states_of({"optim": "galore_adamw", "optim_args": "rank=64"}, **size) == 3 * 200 + 400
    assert frugal_settings("density=0.5, update_gap=7", "optim")["update_gap"] == 7
