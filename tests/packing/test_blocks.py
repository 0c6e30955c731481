"""Blocks hold every position once, little besides, and attend as each span alone does."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from posttrain.packing import attention
from posttrain.packing.blocks import MOST, SHARE, blocks
from posttrain.packing.tree import grow, lay
from posttrain.processes.side_by_side import set_num_threads

WIDTHS = [random.Random(3).randint(1, 90) for _ in range(40)] + [200, 200, 170, 1]


def spans_of(widths):
    ends = torch.tensor([0, *widths]).cumsum(0).tolist()
    return list(itertools.pairwise(ends))


def test_every_position_stands_once_and_padding_is_little():
    found = blocks(spans_of(WIDTHS), torch.device("cpu"))
    own = torch.cat([block.own for block in found])
    assert sorted(own.tolist()) == list(range(sum(WIDTHS)))
    assert len(found) <= 14
    for block in found:
        assert len(block.own) + len(block.padding) == block.rows * block.width == len(block.places)
        kept = [width for width in WIDTHS if width <= block.width][: block.rows]
        assert len(kept) == block.rows
        assert len(block.padding) <= block.rows * min(MOST, SHARE * block.width)
    assert any(len(block.padding) for block in found)
    assert any(block.real is None for block in found), "of two that are equal nothing is repeated"


def test_what_is_put_back_is_what_was_taken():
    whole = torch.randn(1, 3, sum(WIDTHS), 4).transpose(1, 2).contiguous().transpose(1, 2)
    again = torch.full_like(whole, torch.nan)
    for block in blocks(spans_of(WIDTHS), torch.device("cpu")):
        taken = block.take(whole)
        assert taken.shape == (block.rows, 3, block.width, 4)
        block.put(again, taken)
        assert block.take(whole, zero_padded=True).transpose(1, 2).flatten(0, 1)[block.padding].count_nonzero() == 0
    assert torch.equal(again, whole)


@pytest.mark.parametrize("keys", [4, 2, 1])
def test_attention_and_its_gradients_are_those_of_each_span_alone(keys):
    torch.manual_seed(0)
    widths = [1, 3, 17, 18, 20, 64, 60, 7]
    ids = torch.full((len(widths), max(widths) + 1), 5)
    labels = torch.full_like(ids, -100)
    for row, width in enumerate(widths):
        labels[row, 1 : width + 1] = 5
    tree = lay(ids, labels)
    assert [stop - start for start, stop in tree.spans] == widths
    assert len(tree.shares(1)[0].blocks) < len(widths)
    count = sum(widths)
    shapes = ((1, 4, count, 8), (1, keys, count, 8), (1, keys, count, 8))
    states = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    weight = torch.randn(1, 4, count, 8, dtype=torch.float64)
    found = attention._Merged.apply(*states, tree, 0.3)
    (found * weight).sum().backward()
    gradients = [each.grad.clone() for each in states]
    for each in states:
        each.grad = None
    alone = [
        scaled_dot_product_attention(*(each[:, :, a:b] for each in states), is_causal=True, scale=0.3, enable_gqa=True)
        for a, b in tree.spans
    ]
    expected = torch.cat(alone, dim=2)
    (expected * weight).sum().backward()
    torch.testing.assert_close(found, expected)
    for gradient, each in zip(gradients, states, strict=True):
        torch.testing.assert_close(gradient, each.grad)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_share_groups_and_change_nothing(monkeypatch, threads):
    torch.manual_seed(0)
    rng = random.Random(1)
    prompts = torch.tensor([[number, number, 7] for number in (1, 2, 3, 4, 5) for _ in range(3)])
    widths = torch.tensor([rng.randint(1, 25) for _ in prompts])
    completions = torch.randint(8, 20, (len(prompts), 25))
    tree = grow(prompts, torch.ones_like(prompts), completions, (torch.arange(25) < widths[:, None]).long())
    count = tree.input_ids.shape[1]
    states = [torch.randn(1, 4, count, 8, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    weight = torch.randn(1, 4, count, 8, dtype=torch.float64)

    def run(read):
        found = read()
        gradients = torch.autograd.grad((found * weight).sum(), states)
        return [found, *gradients]

    expected = run(lambda: attention.masked(*states, tree, 0.3))
    monkeypatch.setattr(attention, "SHARED", 0)
    shares = []
    side_by_side = attention.side_by_side
    monkeypatch.setattr(attention, "side_by_side", lambda work: shares.append(len(work)) or side_by_side(work))
    before = torch.get_num_threads()
    set_num_threads(threads)
    try:
        found = run(lambda: attention._Merged.apply(*states, tree, 0.3))
    finally:
        set_num_threads(before)
    assert shares == [threads, threads]
    torch.testing.assert_close(found, expected)
    held = [block.own for share in tree.shares(threads) for block in share.blocks]
    assert sorted(torch.cat(held).tolist()) == list(range(count))
    assert sorted(branch for share in tree.shares(threads) for branch in share.branches) == sorted(tree.branches)


def test_what_can_not_be_dealt_evenly_is_one_share():
    even, uneven = [[3, 3, 3], [3, 2, 3]], [[3, 40], [2, 2]]
    for widths, count in ((even, 2), (uneven, 1), (even[:1], 1)):
        prompts = torch.tensor([[number, 7] for number, some in enumerate(widths, 1) for _ in some])
        lengths = torch.tensor([width for some in widths for width in some])
        completions = torch.full((len(prompts), 50), 9)
        mask = (torch.arange(50) < lengths[:, None]).long()
        tree = grow(prompts, torch.ones_like(prompts), completions, mask)
        assert len(tree.shares(2)) == count
