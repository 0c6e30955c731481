"""What `posttrain export` writes is a model that vLLM loads by itself: whole weights and a merged adapter."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from posttrain.export.export import export
from posttrain.models.policy_weights import base_model
from posttrain.rollouts.vllm_build import kept_process_group
from posttrain.rollouts.vllm_package import set_environment
from posttrain.rundir.rundir import RunDir
from posttrain.running.policies import save_whole
from tests.vllm.conftest import change, tiny, with_lora

PROMPTS = ["3 + 4 =", "12 + 5 =", "what"]


def run_with(folder: Path, tokenizer, *, lora: bool) -> Path:
    """The directory of a run with a final model that is far from where it began; nobody trained it."""
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    model = tiny(tied=True, vocab_size=len(tokenizer), **ends)
    with RunDir.open(folder, {"lora": {"r": 4} if lora else None, "model": {"init": {"layers": 2}}}, {}) as run:
        if lora:
            save_whole(run.path / "init", model, tokenizer)
            model = with_lora(AutoModelForCausalLM.from_pretrained(run.path / "init"), target_modules="all-linear")
        change(model, seed=5)
        save_whole(run.model, model, tokenizer)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("lora", [False, True], ids=["whole", "merged"])
def test_vllm_answers_as_transformers_does(lora, tokenizer, tmp_path):
    from posttrain.models.load import load_policy

    set_environment()
    from vllm import LLM, SamplingParams
    from vllm.v1.executor.uniproc_executor import UniProcExecutor

    run = run_with(tmp_path / "run", tokenizer, lora=lora)
    export(run, tmp_path / "out", merge_lora=lora)
    policy = load_policy(run / "model", dtype="float32").eval()
    engine = LLM(
        str(tmp_path / "out"), dtype="float32", max_model_len=64, max_num_seqs=4, enforce_eager=True,
        kv_cache_memory_bytes=2**24, distributed_executor_backend=UniProcExecutor,
    )  # fmt: skip
    try:
        answers = engine.generate(PROMPTS, SamplingParams(temperature=0.0, max_tokens=8, logprobs=0), use_tqdm=False)
    finally:
        with kept_process_group():
            engine.llm_engine.engine_core.shutdown()
    loaded = AutoTokenizer.from_pretrained(tmp_path / "out")
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        assert list(answer.prompt_token_ids) == loaded(prompt).input_ids
        (said,) = answer.outputs
        ids = torch.tensor([[*answer.prompt_token_ids, *said.token_ids]])
        with torch.no_grad():
            logits = policy(ids).logits[0, len(answer.prompt_token_ids) - 1 : -1]
        assert logits.argmax(-1).tolist() == list(said.token_ids)
        theirs = torch.tensor([step[token].logprob for step, token in zip(said.logprobs, said.token_ids, strict=True)])
        ours = logits.log_softmax(-1).max(-1).values
        assert torch.allclose(theirs, ours, atol=1e-3)
    assert (base_model(policy) is not policy) == lora
