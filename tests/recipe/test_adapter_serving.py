"""Which adapters vLLM serves as they are, said at the end of a run, and refused by `posttrain serve`."""

from __future__ import annotations

import importlib.util
import json

import pytest
from peft import LoraConfig

from posttrain.commands.serve import check_adapters
from posttrain.errors import ConfigError
from posttrain.recipe.adapter_serving import adapter_config, flags_for, why_merged
from posttrain.rundir.layout import Layout
from posttrain.running.outcome import outcome
from tests.training.test_adapter_kinds import KINDS

AS_THEY_ARE = {
    "plain", "gaussian", "orthogonal", "random", "mica", "rslora", "one layer", "parameters",
}  # fmt: skip
REFUSED_BY_VLLM = {
    "dora", "dora on the embedding", "whole head", "whole embedding", "whole both, apart", "whole both, tied", "biases",
    "biases of its layers",
}  # fmt: skip

REFUSED_WITH_ITS_WEIGHTS = {"embedding", "velora"}


def saved(folder, **settings):
    LoraConfig(**{"r": 4, "target_modules": ["q_proj", "v_proj"], **settings}).save_pretrained(folder)
    config = adapter_config(folder)
    assert config is not None
    return config


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_its_way(kind, tmp_path):
    """As PEFT writes it down, whose defaults must not look like settings."""
    reason = why_merged(saved(tmp_path, **KINDS[kind]))
    if kind in AS_THEY_ARE:
        assert reason is None
    elif kind in REFUSED_BY_VLLM | REFUSED_WITH_ITS_WEIGHTS:
        assert reason is not None
        assert "vLLM refuses it" in reason
    else:
        assert reason is not None
        assert "serve another model" in reason


@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
@pytest.mark.parametrize("kind", KINDS)
def test_vllm_refuses_what_is_said_to_be_refused_and_no_other(kind, tmp_path):
    """Those that it takes and serves otherwise it tells nothing of, which is why they are named here."""
    from vllm.config.lora import LoRAConfig
    from vllm.lora.peft_helper import PEFTHelper

    saved(tmp_path, **KINDS[kind])
    helper = PEFTHelper.from_local_dir(str(tmp_path), None)
    if kind in REFUSED_BY_VLLM:
        with pytest.raises(ValueError, match=r"not|only supports"):
            helper.validate_legal(LoRAConfig(max_lora_rank=16))
    else:
        helper.validate_legal(LoRAConfig(max_lora_rank=16))
        read = set(vars(helper))
        assert not read & {"alpha_pattern", "rank_pattern", "lora_bias", "alora_invocation_tokens", "use_bdlora"}


def test_an_init_that_takes_part_of_the_base(tmp_path):
    assert "pissa: vLLM passes over it" in str(why_merged(saved(tmp_path) | {"init_lora_weights": "pissa"}))
    experts = saved(tmp_path, target_parameters=["mlp.experts.gate_up_proj"])
    assert "only weights of linear layers" in str(why_merged(experts))
    assert "4 bits" in str(why_merged(saved(tmp_path), four_bit=True))


@pytest.mark.parametrize(("rank", "flags"), [(16, "--enable-lora"), (24, "--enable-lora --max-lora-rank 32")])
def test_ranks_that_vllm_must_be_told_of(rank, flags):
    assert flags_for({"r": rank}) == flags


def test_the_last_lines_of_a_run_say_how_to_serve_it(tmp_path):
    saved(tmp_path / "model")
    (line,) = [each for each in outcome(Layout(tmp_path), 1.0) if "adapter" in each]
    assert f"vllm serve BASE --enable-lora --lora-modules NAME={tmp_path / 'model'}" in line
    saved(tmp_path / "model", alpha_pattern={"q_proj": 3})
    (line,) = [each for each in outcome(Layout(tmp_path), 1.0) if "adapter" in each]
    assert "vLLM cannot serve as it is (alpha_pattern: vLLM passes over it without a word" in line
    assert f"posttrain export {tmp_path} --to FOLDER --merge-lora" in line
    saved(tmp_path / "model", alora_invocation_tokens=[3])
    (line,) = [each for each in outcome(Layout(tmp_path), 1.0) if "adapter" in each]
    assert "load it with PEFT, which cannot merge it either" in line


def test_serve_refuses_adapters_that_it_would_serve_wrongly(tmp_path):
    saved(tmp_path / "plain")
    saved(tmp_path / "dora", use_dora=True)
    saved(tmp_path / "patterns", rank_pattern={"q_proj": 2})
    check_adapters("org/base", ["--enable-lora", "--lora-modules", f"one={tmp_path / 'plain'}", "--port", "1"])
    for more in (
        ["--lora-modules", f"one={tmp_path / 'plain'}", f"two={tmp_path / 'dora'}"],
        [f"--lora-modules=one={tmp_path / 'patterns'}"],
        ["--lora-modules", json.dumps({"name": "one", "path": str(tmp_path / "dora")})],
    ):
        with pytest.raises(ConfigError, match="an adapter that vLLM serves as it is") as caught:
            check_adapters("org/base", more)
        assert "--merge-lora" in str(caught.value)
    with pytest.raises(ConfigError, match="is an adapter"):
        check_adapters(str(tmp_path / "plain"), [])
