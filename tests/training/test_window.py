"""The order of a window's rows, by hand and as laws: it depends on neither the processes nor the micro-batches."""

from __future__ import annotations

import math

import pytest
import torch

from posttrain.errors import ResumeError
from posttrain.training.checkpoints.resume_state import (
    describe_window,
    load_state,
    load_window,
    save_state,
    save_window,
)
from posttrain.training.window import window
from posttrain.training.window.cut import Cut
from posttrain.training.window.kl import NAME, kl_sum


def rollouts(first, count, prompt_width=3, width=4):
    """Rows that carry their global numbers."""
    rows = torch.arange(first, first + count)
    return {
        "prompt_ids": rows[:, None].repeat(1, prompt_width),
        "prompt_mask": torch.ones(count, prompt_width, dtype=torch.long),
        "completion_ids": rows[:, None].repeat(1, width),
        "completion_mask": torch.ones(count, width, dtype=torch.long),
        "advantages": rows.float(),
        "snapshot_logps": rows[:, None].repeat(1, width).float(),
        "num_items_in_batch": torch.tensor(99),
    }


def numbers(batch):
    return batch["completion_ids"][:, 0].tolist()


def shares(processes, count=16, **widths):
    own = count // processes
    return [rollouts(rank * own, own, **widths) for rank in range(processes)]


@pytest.mark.parametrize(
    ("micro_batches", "accumulation", "steps"),
    [(4, 4, 1), (8, 4, 2), (4, 1, 4), (2, 4, 1), (1, 4, 1), (3, 2, 3)],
)
def test_how_many_optimizer_steps_share_a_window(micro_batches, accumulation, steps):
    assert window.optimizer_steps(micro_batches, accumulation) == steps


def test_a_cut_by_hand():
    batches = window.cut(rollouts(8, 8), micro_batches=4, steps=2)
    assert [numbers(batch) for batch in batches] == [[8, 10], [12, 14], [9, 11], [13, 15]]
    assert all(batch["num_items_in_batch"] == 99 for batch in batches)
    assert all(batch["advantages"].tolist() == numbers(batch) for batch in batches)


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize(("processes", "accumulation"), [(1, 1), (1, 2), (2, 1), (2, 2), (4, 1)])
def test_a_steps_rows_depend_neither_on_the_processes_nor_on_the_cut(steps, processes, accumulation):
    trained = [set() for _ in range(steps)]
    for share in shares(processes):
        batches = window.cut(share, micro_batches=steps * accumulation, steps=steps)
        for place, batch in enumerate(batches):
            trained[place // accumulation] |= set(numbers(batch))
    assert trained == [set(range(step, 16, steps)) for step in range(steps)]


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_joining_undoes_cutting(steps):
    share = rollouts(0, 8)
    back = window.join(window.cut(share, micro_batches=4, steps=steps), steps=steps)
    assert back.keys() == share.keys()
    assert all(torch.equal(back[name], share[name]) for name in share)


@pytest.mark.parametrize(("before", "now"), [(2, 1), (1, 2), (4, 2), (2, 4), (2, 2)])
def test_a_window_moves_between_numbers_of_processes(before, now):
    rows = [
        number for rank in range(now) for number in numbers(window.share(shares(before), rank=rank, world_size=now))
    ]
    assert rows == list(range(16))


def test_padding_evens_out_widths_and_changes_nothing_else():
    narrow, wide = rollouts(0, 2, prompt_width=1, width=2), rollouts(2, 2, prompt_width=3, width=4)
    whole = window.share([narrow, wide], rank=0, world_size=1)
    assert whole["prompt_ids"].tolist() == [[0, 0, 0], [0, 0, 1], [2, 2, 2], [3, 3, 3]]
    assert whole["prompt_mask"].tolist() == [[0, 0, 1], [0, 0, 1], [1, 1, 1], [1, 1, 1]]
    assert whole["completion_ids"].tolist() == [[0, 0, 0, 0], [1, 1, 0, 0], [2] * 4, [3] * 4]
    assert whole["completion_mask"].sum(1).tolist() == [2, 2, 4, 4]
    assert whole["snapshot_logps"].isnan().sum(1).tolist() == [2, 2, 0, 0]
    assert window.share([narrow, wide], rank=0, world_size=2) is narrow, "not a bit is changed without need"


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("portion", [0.01, 0.25, 0.5, 1.0])
def test_every_step_has_its_part_of_the_sample(steps, portion):
    rows = window.sampled_rows(32, steps=steps, portion=portion)
    of_step = max(1, round(portion * 32 / steps))
    assert [sum(row % steps == step for row in rows) for step in range(steps)] == [of_step] * steps
    assert rows == sorted(set(rows))
    assert max(rows) < 32


def test_the_sample_is_spread_over_the_window():
    assert window.sampled_rows(8, steps=1, portion=0.5) == [0, 2, 5, 7]
    assert window.sampled_rows(8, steps=2, portion=0.5) == [0, 1, 6, 7]
    assert window.sampled_rows(4, steps=1, portion=1.0) == [0, 1, 2, 3]


# ---- in a checkpoint ----

CUT = Cut(rows=16, micro_batches=4, steps=2, iterations=1)


def saved(folder, processes=2):
    for rank, share in enumerate(shares(processes)):
        save_window(folder, rank, share)
    return describe_window(CUT, processes)


def load(folder, description, cut=CUT, **where):
    where = {"rank": 0, "world_size": 2, **where}
    return load_window(folder, description, cut, device=torch.device("cpu"), **where)


def test_a_saved_window_comes_back_as_it_was(tmp_path):
    share, same = load(tmp_path, saved(tmp_path), rank=1), shares(2)[1]
    assert share.keys() == same.keys()
    assert all(torch.equal(share[name], same[name]) for name in same)


@pytest.mark.parametrize(("rank", "world_size", "micro_batches"), [(0, 1, 8), (0, 1, 4), (3, 4, 2)])
def test_a_saved_window_is_read_by_another_number_of_processes(tmp_path, rank, world_size, micro_batches):
    description = saved(tmp_path)
    cut = CUT._replace(micro_batches=micro_batches)
    share = load(tmp_path, description, cut, rank=rank, world_size=world_size)
    assert numbers(share) == numbers(shares(world_size)[rank])


@pytest.mark.parametrize("change", [{"rows": 32}, {"steps": 4}, {"iterations": 2}])
def test_windows_of_another_size_are_refused(tmp_path, change):
    with pytest.raises(ResumeError, match="lies inside a window of 16 completions for 2 optimizer steps, 1 times"):
        load(tmp_path, saved(tmp_path), CUT._replace(**change))


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_bytes(b"torn")])
@pytest.mark.parametrize("world_size", [1, 2])
def test_a_share_that_cannot_be_read_is_named(tmp_path, damage, world_size):
    description = saved(tmp_path)
    damage(tmp_path / "rollouts-rank0.safetensors")
    with pytest.raises(ResumeError, match=r"(?s)cannot be read.*rollouts-rank0.safetensors"):
        load(tmp_path, description, world_size=world_size)


def test_a_state_of_another_format_is_refused(tmp_path):
    save_state(tmp_path, {"prompt_cursor": 3})
    assert load_state(tmp_path)["prompt_cursor"] == 3
    (tmp_path / "posttrain.json").write_text('{"prompt_cursor": 3, "micro_step": 8}')
    with pytest.raises(ResumeError, match="has the format 1"):
        load_state(tmp_path)
    (tmp_path / "posttrain.json").unlink()
    with pytest.raises(ResumeError, match=r"has no posttrain.json"):
        load_state(tmp_path)


def test_masked_padding_is_not_measured():
    inputs = rollouts(0, 2)
    assert kl_sum({k: v for k, v in inputs.items() if k != NAME}, torch.zeros(2, 4)) is None
    inputs[NAME] = torch.tensor([[0.0, 0.5, 0.0, 0.0], [math.nan] * 4])
    inputs["completion_mask"][0, 2:] = 0
    total, count = map(float, kl_sum(inputs, torch.zeros(2, 4)))
    assert (total, count) == (pytest.approx(math.exp(0.5) - 0.5 - 1), 2)
