"""How many directions a model's representations take: RankMe and alpha-ReQ (arXiv 2210.02885; Agrawal et al. 2022).

Phi is the last hidden state of the last token of each of M prompts, (M, width), not centred. RankMe is the exponential
of the entropy of its singular values, each as a share of their sum; alpha-ReQ the slope, times -1, of the logarithm of
the eigenvalues of Phi^T Phi / M (the squares of these) on the logarithm of their place. Of other spectra both are other
numbers. In arXiv 2509.23024 SFT and DPO raise RankMe, and RL with verifiable rewards lowers it: a monitor of which side
a mix is on, that costs one pass over some prompts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from posttrain.models.load import load_policy, load_tokenizer
from posttrain.models.policy_weights import base_model

BATCH = 16
LEAST = 1e-6
"""Singular values below this share of the largest are round-off, and left out."""


@dataclass(frozen=True)
class Geometry:
    """Of a model's representations.

    Attributes:
        rankme: Between 1 and the smaller of prompts and width.
        alpha_req: Larger where fewer directions hold more; `None` with fewer than three.
        prompts: M.
        width: Of the hidden state.
    """

    rankme: float
    alpha_req: float | None
    prompts: int
    width: int


def rankme(spectrum: Sequence[float]) -> float:
    """exp of the entropy of a spectrum's shares."""
    values = np.asarray([value for value in spectrum if value > 0], dtype=float)
    shares = values / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def alpha_req(eigenvalues: Sequence[float]) -> float | None:
    """-slope of ln(eigenvalue) on ln(place), the largest in place 1; None of fewer than three."""
    values = np.sort(np.asarray([value for value in eigenvalues if value > 0], dtype=float))[::-1]
    if len(values) < 3:
        return None
    slope, _ = np.polyfit(np.log(np.arange(1, len(values) + 1)), np.log(values), 1)
    return float(-slope)


def geometry_of(phi: torch.Tensor) -> Geometry:
    """Both measures of representations.

    Args:
        phi: (prompts, width).
    """
    singular = torch.linalg.svdvals(phi.double())
    kept = singular[singular > LEAST * singular.max()].tolist()
    return Geometry(rankme(kept), alpha_req([value**2 / len(phi) for value in kept]), *phi.shape)


def geometry(folder: str | Path, prompts: Sequence[str], *, trust_remote_code: bool = False) -> Geometry:
    """Of a saved model, an adapter's too, in float32 on the CPU or the GPU that there is.

    Args:
        folder: The model.
        prompts: Text; or conversations as JSON, which go through the model's chat template.
        trust_remote_code: Of the model.
    """
    tokenizer = load_tokenizer(folder, trust_remote_code=trust_remote_code)
    model = load_policy(folder, trainable=False, trust_remote_code=trust_remote_code).eval()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device)
    texts = [_rendered(prompt, tokenizer) for prompt in prompts]
    rows = []
    for start in range(0, len(texts), BATCH):
        inputs = tokenizer(texts[start : start + BATCH], return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.no_grad():
            inputs = {name: inputs[name].to(device) for name in ("input_ids", "attention_mask")}
            hidden = base_model(model)(**inputs, output_hidden_states=True).hidden_states[-1]
        rows.append(hidden[:, -1].float().cpu())  # padding is on the left
    return geometry_of(torch.cat(rows))


def _rendered(prompt: str, tokenizer: Any) -> str:
    try:
        messages = json.loads(prompt)
    except ValueError:
        return prompt
    if not (isinstance(messages, list) and messages and isinstance(messages[0], dict) and "role" in messages[0]):
        return prompt
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
