"""A real server with room for an adapter: the base travels once, then the adapter alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from transformers import AutoModelForCausalLM

from posttrain.errors import ConfigError
from posttrain.models.adapter_weights import adapter_weights
from posttrain.models.policy_weights import named_weights
from posttrain.recipe.adapter_serving import SLOW_ON_A_CPU
from posttrain.rollouts.adapters import room_on_server
from posttrain.rollouts.vllm_command import ADAPTER_ENVIRONMENT, serve_command
from posttrain.rollouts.vllm_server import ServerEngine
from tests.vllm.conftest import ENDS, change, with_lora
from tests.vllm.servers import Server
from tests.vllm.test_adapters import FLOAT32, gap


@pytest.fixture(scope="module")
def roomy(model_folder, tmp_path_factory) -> Iterator[Server]:
    server = Server(model_folder, tmp_path_factory.mktemp("roomy") / "log", lora_rank=4)
    server.start()
    yield server
    server.kill()


@pytest.mark.slow
def test_the_adapter_alone_follows_the_base(roomy, model_folder):
    policy = with_lora(AutoModelForCausalLM.from_pretrained(model_folder), target_modules="all-linear", lora_alpha=3)
    adapter = sum(tensor.nbytes for _, tensor in adapter_weights(policy))
    base = sum(tensor.nbytes for _, tensor in named_weights(policy))
    options = {"eos_token_ids": ENDS, "model": policy, "time_limit_s": 120}
    with ServerEngine(roomy.url, lora="adapter", **options) as engine:
        assert (engine.adapters.room, engine.transfer) == (8, "files")
        for update in range(3):
            change(policy, seed=update)
            engine.load(policy)
            assert engine.sent_bytes == (adapter if update else base + adapter)
            assert gap(engine, policy) < FLOAT32
        with ServerEngine(roomy.url, lora="auto", **options) as other:
            other.load(policy)
            assert (other.adapters.said, other.sent_bytes) == (SLOW_ON_A_CPU, base)
            assert gap(other, policy) < FLOAT32
        engine.load(policy)  # over whole weights of somebody else
        assert engine.sent_bytes == base + adapter
        assert gap(engine, policy) < FLOAT32
        roomy.kill()
        roomy.start()
        engine.load(policy)  # to a server that was started anew
        assert engine.sent_bytes == base + adapter
        assert gap(engine, policy) < FLOAT32
        large = with_lora(AutoModelForCausalLM.from_pretrained(model_folder), target_modules=["q_proj"], r=9)
        with pytest.raises(ConfigError, match="its rank is 9, and the engine takes 8 at most"):
            engine.load(large)


INFO = {
    "vllm_config": {"lora_config": {"max_lora_rank": 16}, "device_config": {"device": "cuda"}},
    "vllm_env": {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": True},
}


def test_what_a_server_has_room_for():
    assert room_on_server("auto", INFO) == (16, None)
    assert room_on_server("merged", INFO)[0] == 0
    on_a_cpu = INFO | {"vllm_config": INFO["vllm_config"] | {"device_config": {"device": "cpu"}}}
    assert room_on_server("auto", on_a_cpu) == (0, SLOW_ON_A_CPU)
    assert room_on_server("adapter", on_a_cpu) == (16, None)
    for lacking in ({"vllm_config": {}}, {"vllm_env": {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": False}}, {"vllm_env": None}):
        room, why = room_on_server("auto", INFO | lacking)
        assert room == 0
        assert "posttrain serve MODEL --lora-rank N" in why


def test_the_command_makes_room_where_it_is_asked_for():
    assert "--enable-lora" not in serve_command("model")
    command = serve_command("model", lora_rank=24, more=["--dtype", "bfloat16"])
    at = command.index("--enable-lora")
    assert command[at : at + 3] == ["--enable-lora", "--max-lora-rank", "32"]
    assert set(ADAPTER_ENVIRONMENT) == {"VLLM_ALLOW_RUNTIME_LORA_UPDATING"}
