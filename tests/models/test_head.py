"""The head of packed passes against log_softmax in float64, and who gets it."""

from __future__ import annotations

import inspect

import pytest
import torch
from trl import kernels
from trl.trainer import utils

from posttrain.models import head

ROWS, WIDTH, VOCABULARY = 90, 16, 37

pytestmark = pytest.mark.skipif(not head.products.available(), reason="torch has no oneDNN operators")


@pytest.fixture
def case():
    torch.manual_seed(0)
    hidden, weight = torch.randn(ROWS, WIDTH).requires_grad_(), (0.3 * torch.randn(VOCABULARY, WIDTH)).requires_grad_()
    return hidden, weight, torch.randint(VOCABULARY, (ROWS,)), torch.randn(ROWS), torch.randn(ROWS)


def in_float64(hidden, weight, targets, scale):
    logs = (scale * hidden.double() @ weight.double().t()).log_softmax(-1)
    return logs.gather(1, targets[:, None])[:, 0], -(logs.exp() * logs).sum(-1)


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "computed-again"])
@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("scale", [1.0, 1.6])
def test_scores_entropies_and_gradients_are_those_of_log_softmax(case, monkeypatch, kept, pieces, scale):
    hidden, weight, targets, one, other = case
    monkeypatch.setattr(head, "KEPT", 10**9 if kept else 0)
    monkeypatch.setattr(head, "_pieces", lambda *_: [slice(n, ROWS, pieces) for n in range(pieces)])
    *found, top1 = head.LogProbs.apply(hidden, weight, targets, scale, True, True)
    assert torch.equal(top1, (hidden @ weight.t()).argmax(1) == targets)
    expected = in_float64(hidden, weight, targets, scale)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)
    for outputs in (slice(0, 1), slice(1, 2), slice(0, 2)):
        cotangents = (one, other)[outputs]
        ours = torch.autograd.grad(found[outputs], (hidden, weight), cotangents, retain_graph=True)
        theirs = torch.autograd.grad(
            expected[outputs], (hidden, weight), [each.double() for each in cotangents], retain_graph=True
        )
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a.double(), b.double(), rtol=1e-5, atol=1e-5)


def test_a_probability_of_zero_has_an_entropy_and_gradients(case):
    hidden, weight, targets, one, other = case
    scores, entropies, _ = head.LogProbs.apply(hidden, weight, targets, 1e3, True)
    assert (entropies >= -1e-6).all()
    for each in torch.autograd.grad((scores, entropies), (hidden, weight), (one, other)):
        assert each.isfinite().all()


def test_pieces_cover_all_rows_once():
    for rows, vocabulary in ((1, 5), (1025, 5), (700, 10**5)):
        places = [
            n for piece in head._pieces(torch.empty(rows, 1), torch.empty(vocabulary, 1)) for n in range(rows)[piece]
        ]
        assert places == list(range(rows))


def test_a_frozen_head_costs_no_gradient(case):
    hidden, weight, targets, one, _ = case
    scores, *_ = head.LogProbs.apply(hidden, weight.detach(), targets, 1.0, False)
    scores.backward(one)
    assert hidden.grad is not None
    assert weight.grad is None


def test_trl_looks_for_its_function_where_it_is_replaced_and_calls_it_so():
    head.install()
    head.install()
    replaced = getattr(utils, head.REPLACED)
    assert replaced._theirs is kernels.chunked_logprob.ChunkedLogProbFunction
    known = [
        "hidden",
        "weight",
        "bias",
        "targets",
        "temperature",
        "chunk_size",
        "final_logit_softcapping",
        "logit_scale",
    ]
    assert list(inspect.signature(replaced._theirs.forward).parameters)[1:] == [*known, "outputs"]


def test_only_an_expected_pass_comes_here_once_and_what_is_special_goes_to_trl(case, monkeypatch):
    hidden, weight, targets, *_ = case
    head.install()
    replaced, calls = getattr(utils, head.REPLACED), []
    ours = head.LogProbs.apply
    monkeypatch.setattr(head.LogProbs, "apply", lambda *given: calls.append(1) or ours(*given))

    def scored(weight=weight, bias=None, softcap=None, outputs=("log_probs", "entropy", "is_top1")):
        return replaced.apply(hidden, weight, bias, targets, 0.7, 32768, softcap, 1.5, outputs)

    plain = scored()
    assert not calls
    head.expected()
    packed = scored()
    assert calls == [1]
    for a, b in zip(plain, packed, strict=True):
        torch.testing.assert_close(a, b)
    scored()
    for special in ({"bias": torch.zeros(VOCABULARY)}, {"softcap": 30.0}, {"outputs": ("log_probs", "mean_logits")}):
        head.expected()
        scored(**special)
        assert not getattr(head._passes, "expected", False)
    head.expected()
    scored(weight=weight.t().contiguous().t())
    assert calls == [1]
