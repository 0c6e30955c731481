"""Sampling from a vLLM server that the user started, with the trainer's weights.

The server is vLLM's own; posttrain has to be installed beside it and its command must be that of `serve_command`, which
makes vLLM listen to token ids and take weights from `posttrain.rollouts.weight_sync`. Weights travel through files in a
folder that both sides see: in memory (/dev/shm) where the server runs on the same machine.
"""

from __future__ import annotations

import http.client
import json
import shlex
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from safetensors.torch import save_file
from torch import nn

from posttrain.errors import ConfigError, TrainingError
from posttrain.rollouts.policy_weights import check_weights, named_weights
from posttrain.rollouts.sampling import Sampled, Sampling, check_lengths
from posttrain.rollouts.vllm_build import WORKER_EXTENSION, check_version

SERVER_ENVIRONMENT = {"VLLM_SERVER_DEV_MODE": "1"}
"""What the server's environment needs: without it vLLM lets nobody reach its workers."""

FLAGS = {
    "--worker-extension-cls": WORKER_EXTENSION,
    "--logprobs-mode": "processed_logprobs",
    "--generation-config": "vllm",
    "--load-format": "dummy",
}
"""What the server's command needs, besides the model and two switches."""

SWITCHES = ("--tokens-only", "--skip-tokenizer-init")

PART = 1 << 30
"""Bytes of weights in one file: what the shared folder has to have room for."""

FINAL_ONLY = 2
"""vLLM's `RequestOutputKind`: all completions in one answer. Before 0.29 it is the last alone by default."""

REQUESTS = 64
"""Requests that wait for an answer at the same time."""


def serve_command(model: str | Path, *, port: int = 8000, more: Sequence[str] = ()) -> list[str]:
    """The command that starts a server for `ServerEngine`; its environment needs `SERVER_ENVIRONMENT` too.

    Args:
        model: A hub id, or a folder with the model's config.json; weights are not read, the trainer sends them.
        port: Where to listen.
        more: Arguments for vLLM, such as `--dtype bfloat16`, `--max-model-len 4096` and `--tensor-parallel-size 2`.
    """
    flags = [part for pair in FLAGS.items() for part in pair]
    # Not `vllm serve`: vLLM's CPU build is packaged under another name, which that command cannot bear
    module = ["-m", "vllm.entrypoints.openai.api_server"]
    return [sys.executable, *module, "--model", str(model), "--port", str(port), *flags, *SWITCHES, *more]


class ServerEngine:
    """A vLLM server as the sampling engine; used like `InProcessEngine`.

    Args:
        base_url: Where the server listens, such as http://localhost:8000.
        eos_token_ids: Tokens that end a completion.
        model: The policy, to find out early what the server could not take.
        max_model_length: Most tokens of prompt and completion; None takes the server's own bound.
        weights_folder: A folder that this process and the server see under the same path. None is memory where the
            server is on this machine, and an error where it is not.
        time_limit_s: Most seconds for one call of `sample` or `load`.

    Raises:
        ConfigError: the server lacks something that `serve_command` gives it, or would not fit the policy.
        TrainingError: the server does not answer.
    """

    def __init__(
        self,
        base_url: str,
        *,
        eos_token_ids: Sequence[int],
        model: nn.Module | None = None,
        max_model_length: int | None = None,
        weights_folder: str | Path | None = None,
        time_limit_s: float = 600.0,
    ):
        self.base_url = base_url.rstrip("/")
        self.time_limit_s = time_limit_s
        self._stop_token_ids = list(eos_token_ids)
        self._folder = Path(weights_folder) if weights_folder else _memory_folder(self.base_url)
        self._loaded = False
        self._threads = ThreadPoolExecutor(REQUESTS, thread_name_prefix="vllm-server")
        deadline = time.monotonic() + time_limit_s
        settings = self._settings(deadline)
        self.dtype: torch.dtype = getattr(torch, str(settings["dtype"]).removeprefix("torch."))
        own_bound = int(settings["max_model_len"])
        if max_model_length is not None and max_model_length > own_bound:
            raise ConfigError(
                f"{max_model_length} tokens, and the server takes {own_bound}",
                where="rollout.max_model_length",
                fix=f"start the server with --max-model-len {max_model_length}",
            )
        self.max_model_length = max_model_length or own_bound
        if model is not None:
            check_weights(model)

    def load(self, model: nn.Module | Iterable[tuple[str, torch.Tensor]]) -> None:
        """Send the policy's weights, all of them, in parts that are deleted when the server has read them.

        Args:
            model: As for `InProcessEngine.load`.

        Raises:
            ConfigError: an adapter that cannot be added to its layer's weight.
            TrainingError: the server takes other weights than these, failed, or took longer than the time limit.
        """
        deadline = time.monotonic() + self.time_limit_s
        weights = named_weights(model) if isinstance(model, nn.Module) else model
        self._loaded = False
        self._call_workers("posttrain_start", [], deadline)
        with tempfile.TemporaryDirectory(prefix="posttrain-weights-", dir=self._folder) as folder:
            for part in _parts(weights):
                path = Path(folder) / "part.safetensors"
                save_file(part, path)
                del part
                self._call_workers("posttrain_load_file", [str(path)], deadline)
                path.unlink()
        self._call_workers("posttrain_finish", [], deadline)
        if self._post("/reset_prefix_cache", {}, deadline).get("success") is False:
            raise self._failed("/reset_prefix_cache", "requests of somebody else are running")
        self._loaded = True

    def fits(self, model: nn.Module) -> bool:
        """Always: what the server was started with is not ours to say, and `load` finds out."""
        return True

    def sample(
        self, prompt_ids: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling
    ) -> list[list[Sampled]]:
        """Draw `sampling.n` completions of each prompt, as `InProcessEngine.sample` does.

        Raises:
            DataError: a prompt does not fit `max_model_length` together with its completion.
            TrainingError: no weights were sent yet; or the server failed, or took longer than the time limit.
        """
        check_lengths(prompt_ids, sampling.max_tokens, self.max_model_length)
        if not self._loaded:
            raise TrainingError("the server has no weights of ours", expected="a call of load() before sample()")
        deadline = time.monotonic() + self.time_limit_s
        bodies = [
            {"token_ids": list(ids), "sampling_params": self._parameters(sampling, seed)}
            for ids, seed in zip(prompt_ids, seeds, strict=True)
        ]
        waiting = [self._threads.submit(self._post, "/inference/v1/generate", body, deadline) for body in bodies]
        try:
            groups = [[_sampled(choice) for choice in _in_order(answer.result())] for answer in waiting]
        finally:
            for answer in waiting:
                answer.cancel()
        return [group * sampling.n for group in groups] if sampling.temperature == 0.0 else groups

    def sleep(self, level: int = 2) -> None:
        """Nothing: the server's GPU is its own."""

    def wake(self) -> None:
        """Nothing: see `sleep`."""

    def close(self) -> None:
        """Let go of the server, which goes on running."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def _parameters(self, sampling: Sampling, seed: int) -> dict[str, Any]:
        return {
            "n": sampling.n if sampling.temperature > 0.0 else 1,  # vLLM takes no more; the others are the same
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p or 0.0,
            "repetition_penalty": sampling.repetition_penalty,
            "seed": seed if sampling.temperature > 0.0 else None,
            "stop_token_ids": self._stop_token_ids,
            "logprobs": 0,
            "detokenize": False,
            "output_kind": FINAL_ONLY,
        }

    # ---- asking the server ----

    def _settings(self, deadline: float) -> Mapping[str, Any]:
        """The server's model settings, once it is known that it was started as we need it."""
        check_version(
            self._ask("/version", None, deadline)["version"],
            where="rollout.server_base_url",
            fix="install another vLLM on the server",
        )
        info = self._ask("/server_info?config_format=json", None, deadline)["vllm_config"]
        extension = info["parallel_config"]["worker_extension_cls"]
        wrong = None
        if extension != WORKER_EXTENSION:
            wrong = f"its worker extension is {extension!r}"
        elif info["model_config"]["logprobs_mode"] != FLAGS["--logprobs-mode"]:
            wrong = f"its log-probabilities are {info['model_config']['logprobs_mode']}"
        if wrong:
            raise self._misconfigured(wrong)
        return info["model_config"]

    def _misconfigured(self, seen: str) -> ConfigError:
        command = shlex.join(serve_command("MODEL")[1:])
        environment = " ".join(f"{name}={value}" for name, value in SERVER_ENVIRONMENT.items())
        return ConfigError(
            f"the server at {self.base_url} was not started for posttrain: {seen}",
            where="rollout.server_base_url",
            fix=f"install posttrain beside it and start it with: {environment} python {command}",
        )

    def _call_workers(self, method: str, args: Sequence[str], deadline: float) -> None:
        self._post("/collective_rpc", {"method": method, "args": list(args)}, deadline)

    def _post(self, path: str, body: Mapping[str, Any], deadline: float) -> Any:
        return self._ask(path, body, deadline)

    def _ask(self, path: str, body: Mapping[str, Any] | None, deadline: float) -> Any:
        """The answer to one request as JSON, an empty one as nothing in it. The server has until the deadline."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base_url + path, data, {"Content-Type": "application/json"})
        left = deadline - time.monotonic()
        try:
            if left <= 0:
                raise TimeoutError
            with urllib.request.urlopen(request, timeout=left) as answer:
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")[:2000]
            if error.code == 404:
                raise self._misconfigured(f"it does not know {path}") from None
            raise self._failed(path, f"HTTP {error.code}: {said}") from None
        except TimeoutError:
            raise self._failed(path, f"no answer within {self.time_limit_s:g} s") from None
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: an answer that is no JSON
            reason = getattr(error, "reason", error)
            if isinstance(reason, TimeoutError):
                reason = f"no answer within {self.time_limit_s:g} s"
            raise self._failed(path, str(reason)) from error

    def _failed(self, path: str, why: str) -> TrainingError:
        return TrainingError(
            f"the vLLM server at {self.base_url} failed ({path}): {why}",
            where="rollout.server_base_url",
            fix="look at the server's log, start it again and then this run: the last checkpoint is whole; if it is "
            "only slow, raise rollout.time_limit_s",
        )


def _memory_folder(base_url: str) -> Path:
    host = urlsplit(base_url).hostname
    if host not in ("localhost", "127.0.0.1", "::1"):
        raise ConfigError(
            f"the server is on another machine ({host}), and there is no folder for weights",
            where="rollout.weights_folder",
            fix="name a folder that this machine and the server's see under the same path",
        )
    memory = Path("/dev/shm")
    return memory if memory.is_dir() else Path(tempfile.gettempdir())


def _parts(weights: Iterable[tuple[str, torch.Tensor]]) -> Iterator[dict[str, torch.Tensor]]:
    """The stream cut into parts of about `PART` bytes."""
    part: dict[str, torch.Tensor] = {}
    size = 0
    for name, tensor in weights:
        part[name] = tensor.detach().contiguous()
        size += tensor.nbytes
        if size >= PART:
            yield part
            part, size = {}, 0
    if part:
        yield part


def _in_order(answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return sorted(answer["choices"], key=lambda choice: choice["index"])


def _sampled(choice: Mapping[str, Any]) -> Sampled:
    ids = list(choice["token_ids"])
    logprobs = [float(token["logprob"]) for token in choice["logprobs"]["content"]]
    if len(logprobs) != len(ids):
        raise RuntimeError("log-probabilities and tokens do not belong together")
    return Sampled(ids, logprobs, choice["finish_reason"] == "length")
