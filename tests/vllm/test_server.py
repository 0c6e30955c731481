"""A real vLLM server on a model of a few thousand weights: weights and samples, and how they travel."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM
from trl.generation.vllm_client import VLLMClient

from posttrain.errors import ConfigError, TrainingError
from posttrain.models.policy_weights import named_weights
from posttrain.processes.ranks import Ranks
from posttrain.rollouts.adapters import AdapterPart
from posttrain.rollouts.vllm import InProcessEngine, Sampling, request_seed
from posttrain.rollouts.vllm_command import chosen_transfer
from posttrain.rollouts.vllm_nccl import SERVER_FLAGS, NcclSender, takes_nccl
from posttrain.rollouts.vllm_server import ServerEngine, serve_command
from tests.vllm.conftest import ENDS, PROMPTS, change, tiny, with_lora

SEEDS = [request_seed(7, 0, place) for place in range(len(PROMPTS))]


@pytest.fixture
def policy(model_folder):
    """With an adapter that has effect from the start."""
    return with_lora(AutoModelForCausalLM.from_pretrained(model_folder), target_modules=["q_proj", "down_proj"])


def tokens(groups) -> list[list[tuple[list[int], bool]]]:
    return [[(one.token_ids, one.truncated) for one in group] for group in groups]


@pytest.mark.slow
def test_a_server_samples_like_the_engine_in_process(server, policy):
    sampling = Sampling(n=3, max_tokens=12, temperature=0.7)
    ends = {"eos_token_ids": ENDS, "time_limit_s": 60}
    with (
        ServerEngine(server.url, model=policy, **ends) as engine,
        InProcessEngine(policy, max_num_seqs=32, **ends) as here,
    ):
        assert (str(engine.dtype), engine.max_model_length, engine.transfer) == ("torch.float32", 64, "files")
        with pytest.raises(TrainingError, match="has no weights of ours"):
            engine.sample(PROMPTS, SEEDS, sampling)
        for update in range(2):
            change(policy, seed=update)
            for each in (engine, here):
                each.load(policy)
            ours, theirs = (each.sample(PROMPTS, SEEDS, sampling) for each in (here, engine))
            assert tokens(ours) == tokens(theirs)
            for group, other in zip(ours, theirs, strict=True):
                for one, same in zip(group, other, strict=True):
                    assert one.logprobs == pytest.approx(same.logprobs, abs=1e-4)
        waits = [each.begin(PROMPTS, SEEDS, sampling) for each in (engine, here)]
        assert [tokens(wait()) for wait in waits] == [tokens(theirs)] * 2
        greedy = Sampling(n=2, max_tokens=8, temperature=0.0)
        ours, theirs = (each.sample(PROMPTS, SEEDS, greedy) for each in (here, engine))
        assert tokens(ours) == tokens(theirs)

        with pytest.raises(TrainingError, match="an LM head of its own came"):
            engine.load(tiny(tied=False, vocab_size=policy.config.vocab_size))
        engine.load(policy)  # a refused update does not end the server
        with pytest.raises(ConfigError, match="--max-model-len 65"):
            ServerEngine(server.url, eos_token_ids=ENDS, max_model_length=65, time_limit_s=60)


@pytest.mark.slow
def test_over_nccl_the_client_and_the_server_meet_and_the_client_refuses_a_cpu(server, policy):
    """As far as a machine without a GPU can go: everything is asked of a real server started for NCCL."""
    client = VLLMClient(base_url=server.url)
    assert client.get_world_size() == 1
    assert takes_nccl(client.get_server_info())
    client._start_weight_update()
    client._finish_weight_update()
    client.reset_prefix_cache()
    with pytest.raises(ConfigError, match=r"weights_transfer: weights cannot go to .* over NCCL: .*'cpu'") as raised:
        ServerEngine(server.url, eos_token_ids=ENDS, model=policy, transfer="nccl", time_limit_s=60)
    assert "set files" in (raised.value.fix or "")
    with ServerEngine(server.url, eos_token_ids=ENDS, model=policy, transfer="auto", time_limit_s=60) as engine:
        assert engine.transfer == "files"
        engine.load(policy)  # the start and end of an update over NCCL did no harm
        engine.sample(PROMPTS, SEEDS, Sampling(max_tokens=2))


def test_auto_is_nccl_where_both_sides_have_it():
    for on_cuda in (True, False):
        for server in (True, False):
            chosen = chosen_transfer("auto", on_cuda=on_cuda, server_takes_nccl=server)
            assert chosen == ("nccl" if on_cuda and server else "files")
            for asked in ("files", "nccl"):
                assert chosen_transfer(asked, on_cuda=on_cuda, server_takes_nccl=server) == asked
    with pytest.raises(ConfigError, match=r"weights_transfer: 'smoke'"):
        chosen_transfer("smoke", on_cuda=True, server_takes_nccl=True)


def test_the_flag_for_nccl_is_in_the_command_where_it_is_asked_for():
    assert not set(SERVER_FLAGS) & set(serve_command("model"))
    command = serve_command("model", transfer="nccl", more=["--dtype", "bfloat16"])
    at = command.index("--weight-transfer-config")
    assert json.loads(command[at + 1]) == {"backend": "nccl"}
    assert command[-2:] == ["--dtype", "bfloat16"]


def test_what_is_announced_over_nccl_is_what_is_sent(policy):
    """TRL's client with the calls that need NCCL taken out."""
    announced, sent = [], []

    class Client:
        base_url = "http://server"

        def update_named_params(self, metadata, stream):
            announced.append(metadata)
            sent.append(
                [(name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)) for name, tensor in stream]
            )

        def reset_prefix_cache(self):
            announced.append("reset")

    sender = NcclSender.__new__(NcclSender)
    sender._client, sender.device, sender.time_limit_s = Client(), torch.device("cpu"), 30.0
    engine = ServerEngine.__new__(ServerEngine)
    engine._ranks, engine._nccl, engine._metadata, engine.transfer = Ranks(), sender, None, "nccl"
    engine.adapters, engine._adapter = AdapterPart("auto", 0, "it goes over NCCL"), None
    engine._asked = []
    for _ in range(2):
        engine.load(policy)
    assert announced == [sent[0], "reset", sent[1], "reset"]
    assert [name for name, *_ in sent[0]] == [name for name, _ in named_weights(policy)]


def test_a_server_elsewhere_needs_a_folder_for_weights():
    with pytest.raises(ConfigError, match="another machine"):
        ServerEngine("http://example.invalid:8000", eos_token_ids=ENDS)


def test_a_server_that_is_not_there_is_an_error():
    with pytest.raises(TrainingError, match=r"rollout.server_base_url"):
        ServerEngine("http://127.0.0.1:9", eos_token_ids=ENDS, time_limit_s=5)
