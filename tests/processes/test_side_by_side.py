"""Work side by side: results in order, torch's threads shared out and given back, errors told and nobody left."""

from __future__ import annotations

import sys
import threading
import time

import pytest
import torch

from posttrain.processes.side_by_side import set_num_threads, side_by_side


@pytest.fixture(autouse=True)
def four_threads():
    before = torch.get_num_threads()
    set_num_threads(4)
    yield
    set_num_threads(before)


def test_results_come_in_order_and_the_first_is_this_threads():
    both, interval = threading.Barrier(2, timeout=60), sys.getswitchinterval()  # neither gets past it alone

    def one(number):
        both.wait()
        return number, threading.get_ident(), torch.get_num_threads()

    (first, thread, share), (second, other, theirs) = side_by_side([lambda: one(0), lambda: one(1)])
    assert (first, second) == (0, 1)
    assert thread == threading.get_ident() != other
    assert share == theirs == 2
    assert torch.get_num_threads() == 4
    assert sys.getswitchinterval() == interval
    found = []
    later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert found == [4], "and threads that begin later have them all"


def test_also_where_vllm_has_replaced_what_torch_has(monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    assert side_by_side([torch.get_num_threads] * 4) == [1, 1, 1, 1]
    assert torch.get_num_threads() == 4


def test_one_alone_has_all_threads():
    assert side_by_side([torch.get_num_threads]) == [4]


@pytest.mark.parametrize("which", [0, 1])
def test_an_error_ends_the_others_and_is_raised(which):
    stop, ended = threading.Event(), []

    def fails():
        raise KeyError("which")

    def goes_on():
        assert stop.wait(60)
        ended.append(True)

    work = [goes_on, goes_on, goes_on]
    work[which] = fails
    with pytest.raises(KeyError, match="which"):
        side_by_side(work, stop)
    assert ended == [True, True]
    assert torch.get_num_threads() == 4
    assert not [each for each in threading.enumerate() if each.name.startswith("side-by-side")]


def test_what_interrupts_the_waiting_ends_the_others(monkeypatch):
    """As Ctrl-C does, which the main thread alone hears."""
    stop = threading.Event()

    class Interrupting:
        def __init__(self, future):
            self.future = future

        def result(self):
            raise KeyboardInterrupt

    from posttrain.processes import side_by_side as module

    class Pool(module.ThreadPoolExecutor):
        def submit(self, *args):
            return Interrupting(super().submit(*args))

    monkeypatch.setattr(module, "ThreadPoolExecutor", Pool)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        side_by_side([lambda: None, lambda: stop.wait(600)], stop)
    assert time.monotonic() - began < 60
