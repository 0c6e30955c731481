"""What is asked of a vLLM server over HTTP, with a time limit on each answer and an error that says what to do."""

from __future__ import annotations

import http.client
import json
import shlex
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from posttrain.errors import ConfigError, TrainingError
from posttrain.rollouts.vllm_command import FLAGS, SERVER_ENVIRONMENT, serve_command
from posttrain.rollouts.vllm_package import WORKER_EXTENSION, check_version


class ServerAPI:
    """A server's HTTP interface.

    Args:
        base_url: Where it listens.
        time_limit_s: For what has one `deadline`.
    """

    def __init__(self, base_url: str, *, time_limit_s: float):
        self.base_url, self.time_limit_s = base_url.rstrip("/"), time_limit_s

    def deadline(self) -> float:
        """When the time limit is over that begins now, by `time.monotonic`."""
        return time.monotonic() + self.time_limit_s

    def configuration(self) -> Mapping[str, Any]:
        """What `/server_info` says (`vllm_config`, `vllm_env`), once it is known that it was started as we need it.

        Raises:
            ConfigError: It was not.
            TrainingError: It does not answer.
        """
        deadline = self.deadline()
        path, answer = "/version", self.ask("/version", None, deadline)
        try:
            version = str(answer["version"])
            check_version(version, where="rollout.server_base_url", fix="install another vLLM on the server")
            path = "/server_info?config_format=json"
            answer = self.ask(path, None, deadline)
            config = answer["vllm_config"]
            extension = config["parallel_config"]["worker_extension_cls"]
            logprobs_mode = config["model_config"]["logprobs_mode"]
        except (KeyError, TypeError, AttributeError):
            said = json.dumps(answer)
            said = said if len(said) <= 100 else f"{said[:100]}..."
            raise self._misconfigured(f"it answers {path} with {said}, which vLLM does not") from None
        wrong = None
        if extension != WORKER_EXTENSION:
            wrong = f"its worker extension is {extension!r}"
        elif logprobs_mode != FLAGS["--logprobs-mode"]:
            wrong = f"its log-probabilities are {logprobs_mode}"
        if wrong:
            raise self._misconfigured(wrong)
        return answer

    def _misconfigured(self, seen: str) -> ConfigError:
        command = shlex.join(serve_command("MODEL")[1:])
        environment = " ".join(f"{name}={value}" for name, value in SERVER_ENVIRONMENT.items())
        return ConfigError(
            f"the server at {self.base_url} was not started for posttrain: {seen}",
            where="rollout.server_base_url",
            fix=f"install posttrain beside it and start it with: {environment} python {command}",
        )

    def call_workers(self, method: str, args: Sequence[str], deadline: float) -> list[Any]:
        """Call a method of `weight_sync.WeightReceiver` in every worker; what each of them returned."""
        return self.ask("/collective_rpc", {"method": method, "args": list(args)}, deadline).get("results", [])

    def load_adapter(self, name: str, folder: str, deadline: float) -> None:
        """Have the server take an adapter from a folder, which may be deleted afterwards."""
        self.ask("/v1/load_lora_adapter", {"lora_name": name, "lora_path": folder}, deadline, read=bytes)

    def drop_adapter(self, name: str, deadline: float) -> None:
        """Have the server forget an adapter's name."""
        self.ask("/v1/unload_lora_adapter", {"lora_name": name}, deadline, read=bytes)

    def ask(
        self,
        path: str,
        body: Mapping[str, Any] | None,
        deadline: float,
        *,
        read: Callable[[bytes], Any] = json.loads,
    ) -> Any:
        """The answer to one request, read as JSON, an empty one as nothing in it. The server has until the deadline."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base_url + path, data, {"Content-Type": "application/json"})
        left = deadline - time.monotonic()
        try:
            if left <= 0:
                raise TimeoutError
            with urllib.request.urlopen(request, timeout=left) as answer:
                return read(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")[:2000]
            if error.code == 404:
                raise self._misconfigured(f"it does not know {path}") from None
            raise self.failed(path, f"HTTP {error.code}: {said}") from None
        except TimeoutError:
            raise self.failed(path, f"no answer within {self.time_limit_s:g} s") from None
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: an answer that is no JSON
            reason = getattr(error, "reason", error)
            if isinstance(reason, TimeoutError):
                reason = f"no answer within {self.time_limit_s:g} s"
            raise self.failed(path, str(reason)) from error

    def failed(self, path: str, why: str) -> TrainingError:
        """The error of a request that failed."""
        return TrainingError(
            f"the vLLM server at {self.base_url} failed ({path}): {why}",
            where="rollout.server_base_url",
            fix="look at the server's log, start it again and then this run: the last checkpoint is whole; if it is "
            "only slow, raise rollout.time_limit_s",
        )
