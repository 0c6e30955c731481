"""Which rows go into which bin of which process: by hand, and as laws on random windows."""

from __future__ import annotations

import random

import pytest
import torch

from posttrain.processes.ranks import Ranks
from posttrain.training.window import window
from posttrain.training.window.bins import WindowBins
from posttrain.training.window.cut import Cut
from posttrain.training.window.plan import Limits, Row, passes, plan_step, positions
from posttrain.training.window.side import _fill_unknown


def rows_of(groups, *, size=4, prompt=10, completion=5, dropped=()):
    """Groups of equal rows; those in `dropped` are not needed."""
    return [
        Row(group * size + place, group, prompt, completion, group not in dropped)
        for group in range(groups)
        for place in range(size)
    ]


def limits(rows, *, ranks=1, batch=4, packed=True, fill=False):
    bins = len(rows) // (ranks * batch)
    budget = batch * (max(row.prompt for row in rows) + max(row.completion for row in rows))
    return Limits(ranks, bins, batch, budget, packed, fill)


def test_whole_groups_share_as_few_bins_as_the_budget_allows():
    rows = rows_of(4)  # 30 positions a group; a micro-batch of 4 padded rows has 60
    assert plan_step(rows, limits(rows)) == [
        [[], [], list(range(0, 4)) + list(range(8, 12)), [*range(4, 8), *range(12, 16)]]
    ]


def test_groups_that_are_not_needed_leave_micro_batches_empty():
    rows = rows_of(4, dropped=(0, 2))
    assert plan_step(rows, limits(rows)) == [[[], [], [], [*range(4, 8), *range(12, 16)]]]


def test_a_group_that_no_bin_holds_is_split():
    rows = rows_of(2, size=8, prompt=1, completion=9)  # 73 positions a group, 20 a micro-batch
    plan = plan_step(rows, limits(rows, batch=2))[0]
    assert [len(of) for of in plan] == [2] * 8
    assert sorted(number for of in plan for number in of) == list(range(16))


def test_padded_rows_are_sorted_by_length():
    rows = [Row(number, number // 4, 3, length, True) for number, length in enumerate([9, 1, 5, 2, 8, 3, 6, 4])]
    assert plan_step(rows, limits(rows, packed=False)) == [[[0, 2, 4, 6], [1, 3, 5, 7]]]


def test_processes_get_whole_groups_where_they_come_out_even_and_equal_pieces_where_not():
    rows = rows_of(6, dropped=(1, 4, 5))
    first, second = plan_step(rows, limits(rows, ranks=2))
    flat = [[number for of in plan for number in of] for plan in (first, second)]
    assert [len(of) for of in flat] == [6, 6]
    assert {0, 1, 2, 3} <= set(flat[0])
    assert {8, 9, 10, 11} <= set(flat[1])
    assert {12, 13} <= set(flat[0])
    assert {14, 15} <= set(flat[1])


def test_rows_that_are_not_needed_even_out_the_processes_the_cheapest_first():
    rows = [Row(number, number // 4, 10, 5, number == 5) for number in range(16)]
    rows[2] = rows[2]._replace(completion=1)  # short, but with a prompt of its own to encode
    first, second = plan_step(rows, limits(rows, ranks=2, batch=2))
    assert {tuple(first[-1]), tuple(second[-1])} == {(5,), (4,)}


def test_a_step_without_any_needed_row_keeps_one_for_each_process():
    rows = rows_of(4, dropped=range(4))
    plan = plan_step(rows, limits(rows, ranks=2, batch=2))
    assert [[len(of) for of in bins] for bins in plan] == [[0, 0, 0, 1]] * 2


def test_no_bin_is_empty_where_backward_passes_are_counted():
    rows = rows_of(4, dropped=(0, 1, 2))
    plan = plan_step(rows, limits(rows, ranks=2, batch=1, fill=True))
    assert [[len(of) for of in bins] for bins in plan] == [[1] * 8] * 2
    assert {12, 13, 14, 15} <= {number for bins in plan for of in bins for number in of}


@pytest.mark.parametrize("seed", range(60))
def test_laws(seed):
    draw = random.Random(seed)
    ranks, batch, bins, size = draw.choice([1, 2, 3, 4]), draw.randint(1, 6), draw.randint(1, 5), draw.randint(2, 8)
    packed, fill = draw.random() < 0.6, draw.random() < 0.2
    count = ranks * batch * bins
    prompts = [draw.randint(1, 40) for _ in range(count)]
    dropped = {group for group in range(count) if draw.random() < 0.4}
    rows = [
        Row(
            number,
            number // size,
            prompts[number // size],
            draw.randint(0, 30),
            number // size not in dropped and draw.random() < 0.9,
        )
        for number in range(count)
    ]
    within = limits(rows, ranks=ranks, batch=batch, packed=packed, fill=fill)
    plan = plan_step(rows, within)
    assert plan == plan_step(rows, within)
    trained = [number for of_rank in plan for of in of_rank for number in of]
    assert len(trained) == len(set(trained)), "no row twice"
    needed = {row.number for row in rows if row.needed}
    assert needed <= set(trained)
    least = ranks * (bins if fill else 1)
    assert len(trained) <= max(len(needed) + ranks - 1, least), "no more rows than evening out takes"
    assert len(plan) == ranks
    sizes = [[len(of) for of in of_rank] for of_rank in plan]
    assert all(of == sizes[0] for of in sizes), "metrics gather one value per row"
    assert len(sizes[0]) == bins
    assert sizes[0][-1] > 0, "the last micro-batch reduces gradients"
    assert sorted(map(bool, sizes[0])) == [bool(size) for size in sizes[0]], "empty ones come first"
    assert not fill or all(sizes[0])
    for of_rank in plan:
        for of in of_rank:
            assert positions([rows[number] for number in of], packed=packed) <= within.budget
            groups = [number // size for number in of]
            assert groups == sorted(groups), "rows of a group follow each other"


def test_positions():
    rows = [Row(0, 0, 10, 5, True), Row(1, 0, 10, 3, True), Row(2, 1, 4, 7, True)]
    assert positions(rows, packed=True) == 10 + 5 + 3 + 4 + 7
    assert positions(rows, packed=False) == 3 * (10 + 7)
    assert positions([], packed=False) == positions([], packed=True) == 0


def test_passes_take_rows_in_order_up_to_the_budget():
    assert passes([10] * 4, [5] * 4, [False, True, True, True], 30) == [4]
    assert passes([10] * 4, [5] * 4, [False, True, True, True], 24) == [2, 2]
    assert passes([10, 10, 50], [5, 5, 5], [False, False, False], 30) == [2, 1]


# ---- on tensors, with processes that are threads' worth of data ----


def share_of(first, count, widths):
    numbers = torch.arange(first, first + count)
    lengths = 1 + numbers % widths[1]
    completion = (torch.arange(widths[1])[None] < lengths[:, None]).long()
    prompt = (torch.arange(widths[0])[None] >= widths[0] - (1 + (numbers // 4) % widths[0])[:, None]).long()
    return {
        "prompt_ids": numbers[:, None] * prompt,
        "prompt_mask": prompt,
        "completion_ids": numbers[:, None] * completion,
        "completion_mask": completion,
        "advantages": torch.where(numbers // 4 % 2 == 0, numbers + 1.0, 0.0),
        "old_per_token_logps": -numbers[:, None].float() * completion,
        "num_items_in_batch": torch.tensor(99),
        "name": [f"row {number}" for number in numbers.tolist()],
        "nothing": None,
    }


def planned(processes, *, packed=True, steps=2, widths=(6, 5), count=64, micro_batches=4):
    """What each of several processes makes of a window, run in lockstep by threads."""
    from concurrent.futures import ThreadPoolExecutor
    from threading import Barrier

    own = count // processes
    barrier, board = Barrier(processes), [None] * processes

    class Lockstep(Ranks):
        def gathered(self, value):
            board[self.number] = value
            barrier.wait(20)
            values = list(board)
            barrier.wait(20)
            return values

    def one(rank):
        ranks = Lockstep(rank, processes, processes)
        cut = Cut(count, micro_batches, steps, 1)
        bins = WindowBins(cut, ranks, group=4, drop=True, packed=packed, fill=False)
        share = share_of(rank * own, own, (widths[0] + rank, widths[1]))
        result = bins.plan(share)
        return result, bins.brought_home(result, "old_per_token_logps", share), share

    with ThreadPoolExecutor(processes) as pool:
        return list(pool.map(one, range(processes)))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_rows_arrive_whole_where_they_are_trained_on(processes, packed):
    trained = []
    for result, home, share in planned(processes, packed=packed):
        for step, (numbers, batch) in enumerate(zip(result.numbers, result.batches, strict=True)):
            assert bool(numbers) == bool(batch)
            trained += numbers
            if not numbers:
                continue
            assert {number % 2 for number in numbers} == {step // 2}
            rows = torch.tensor(numbers)
            assert batch["advantages"].tolist() == torch.where(rows // 4 % 2 == 0, rows + 1.0, 0.0).tolist()
            assert batch["num_items_in_batch"] == 99
            assert batch["name"] == [f"row {number}" for number in numbers]
            assert batch["nothing"] is None
            for part in ("prompt", "completion"):
                mask = batch[f"{part}_mask"]
                assert mask.any(dim=0).all(), "no column is padding in every row"
                assert torch.equal(batch[f"{part}_ids"], rows[:, None] * mask)
            assert batch["completion_mask"].sum(1).tolist() == (1 + rows % 5).tolist()
            assert torch.equal(batch["old_per_token_logps"], -rows[:, None].float() * batch["completion_mask"])
        known = ~home[:, 0].isnan()
        assert torch.equal(known | (share["advantages"] == 0), torch.ones_like(known))
        mask = share["completion_mask"].bool() & known[:, None]
        assert torch.equal(home[mask], share["old_per_token_logps"][mask])
    assert len(set(trained)) == len(trained)
    assert set(trained) >= {number for number in range(64) if number // 4 % 2 == 0}


def test_a_column_is_0_where_its_micro_batch_was_narrower():
    share = share_of(0, 8, (3, 6))
    share["completion_mask"][:, 2:] = 0
    bins = WindowBins(Cut(8, 2, 1, 1), Ranks(), group=4, drop=True, packed=True, fill=False)
    result = bins.plan(share)
    home = bins.brought_home(result, "old_per_token_logps", share)
    assert home[:4, 2:].eq(0).all()
    assert home[4:].isnan().all()


@pytest.mark.parametrize("per_token", [False, True])
def test_what_is_unknown_is_0_where_nothing_adds_and_stays_unknown_elsewhere(per_token):
    share = share_of(0, 8, (3, 6))
    share["old_per_token_logps"] = torch.full((8, 6), float("nan"))
    if per_token:
        share["advantages"] = share["advantages"][:, None].expand(8, 6)
    _fill_unknown(share)
    assert share["old_per_token_logps"][:4].isnan().tolist() == share["completion_mask"][:4].bool().tolist()
    assert share["old_per_token_logps"][4:].eq(0).all()


def test_what_is_needed():
    share = share_of(0, 8, (3, 3))
    assert window.needed(share).tolist() == [True] * 4 + [False] * 4
    share["completion_mask"][0] = 0
    share["snapshot_logps"] = torch.full((8, 3), float("nan"))
    share["snapshot_logps"][5] = -1.0
    assert window.needed(share).tolist() == [False, True, True, True, False, True, False, False]
    share["advantages"] = share["advantages"][:, None] * torch.tensor([0.0, 0.0, 1.0])
    assert window.needed(share).tolist() == [False, True, True, True, False, True, False, False]


def test_only_padding_is_trimmed():
    share = share_of(0, 4, (6, 6))
    share["completion_mask"][:, 3:] = 0
    share["importance_sampling_ratio"] = torch.ones(4, 1)
    widths = {name: value.size(1) for name, value in window.trimmed(share).items() if name.endswith(("ids", "ratio"))}
    assert widths == {"prompt_ids": 1, "completion_ids": 3, "importance_sampling_ratio": 1}
    kept = window.trimmed(share, prompts=False)
    assert torch.equal(kept["prompt_ids"], share["prompt_ids"])
    assert kept["completion_ids"].size(1) == 3
    share["of_prompt_tokens"] = torch.ones(4, 6)
    assert window.trimmed(share) is share, "nobody knows which of the two it goes with"
