"""SRFT on real steps: the gradient by hand, its terms alone, and weights that carry no gradient."""

from __future__ import annotations

import pytest
import torch

from posttrain.methods import SRFT
from tests.training.test_methods import moved, off, row, trained

METHODS = {
    "all": SRFT(),
    "nll": SRFT(demonstrated=0.0, right=0.0, wrong=0.0),
    "demonstrated": SRFT(sft=0.0, right=0.0, wrong=0.0),
    "rollouts": SRFT(sft=0.0, demonstrated=0.0),
}


def scores(model, prompt, ids):
    """Log-probabilities of the tokens, and their mean entropy."""
    logits = model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    return logits[range(len(ids)), ids], float(-(logits.exp() * logits).detach().sum(-1).mean())


def by_hand(trainer, model, method):
    """The step's loss, and the weights of NLL and of right rollouts, from single rows without padding."""
    share, group = trainer._share, trainer.num_generations
    rows = [row(share, place) for place in range(len(share["completion_ids"]))]
    texts = trainer.processing_class.batch_decode([ids for _, ids in rows], skip_special_tokens=True)
    shown = [trainer.pairs.ids[int(number)] for number in share["demonstration"][::group]]
    answers = [trainer.pairs.rows[int(number)]["answer"] for number in share["demonstration"]]
    right = [str(a) in text or len(text) % 2 == 1 for text, a in zip(texts, answers, strict=True)]
    assert 0 < sum(right) < len(right)
    of_demonstrations = sum(map(len, shown))
    beside = of_demonstrations if method.sft or method.demonstrated else 0
    every = sum(len(ids) for _, ids in rows) + beside
    loss, nlls, rights = torch.zeros(()), [], []
    for (prompt, ids), good in zip(rows, right, strict=True):
        logps, entropy = scores(model, prompt, ids)
        if good:
            rights.append(method.right * torch.tensor(entropy).exp())
            loss = loss - rights[-1] * logps.sum() / every
        else:
            loss = loss + method.wrong * logps.sum() / every
    for number, ids in enumerate(shown):
        logps, entropy = scores(model, rows[number * group][0], ids)
        rewards = torch.tensor([*right[number * group : (number + 1) * group], True]).float()
        advantage = (1 - rewards.mean()) / (rewards.std() + 1e-4)
        nlls.append(method.sft * torch.tensor(-entropy).exp())
        loss = loss - nlls[-1] * logps.sum() / of_demonstrations
        loss = loss - method.demonstrated * advantage * logps.exp().sum() / every
    return loss, sum(nlls) / len(nlls), sum(rights) / len(rights)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
def test_the_gradient_is_the_one_by_hand(name, packed, model, tokenizer, prompts, demonstrations, tmp_path):
    method = METHODS[name]
    trainer, start = trained(
        model, tokenizer, prompts, demonstrations, tmp_path, method, packed=packed, per_device_train_batch_size=16
    )
    loss, nll_weight, right_weight = by_hand(trainer, start, method)
    loss.backward()
    expected = torch.cat([p.grad.flatten() for p in start.parameters()])
    assert off(moved(trainer, start), expected) < 1e-5
    record = trainer.last_record["method"]
    if method.sft:
        assert record["nll_weight"] == pytest.approx(float(nll_weight), rel=1e-5)
        assert record["demonstrations"] == 4
    if method.right:
        assert record["right_weight"] == pytest.approx(float(right_weight), rel=1e-5)
