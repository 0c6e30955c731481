"""Sampling with vLLM in the trainer's process, from the trainer's own weights.

The engine is built from the policy's configuration alone, with placeholder weights; `load` streams the policy's
weights into it, parameter by parameter and without a second copy of the model, as often as they have changed. So it
serves a model from the hub, from a GGUF file or made from scratch alike, fully trained or with a LoRA adapter. An
adapter is added to the weights on their way, or sent alone while the base stays (`posttrain.rollouts.adapters`).

vLLM itself is imported when an engine is built. What it does to the process is put back (`process_state`), with one
exception: vLLM needs `torch.distributed` and initialises it with this one process if nobody has. It stays so until
`close`. Where the trainer has a process group of several processes, each of them builds its own engine, all at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from posttrain.errors import ConfigError, PosttrainError, TrainingError
from posttrain.models.adapter_weights import adapter_weights, rank_of
from posttrain.models.policy_weights import is_tied, named_weights, walked_to_the_end
from posttrain.rollouts.adapters import AdapterPart, Counted, adapter_folder, memory_folder, room_in_process
from posttrain.rollouts.engine import OnPrompt
from posttrain.rollouts.process_state import untouched_generators, untouched_process
from posttrain.rollouts.sampling import Sampled, Sampling, check_lengths, request_seed
from posttrain.rollouts.time_limit import time_limit
from posttrain.rollouts.vllm_build import (
    Unserved,
    cannot_build,
    check_machine,
    cpu_cache_bytes,
    engine_config,
    engine_dtype,
    kept_process_group,
    start,
)
from posttrain.rollouts.vllm_package import check_installed, is_installed, set_environment
from posttrain.rollouts.vllm_requests import parameters, sampled_here

__all__ = ["InProcessEngine", "Sampled", "Sampling", "is_installed", "request_seed"]

_open_engines = 0
_began_distributed = False


class InProcessEngine:
    """A vLLM engine inside the trainer's process.

    Args:
        model: The policy, a transformers model or a PEFT model around one; or only its configuration.
        eos_token_ids: Tokens that end a completion.
        max_model_length: Most tokens of prompt and completion; None takes what the model was made for.
        max_num_seqs: Most completions that are sampled at the same time.
        dtype: The engine's dtype by name. "auto" is the policy's; on a GPU a float32 policy is sampled in bfloat16.
        gpu_memory_utilization: Share of the GPU's memory for the engine, weights and KV cache. On a CPU the KV cache
            has `VLLM_CPU_KVCACHE_SPACE` GiB; if that is not set, what `max_num_seqs` need and 1 GiB at most.
        tensor_parallel_size: Processes that share one engine; it must divide the number of processes. Those that share
            one must sample the same prompts.
        enable_sleep_mode: Makes `sleep` free the GPU's memory.
        trust_remote_code: Allows a model's own code.
        time_limit_s: Most seconds for one call of `sample` or `load`, and for building the engine.
        seed: Of the engine itself; requests have their own.
        enforce_eager: No CUDA graphs and no compilation; None is True on a CPU.
        lora: `adapter` sends a policy's adapter alone, once its base is there; `merged` adds it to the weights that are
            sent; `auto` is adapter on a GPU, where vLLM adds it exactly.
        lora_rank: Of the adapters that are to come, where the first policy may have none yet.

    Attributes:
        adapters: What became of `lora`; `adapters.said` is why weights were sent whole in spite of an adapter.
        sent_bytes: Of weights, in the latest `load`.

    Raises:
        ConfigError: vLLM is not installed or cannot run this model, or the arguments don't fit the machine.
    """

    samples_aside = False

    def __init__(
        self,
        model: Any,
        *,
        eos_token_ids: Sequence[int],
        max_model_length: int | None = None,
        max_num_seqs: int = 256,
        dtype: str = "auto",
        gpu_memory_utilization: float = 0.3,
        tensor_parallel_size: int = 1,
        enable_sleep_mode: bool = False,
        trust_remote_code: bool = False,
        time_limit_s: float = 600.0,
        seed: int = 0,
        enforce_eager: bool | None = None,
        lora: str = "auto",
        lora_rank: int | None = None,
    ):
        check_installed()
        processes = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
        check_machine(enable_sleep_mode, tensor_parallel_size, processes)
        on_cpu = not torch.cuda.is_available()
        config = engine_config(model)
        self.dtype = engine_dtype(dtype, model, config, on_cpu)
        self.max_model_length = max_model_length or int(config.get_text_config().max_position_embeddings)
        self.time_limit_s = time_limit_s
        self._tied = bool(config.tie_word_embeddings)
        self._stop_token_ids = list(eos_token_ids)
        self._eager = on_cpu if enforce_eager is None else enforce_eager
        self._can_sleep = enable_sleep_mode
        self._asleep = self._failed = self._loaded = False
        self._numbers = itertools.count()
        self._llm: Any = None
        self._adapter: Any = None
        self.sent_bytes = 0
        self.adapters = AdapterPart(lora, *room_in_process(lora, model, lora_rank, on_cpu=on_cpu))
        self.adapters.apart(model)  # an adapter that was asked for and cannot be had is told before the engine is built
        options = {
            "max_model_len": self.max_model_length,
            "max_num_seqs": max_num_seqs,
            "dtype": str(self.dtype).removeprefix("torch."),
            "gpu_memory_utilization": gpu_memory_utilization,
            "tensor_parallel_size": tensor_parallel_size,
            "enable_sleep_mode": enable_sleep_mode,
            "trust_remote_code": trust_remote_code,
            "seed": seed,
            "enforce_eager": self._eager,
        }
        if on_cpu:
            options["kv_cache_memory_bytes"] = cpu_cache_bytes(config, self.dtype, self.max_model_length, max_num_seqs)
        if self.adapters.room:
            options |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": self.adapters.room}
        if processes > 1:
            options["distributed_executor_backend"] = "external_launcher"
        try:
            self._build(config, options)
        except Unserved as error:
            if lora != "auto" or not self.adapters.room or "LoRA" not in error.seen:
                raise
            self.adapters = AdapterPart(lora, 0, error.seen)  # a family that vLLM has no adapters for
            self._build(config, {name: each for name, each in options.items() if "lora" not in name})
        if on_cpu:
            self._try_one_token()

    # ---- weights ----

    def load(self, model: nn.Module | Iterable[tuple[str, torch.Tensor]]) -> None:
        """Take over the policy's weights: all of them, or its adapter alone where the engine has its base already.

        What is sharded is gathered: every process calls it then.

        Args:
            model: The policy as it was at construction, with other values; or its weights as (checkpoint name, whole
                tensor), the LM head left out where it is tied to the embedding.

        Raises:
            ConfigError: an adapter that cannot be added to its layer's weight.
            TrainingError: the engine takes other weights than these, or could not take them.
        """
        self.sent_bytes, self._adapter = 0, None
        if not isinstance(model, nn.Module) or not self.adapters.apart(model):
            with walked_to_the_end(self._stream(model)) as weights:
                self._load(weights)
            return
        self._check_fits(model)
        self._check_usable()
        mark = self.adapters.mark(model)
        with walked_to_the_end(adapter_weights(model)) as adapter:  # to its end by all, if the base fails on one
            if "" in self._llm.collective_rpc("posttrain_has", args=(mark,)):
                with walked_to_the_end(named_weights(model, with_adapters=False)) as base:
                    self._load(base, mark)
            self._load_adapter(adapter, rank_of(model))

    def _load(self, weights: Iterable[tuple[str, torch.Tensor]], mark: str = "") -> None:
        self._check_usable()
        self.wake()
        counted = Counted(weights)
        with self._guarded("loading the policy's weights into the sampling engine"):
            self._llm.collective_rpc("posttrain_start")
            self._llm.collective_rpc("posttrain_load", args=(counted,))
            self._llm.collective_rpc("posttrain_finish", args=(mark,))
            self._llm.reset_prefix_cache()
        self.sent_bytes += counted.bytes
        self._loaded = True

    def _load_adapter(self, weights: Iterable[tuple[str, torch.Tensor]], rank: int) -> None:
        from vllm.lora.request import LoRARequest

        self._check_usable()
        self.wake()
        counted = Counted(weights)
        with (
            self._guarded("loading the policy's adapter into the sampling engine"),
            adapter_folder(counted, rank, memory_folder()) as folder,
        ):
            name = self.adapters.next_name()
            self._adapter = LoRARequest(name, int(name.rpartition("-")[2]), str(folder))
            self._llm.llm_engine.add_lora(self._adapter)
            self._llm.collective_rpc("posttrain_check_adapter")
            self._llm.reset_prefix_cache()
        self.sent_bytes += counted.bytes

    @property
    def adds_adapters(self) -> bool:
        """Whether the policy's adapter is not in the weights, but added while sampling."""
        return self._adapter is not None

    def fits(self, model: nn.Module) -> bool:
        """Whether the model's weights can be loaded: an adapter on a tied embedding or LM head parts the two."""
        return is_tied(model) == self._tied

    def _stream(self, model: nn.Module | Iterable[tuple[str, torch.Tensor]]) -> Iterable[tuple[str, torch.Tensor]]:
        if not isinstance(model, nn.Module):
            return model
        self._check_fits(model)
        return named_weights(model)

    def _check_fits(self, model: nn.Module) -> None:
        if not self.fits(model):
            raise ConfigError(
                f"the embedding and the LM head {'are' if self._tied else 'were not'} one in the engine, and "
                f"{'are not' if self._tied else 'are'} in this model",
                expected="the model that the engine was built for",
                where="model",
            )

    # ---- sampling ----

    def sample(
        self,
        prompt_ids: Sequence[Sequence[int]],
        seeds: Sequence[int],
        sampling: Sampling,
        on_prompt: OnPrompt | None = None,
        limits: Sequence[int] | None = None,
    ) -> list[list[Sampled]]:
        """Draw `sampling.n` completions of each prompt.

        A completion depends on its prompt, its prompt's seed and its own number alone, up to what a batch's other rows
        change in the last bits of the logits: completion i is what a request of its own with seed + i would draw.

        Args:
            prompt_ids: Token ids of each prompt.
            seeds: One for each prompt, such as `request_seed` gives. Not used at temperature 0.
            sampling: How to draw.
            on_prompt, limits: As for `Engine.begin`.

        Returns:
            One list of `sampling.n` completions per prompt, in the order of the prompts.

        Raises:
            DataError: a prompt does not fit `max_model_length` together with its completion.
            TrainingError: no weights were loaded; or the engine failed, or took longer than the time limit. The
                engine cannot be used again then.
        """
        most = check_lengths(prompt_ids, sampling.max_tokens, self.max_model_length, limits)
        self._check_usable()
        if not self._loaded:
            raise TrainingError("the engine has no weights", expected="a call of load() before sample()")
        self.wake()
        if sampling.temperature == 0.0:  # vLLM takes one completion a prompt then; the others are the same
            once = self._run(prompt_ids, seeds, dataclasses.replace(sampling, n=1), most, on_prompt, copies=sampling.n)
            return [group * sampling.n for group in once]
        return self._run(prompt_ids, seeds, sampling, most, on_prompt)

    def begin(
        self,
        prompt_ids: Sequence[Sequence[int]],
        seeds: Sequence[int],
        sampling: Sampling,
        on_prompt: OnPrompt | None = None,
        limits: Sequence[int] | None = None,
    ) -> Callable[[], list[list[Sampled]]]:
        """Nothing is gained by asking early: the engine computes where the trainer does. Samples when called."""
        return lambda: self.sample(prompt_ids, seeds, sampling, on_prompt, limits)

    def _run(
        self,
        prompt_ids: Sequence[Sequence[int]],
        seeds: Sequence[int],
        sampling: Sampling,
        limits: Sequence[int],
        on_prompt: OnPrompt | None = None,
        copies: int = 1,
    ) -> list[list[Sampled]]:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        own = {"flat_logprobs": True, "output_kind": RequestOutputKind.FINAL_ONLY}
        done: dict[str, list[Sampled]] = {}
        with self._guarded(f"sampling {len(prompt_ids)} x {sampling.n} completions") as check_time:
            engine = self._llm.llm_engine
            names = [f"{next(self._numbers)}" for _ in prompt_ids]
            places = {name: place for place, name in enumerate(names)}
            for name, ids, seed, limit in zip(names, prompt_ids, seeds, limits, strict=True):
                asked = parameters(sampling, seed, limit, self._stop_token_ids) | own
                prompt = {"prompt_token_ids": list(ids)}
                engine.add_request(name, prompt, SamplingParams(**asked), lora_request=self._adapter)
            while engine.has_unfinished_requests():
                for output in engine.step():
                    if output.finished:
                        group = done[output.request_id] = [sampled_here(one) for one in output.outputs]
                        if on_prompt is not None:
                            on_prompt(places[output.request_id], group * copies)
                check_time()
        return [done[name] for name in names]

    # ---- sleep and end ----

    def sleep(self, level: int = 2) -> None:
        """Free the GPU's memory until the next `wake`, `load` or `sample`. Nothing where it was not enabled.

        Args:
            level: 1 keeps the weights in the CPU's memory; 2 drops them, and `load` is needed before `sample`.
        """
        if not self._can_sleep or self._asleep:
            return
        self._check_usable()
        with self._guarded("putting the sampling engine to sleep"):
            self._llm.sleep(level=level)
        self._asleep, self._loaded = True, self._loaded and level == 1
        if not self._loaded:
            self.adapters.forget()

    def wake(self) -> None:
        """Take the memory back that `sleep` freed."""
        if not self._asleep:
            return
        self._check_usable()
        with self._guarded("waking the sampling engine"):
            self._llm.wake_up()
        self._asleep = False

    def close(self) -> None:
        """End the engine and free its memory; a process group that it began ends with the last engine."""
        global _open_engines, _began_distributed
        if self._llm is None:
            return
        llm, self._llm = self._llm, None
        _open_engines -= 1
        last_of_ours = _began_distributed and not _open_engines and torch.distributed.is_initialized()
        _began_distributed = _began_distributed and not last_of_ours
        with untouched_process(), contextlib.nullcontext() if last_of_ours else kept_process_group():
            llm.llm_engine.engine_core.shutdown()
            del llm
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    # ---- building, and what can go wrong ----

    def _build(self, config: Any, options: dict[str, Any]) -> None:
        global _open_engines, _began_distributed
        set_environment()
        limit = time_limit(self.time_limit_s, "building the sampling engine")
        had_group = torch.distributed.is_initialized()
        with limit, untouched_process(), self._compilation(), tempfile.TemporaryDirectory() as folder:
            config.save_pretrained(folder)
            try:
                self._llm = start(folder, options, max(4096, self.max_model_length))
            except Exception as error:
                raise cannot_build(error) from error
        _open_engines += 1
        _began_distributed = _began_distributed or not had_group

    def _try_one_token(self) -> None:
        """Some models fail only when they run: find out before training, not in the middle of the first step."""
        try:
            self._run([[0]], [0], Sampling(max_tokens=1), [1])
        except TrainingError as error:
            self.close()
            raise cannot_build(error.__cause__ or error) from error

    def _compilation(self) -> contextlib.AbstractContextManager[Any]:
        # Eager also means vLLM's small helpers: on a CPU compiling them takes longer than the first rollouts
        return torch.compiler.set_stance("force_eager") if self._eager else contextlib.nullcontext()

    @contextlib.contextmanager
    def _guarded(self, doing: str) -> Iterator[Any]:
        """Run the block with a time limit and the process's state kept. An error in it is the end of the engine."""
        with time_limit(self.time_limit_s, doing) as check_time, untouched_generators(), self._compilation():
            try:
                yield check_time
            except PosttrainError:
                self._failed = True
                raise
            except Exception as error:
                self._failed = True
                raise TrainingError(
                    f"{doing} failed: {type(error).__name__}: {error}",
                    where="rollout.engine",
                    fix="start again, the last checkpoint is whole; if it was memory, lower "
                    "rollout.gpu_memory_utilization or the batch; rollout.engine: transformers does without vLLM",
                ) from error

    def _check_usable(self) -> None:
        if self._llm is None or self._failed:
            raise TrainingError(f"the sampling engine {'was closed' if self._llm is None else 'has failed before'}")
