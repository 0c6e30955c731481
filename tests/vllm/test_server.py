"""A real vLLM server on a model of a few thousand weights: weights, samples, and what happens when it hangs or dies."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.request

import pytest

from posttrain.errors import ConfigError, TrainingError
from posttrain.rollouts.vllm import Sampling, request_seed
from posttrain.rollouts.vllm_server import SERVER_ENVIRONMENT, ServerEngine, serve_command
from tests.vllm.conftest import ENDS, PROMPTS, change, tiny, with_lora

ON_A_CPU = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "TORCH_COMPILE_DISABLE": "1"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    config = tiny(tied=True).config
    config.architectures = ["Qwen2ForCausalLM"]
    config.save_pretrained(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = serve_command(folder, port=port, more=["--dtype", "float32", "--enforce-eager", "--host", "127.0.0.1"])
    log = folder / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            command, env=os.environ | SERVER_ENVIRONMENT | ON_A_CPU, stdout=out, stderr=out, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 240
        while not _answers(url):
            assert process.poll() is None, log.read_text()[-4000:]
            assert time.monotonic() < deadline, log.read_text()[-4000:]
            time.sleep(0.3)
        yield url, process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


@pytest.mark.slow
def test_a_server_samples_like_the_engine_in_process_and_its_end_is_an_error(server, tied_engine):
    url, process = server
    policy = with_lora(tiny(tied=True), target_modules=["q_proj", "down_proj"])
    seeds = [request_seed(7, 0, place) for place in range(len(PROMPTS))]
    sampling = Sampling(n=3, max_tokens=12, temperature=0.7)
    with ServerEngine(url, eos_token_ids=ENDS, model=policy, time_limit_s=60) as engine:
        assert (str(engine.dtype), engine.max_model_length) == ("torch.float32", 128)
        with pytest.raises(TrainingError, match="has no weights of ours"):
            engine.sample(PROMPTS, seeds, sampling)
        for update in range(2):
            change(policy, seed=update)
            for each in (engine, tied_engine):
                each.load(policy)
            ours, theirs = (each.sample(PROMPTS, seeds, sampling) for each in (tied_engine, engine))
            assert [[(one.token_ids, one.truncated) for one in group] for group in ours] == [
                [(one.token_ids, one.truncated) for one in group] for group in theirs
            ]
            for group, other in zip(ours, theirs, strict=True):
                for one, same in zip(group, other, strict=True):
                    assert one.logprobs == pytest.approx(same.logprobs, abs=1e-4)
        greedy = Sampling(n=2, max_tokens=8, temperature=0.0)
        ours, theirs = (each.sample(PROMPTS, seeds, greedy) for each in (tied_engine, engine))
        assert [[one.token_ids for one in group] for group in ours] == [
            [one.token_ids for one in group] for group in theirs
        ]

        with pytest.raises(TrainingError, match="an LM head of its own came"):
            engine.load(tiny(tied=False))
        engine.load(policy)  # a refused update does not end the server
        with pytest.raises(ConfigError, match="--max-model-len 129"):
            ServerEngine(url, eos_token_ids=ENDS, max_model_length=129, time_limit_s=60)

        os.killpg(process.pid, signal.SIGSTOP)
        engine.time_limit_s = 1.0
        with pytest.raises(TrainingError, match="no answer within 1 s"):
            engine.sample(PROMPTS, seeds, sampling)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        with pytest.raises(TrainingError, match=r"rollout.server_base_url: the vLLM server .* failed"):
            engine.sample(PROMPTS, seeds, sampling)


def test_a_server_elsewhere_needs_a_folder_for_weights():
    with pytest.raises(ConfigError, match="another machine"):
        ServerEngine("http://example.invalid:8000", eos_token_ids=ENDS)


def test_a_server_that_is_not_there_is_an_error():
    with pytest.raises(TrainingError, match=r"rollout.server_base_url"):
        ServerEngine("http://127.0.0.1:9", eos_token_ids=ENDS, time_limit_s=5)
