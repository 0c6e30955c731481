"""Sampling from a vLLM server that the user started, with the trainer's weights.

The server is vLLM's own; posttrain has to be installed beside it and its command must be that of `serve_command`, which
makes vLLM listen to token ids and take weights from `posttrain.rollouts.weight_sync`. Weights travel through files in a
folder that both sides see, in memory (/dev/shm) where the server runs on the same machine; or from GPU to GPU over NCCL
(`posttrain.rollouts.vllm_nccl`).

Several training processes share one server: the main one sends the weights, and each asks for its own rows. On GPU
nodes the server has GPUs of its own, on the trainer's node or another:

    CUDA_VISIBLE_DEVICES=6,7 posttrain serve MODEL --weights-transfer nccl --tensor-parallel-size 2 --max-model-len 4096
    CUDA_VISIBLE_DEVICES=0,1,2,3,4,5 posttrain launch RECIPE --gpus 6 rollout.engine=vllm rollout.mode=server \\
        rollout.server_base_url=http://localhost:8000

On another node than the trainer's main process, start the server with `--host 0.0.0.0` (in a network that you trust:
whoever reaches it can use it) and name it in rollout.server_base_url.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import torch
from safetensors.torch import save_file
from torch import nn

from posttrain.errors import ConfigError, TrainingError
from posttrain.models.adapter_weights import adapter_weights, rank_of
from posttrain.models.policy_weights import check_weights, is_sharded, named_weights, walked_to_the_end
from posttrain.processes.ranks import Ranks
from posttrain.rollouts.adapters import AdapterPart, Counted, adapter_folder, memory_folder, room_on_server
from posttrain.rollouts.engine import ALONE, OnPrompt
from posttrain.rollouts.sampling import Sampled, Sampling, check_lengths
from posttrain.rollouts.vllm_command import SERVER_ENVIRONMENT, chosen_transfer, serve_command
from posttrain.rollouts.vllm_http import ServerAPI
from posttrain.rollouts.vllm_nccl import Metadata, NcclSender, metadata_of, takes_nccl
from posttrain.rollouts.vllm_requests import parameters, sampled_there

__all__ = ["SERVER_ENVIRONMENT", "ServerEngine", "serve_command"]

PART = 1 << 30
"""Bytes of weights in one file: what the shared folder has to have room for."""

Weights = Iterable[tuple[str, torch.Tensor]]
Part = tuple[Weights, Callable[[Weights], None]]
"""A stream of weights, and what sends it."""

REQUESTS = 64
"""Requests that wait for an answer at the same time."""


class ServerEngine:
    """A vLLM server as the sampling engine; used like `InProcessEngine`.

    Args:
        base_url: Where the server listens, such as http://localhost:8000.
        eos_token_ids: Tokens that end a completion.
        model: The policy, to find out early what the server could not take.
        max_model_length: Most tokens of prompt and completion; None takes the server's own bound.
        transfer: How weights travel: `files`; `nccl`, from GPU to GPU; `auto` is `nccl` where the trainer has CUDA and
            the server was started for it, else `files`.
        weights_folder: For `files`: a folder that this process and the server see under the same path. None is memory
            where the server is on this machine, and an error where it is not.
        time_limit_s: Most seconds for one call of `sample` or `load`.
        ranks: The processes that share the server; all of them make their engine at the same time and call `load`
            together.
        lora: As for `InProcessEngine`; adapters go as files, to a server that was started with room for them.

    Attributes:
        adapters, sent_bytes: As of `InProcessEngine`.

    Raises:
        ConfigError: the server lacks something that `serve_command` gives it, or would not fit the policy. On all
            processes, as every error here.
        TrainingError: the server does not answer.
    """

    samples_aside = True

    def __init__(
        self,
        base_url: str,
        *,
        eos_token_ids: Sequence[int],
        model: nn.Module | None = None,
        max_model_length: int | None = None,
        transfer: str = "auto",
        weights_folder: str | Path | None = None,
        time_limit_s: float = 600.0,
        ranks: Ranks = ALONE,
        lora: str = "auto",
    ):
        self.api, self._ranks = ServerAPI(base_url, time_limit_s=time_limit_s), ranks
        self._stop_token_ids = list(eos_token_ids)
        self._loaded = False
        self._threads = ThreadPoolExecutor(REQUESTS, thread_name_prefix="vllm-server")
        self._asked: list[Future[list[Sampled]]] = []
        self._nccl: NcclSender | None = None
        self._metadata: Metadata | None = None
        self._adapter: str | None = None
        self.sent_bytes = 0
        ranks.together(lambda: self._connect(transfer, weights_folder, max_model_length, model, lora))

    def _connect(
        self,
        transfer: str,
        weights_folder: str | Path | None,
        max_model_length: int | None,
        model: nn.Module | None,
        lora: str,
    ) -> None:
        on_cuda = torch.cuda.is_available()

        def chosen(server_takes_nccl: bool) -> str:
            return chosen_transfer(transfer, on_cuda=on_cuda, server_takes_nccl=server_takes_nccl)

        if chosen(True) == "files":  # whatever the server can do; said before it is asked
            self._folder = Path(weights_folder) if weights_folder else _memory_folder(self.api.base_url)
        info = self.api.configuration()
        config = info["vllm_config"]
        settings = config["model_config"]
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
        self.transfer = chosen(takes_nccl(config))
        self.adapters = AdapterPart(lora, *room_on_server(lora, info))
        if self.transfer == "nccl" and self.adapters.room:
            if transfer == "auto" and (weights_folder or _is_here(self.api.base_url)):
                self.transfer = "files"
            else:
                self.adapters = AdapterPart(lora, 0, "over NCCL whole weights travel, an adapter alone through files")
        self.adapters.apart(model)  # tells early what cannot be had
        if self.transfer == "files":
            self._folder = Path(weights_folder) if weights_folder else _memory_folder(self.api.base_url)
        elif self._ranks.is_main:
            device = torch.device("cuda", torch.cuda.current_device()) if on_cuda else "cpu"
            self._nccl = NcclSender(self.api.base_url, device=device, time_limit_s=self.api.time_limit_s)

    def load(self, model: nn.Module | Iterable[tuple[str, torch.Tensor]]) -> None:
        """Send the policy's weights: all of them, or its adapter alone where the server has its base already.

        Files are deleted when the server has read them, whole weights part by part.

        All processes call it together. The main one sends; the others help to gather what is sharded.

        Args:
            model: As for `InProcessEngine.load`.

        Raises:
            ConfigError: an adapter that cannot be added to its layer's weight.
            TrainingError: the server takes other weights than these, failed, or took longer than the time limit.
        """
        self._ranks.together(lambda: wait(self._asked))  # what was begun is sampled from the weights it was begun with
        self._loaded = False
        self._ranks.together(lambda: self._load(model))
        self._loaded = True

    def _load(self, model: nn.Module | Iterable[tuple[str, torch.Tensor]]) -> None:
        before, self._adapter, self.sent_bytes = self._adapter, None, 0
        if not isinstance(model, nn.Module):
            whole = list(model)
            self._send_whole(lambda: whole, sharded=False)
            return
        sharded = is_sharded(model)
        if not self.adapters.apart(model):
            self._send_whole(lambda: named_weights(model), sharded=sharded)
            return
        mark = self.adapters.mark(model)
        known, name = self._ranks.decided(lambda: (self._has(mark), self.adapters.next_name()))
        # A server that was started anew does not know the adapter of before either
        send = partial(self._send_adapter, name=name, rank=rank_of(model), before=before if known else None)
        parts: list[Part] = [(adapter_weights(model), send)]
        if not known:
            parts.insert(0, (named_weights(model, with_adapters=False), partial(self._send, mark=mark)))
        self._hand_over(parts, sharded=sharded)
        self._adapter = name

    def _send_whole(self, stream: Callable[[], Weights], *, sharded: bool) -> None:
        if self.transfer == "nccl" and self._metadata is None and (sharded or self._ranks.is_main):
            self._metadata = metadata_of(stream())
        self._hand_over([(stream(), self._send)], sharded=sharded)

    def _hand_over(self, parts: list[Part], *, sharded: bool) -> None:
        """Have the main process send each stream; the others walk along where gathering needs them.

        Where one fails, it and those after it are walked to their ends, for the others do so, too.
        """
        if not self._ranks.is_main:
            for stream, _ in parts if sharded else ():
                deque(stream, maxlen=0)
            return
        with ExitStack() as walked:
            streams = [walked.enter_context(walked_to_the_end(stream)) for stream, _ in reversed(parts)]
            for stream, (_, send) in zip(reversed(streams), parts, strict=True):
                counted = Counted(stream)
                send(counted)
                self.sent_bytes += counted.bytes

    def _has(self, mark: str) -> bool:
        answers = self.api.call_workers("posttrain_has", [mark], self.api.deadline())
        return bool(answers) and all(answers)

    def _send(self, weights: Iterable[tuple[str, torch.Tensor]], mark: str = "") -> None:
        if self._nccl is not None:
            self._nccl.send(self._metadata or [], weights)
            return
        deadline = self.api.deadline()
        self.api.call_workers("posttrain_start", [], deadline)
        with tempfile.TemporaryDirectory(prefix="posttrain-weights-", dir=self._folder) as folder:
            for part in _parts(weights):
                path = Path(folder) / "part.safetensors"
                save_file(part, path)
                del part
                self.api.call_workers("posttrain_load_file", [str(path)], deadline)
                path.unlink()
        self.api.call_workers("posttrain_finish", [mark], deadline)
        self._reset_cache(deadline)

    def _send_adapter(
        self, weights: Iterable[tuple[str, torch.Tensor]], name: str, rank: int, before: str | None
    ) -> None:
        deadline = self.api.deadline()
        with adapter_folder(weights, rank, self._folder) as folder:
            self.api.load_adapter(name, str(folder), deadline)
        self.api.call_workers("posttrain_check_adapter", [], deadline)
        if before is not None:
            self.api.drop_adapter(before, deadline)
        self._reset_cache(deadline)

    def _reset_cache(self, deadline: float) -> None:
        if self.api.ask("/reset_prefix_cache", {}, deadline).get("success") is False:
            raise self.api.failed("/reset_prefix_cache", "requests of somebody else are running")

    @property
    def adds_adapters(self) -> bool:
        """Whether the policy's adapter is not in the weights, but added while sampling."""
        return self._adapter is not None

    def fits(self, model: nn.Module) -> bool:
        """Always: what the server was started with is not ours to say, and `load` finds out."""
        return True

    def sample(
        self,
        prompt_ids: Sequence[Sequence[int]],
        seeds: Sequence[int],
        sampling: Sampling,
        *,
        limits: Sequence[int] | None = None,
    ) -> list[list[Sampled]]:
        """Draw `sampling.n` completions of each prompt, as `InProcessEngine.sample` does.

        Raises:
            DataError: a prompt does not fit `max_model_length` together with its completion.
            TrainingError: no weights were sent yet; or the server failed, or took longer than the time limit.
        """
        return self.begin(prompt_ids, seeds, sampling, limits=limits)()

    def begin(
        self,
        prompt_ids: Sequence[Sequence[int]],
        seeds: Sequence[int],
        sampling: Sampling,
        on_prompt: OnPrompt | None = None,
        limits: Sequence[int] | None = None,
    ) -> Callable[[], list[list[Sampled]]]:
        """Send the requests of `sample` and return at once; the completions come from the function that is returned.

        The time limit counts from here. The function may be called once, or not at all.

        Raises:
            DataError: As `sample`, and at once.
            TrainingError: No weights were sent yet. What the server does wrong is raised by the function.
        """
        most = check_lengths(prompt_ids, sampling.max_tokens, self.max_model_length, limits)
        if not self._loaded:
            raise TrainingError("the server has no weights of ours", expected="a call of load() before sample()")
        deadline = self.api.deadline()
        named = {} if self._adapter is None else {"model": self._adapter}
        ends = self._stop_token_ids
        bodies = [
            {"token_ids": list(ids), "sampling_params": parameters(sampling, seed, limit, ends), **named}
            for ids, seed, limit in zip(prompt_ids, seeds, most, strict=True)
        ]
        copies = sampling.n if sampling.temperature == 0.0 else 1

        def ask(place: int) -> list[Sampled]:
            answer = self.api.ask("/inference/v1/generate", bodies[place], deadline)
            group = sampled_there(answer) * copies
            if on_prompt is not None:
                on_prompt(place, group)
            return group

        waiting = [self._threads.submit(ask, place) for place in range(len(bodies))]
        self._asked = [each for each in self._asked if not each.done()] + waiting

        def collect() -> list[list[Sampled]]:
            try:
                return [answer.result() for answer in waiting]
            finally:
                for answer in waiting:
                    answer.cancel()

        return collect

    def sleep(self, level: int = 2) -> None:
        """Nothing: the server's GPU is its own."""

    def wake(self) -> None:
        """Nothing: see `sleep`."""

    def close(self) -> None:
        """Let go of the server, which goes on running."""
        if self._nccl is not None:
            self._nccl.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


def _is_here(base_url: str) -> bool:
    return urlsplit(base_url).hostname in ("localhost", "127.0.0.1", "::1")


def _memory_folder(base_url: str) -> Path:
    if not _is_here(base_url):
        raise ConfigError(
            f"the server is on another machine ({urlsplit(base_url).hostname}), and there is no folder for weights",
            where="rollout.weights_folder",
            fix="name a folder that this machine and the server's see under the same path",
        )
    return memory_folder()


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
