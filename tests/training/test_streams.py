"""Streams: a cursor is the whole state, and a step's rows do not depend on how many processes share them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from posttrain.errors import DataError
from posttrain.training.streams import Stream, micro_batches


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("cursor", [0, 1, 6, 7, 13, 20])
def test_a_stream_goes_on_from_any_cursor(cursor, shuffle):
    whole = Stream(7, seed=3, name="prompts", shuffle=shuffle).take(30)
    assert Stream(7, seed=3, name="prompts", shuffle=shuffle, cursor=cursor).take(30 - cursor) == whole[cursor:]


@pytest.mark.parametrize("sizes", [[5, 5, 5], [1] * 15, [11, 4], [2, 9, 4]])
def test_rows_do_not_depend_on_how_many_are_taken_at_a_time(sizes):
    stream = Stream(4, seed=0, name="prompts")
    rows = [row for size in sizes for row in stream.take(size)]
    assert rows == Stream(4, seed=0, name="prompts").take(15)
    assert stream.cursor == 15


def test_peek_shows_the_next_rows_and_stays():
    stream = Stream(5, seed=0, name="prompts", cursor=3)
    assert stream.peek(6) == stream.peek(6)
    assert stream.cursor == 3
    assert stream.peek(6) == stream.take(6)


def test_each_epoch_is_a_permutation_and_epochs_differ():
    stream = Stream(50, seed=1, name="prompts")
    epochs = [stream.take(50) for _ in range(10)]  # more epochs than the cache holds
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 10
    assert list(range(50)) not in epochs


def test_without_shuffling_rows_come_in_file_order_again_and_again():
    assert Stream(3, seed=9, name="prompts", shuffle=False).take(8) == [0, 1, 2, 0, 1, 2, 0, 1]


def test_names_and_seeds_tell_streams_apart():
    rows = {
        tuple(Stream(50, seed=seed, name=name).take(50)) for seed in (0, 1, 2) for name in ("prompts", "demonstrations")
    }
    assert len(rows) == 6


def test_the_order_is_the_same_in_every_process():
    code = "from posttrain.training.streams import Stream; print(Stream(20, seed=5, name='prompts').take(45))"
    rows = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hashes},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for hashes in ("1", "2")
    }
    assert rows == {str(Stream(20, seed=5, name="prompts").take(45))}


def test_an_empty_data_set_is_refused_by_name():
    with pytest.raises(DataError, match="the demonstrations are empty"):
        Stream(0, seed=0, name="demonstrations")


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_the_processes_together_hold_the_micro_batches_of_one_process(steps, world_size):
    rows = Stream(17, seed=0, name="prompts").take(steps * 12)
    alone = micro_batches(rows, steps=steps, rank=0, world_size=1)
    shares = [micro_batches(rows, steps=steps, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert [row for batch in alone for row in batch] == rows
    for j in range(steps):
        assert [row for share in shares for row in share[j]] == alone[j]
        assert {len(share[j]) for share in shares} == {12 // world_size}
