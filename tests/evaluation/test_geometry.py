"""RankMe and alpha-ReQ by their numbers, and of a model against its own hidden states."""

from __future__ import annotations

import pytest
import torch

from posttrain.evaluation.geometry import alpha_req, geometry, geometry_of, rankme
from posttrain.models.load import build_model, train_tokenizer


def test_rankme_of_each_spectrum():
    assert rankme([2, 1]) == pytest.approx(1.889882, abs=1e-6)  # singular values
    assert rankme([4, 1]) == pytest.approx(1.649385, abs=1e-6)  # the eigenvalues of the same
    assert rankme([4, 2, 1, 1]) == pytest.approx(3.363586, abs=1e-6)
    assert rankme([3.0] * 7) == pytest.approx(7.0)


def test_alpha_req_is_the_slope():
    assert alpha_req([place**-1.5 for place in range(1, 30)]) == pytest.approx(1.5)
    assert alpha_req([2.0, 1.0]) is None


def test_representations_by_their_singular_values():
    found = geometry_of(torch.diag(torch.tensor([2.0, 1.0])))
    assert found.rankme == pytest.approx(1.889882, abs=1e-6)
    assert (found.prompts, found.width) == (2, 2)


def test_a_saved_model(tmp_path):
    tokenizer = train_tokenizer(["one two three four"] * 3, 270)
    model = build_model(tokenizer, hidden_size=8, layers=1, heads=2).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    prompts = ["one", "two three", "four four four", "three one two"]
    rows = []
    for prompt in prompts:  # one by one, without padding
        ids = torch.tensor([tokenizer(prompt, add_special_tokens=False)["input_ids"]])
        with torch.no_grad():
            rows.append(model(ids, output_hidden_states=True).hidden_states[-1][0, -1])
    expected = geometry_of(torch.stack(rows))
    assert geometry(tmp_path, prompts).rankme == pytest.approx(expected.rankme, rel=1e-4)
