#!/usr/bin/env bash
# TRL's GRPOTrainer scores a GPT-2 completion at other positions than generate() sampled it at.
#
# TRL 1.16.0 with transformers 5.17.0: the trainer pads prompts on the left and passes no position_ids. generate() makes
# them from the attention mask; the forward of GPT-2 (GPT-Neo, GPT-BigCode, XGLM, BioGPT, CTRL, OpenAI GPT) numbers the
# columns, so that a row is shifted by its padding. On valid rows, one of 2 and one of 6 prompt tokens:
#   log-probabilities by the trainer's own method against those of the row alone: 1.1 apart for the short row,
#   4.8e-7 for the long one. With position_ids from the mask they are the same.
# Hunyuan (v1 dense and MoE) is as wrong though it is rotary: its queries and keys are normed behind the rotation.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 transformers==5.17.0 trl==1.16.0 numpy
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
from contextlib import nullcontext
from types import SimpleNamespace

import torch
from transformers import GPT2Config, GPT2LMHeadModel
from trl import GRPOTrainer
from trl.trainer.utils import add_fused_lm_head

torch.manual_seed(0)
sizes = {"vocab_size": 100, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}
quiet = {"resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0, "bos_token_id": 0, "eos_token_id": 1}
model = GPT2LMHeadModel(GPT2Config(**sizes, **quiet, initializer_range=0.3)).eval()
add_fused_lm_head(model, outputs=("log_probs", "entropy"))
trainer = SimpleNamespace(accelerator=SimpleNamespace(autocast=nullcontext))
method = GRPOTrainer._get_per_token_logps_and_entropies
method = getattr(method, "__wrapped__", method)

rows = [([60, 61], [70, 71]), ([60, 61, 62, 63, 64, 65], [72, 73])]
ids = torch.tensor([[0] * (6 - len(prompt)) + prompt + said for prompt, said in rows])
mask = torch.tensor([[0] * (6 - len(prompt)) + [1] * len(prompt + said) for prompt, said in rows])
with torch.no_grad():
    trls = method(trainer, model, ids, mask, 2)[0]
    told = model(ids, attention_mask=mask, position_ids=(mask.cumsum(-1) - 1).clamp(min=0)).logits.log_softmax(-1)
    for row, (prompt, said) in enumerate(rows):
        logits = model(torch.tensor([prompt + said])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        alone = logits.gather(1, torch.tensor(said)[:, None])[:, 0]
        mended = told[row, -3:-1].gather(1, torch.tensor(said)[:, None])[:, 0]
        apart, left = (float((each - alone).abs().max()) for each in (trls[row], mended))
        print(f"prompt of {len(prompt)}: alone {alone.tolist()}, TRL {trls[row].tolist()}: apart {apart:.3g}; "
              f"with position_ids {left:.1e}")
        assert (apart > 0.5) is (row == 0) and left < 1e-4, "this has changed"
PYTHON
