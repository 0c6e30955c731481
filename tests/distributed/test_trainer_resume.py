"""Checkpoints of several processes: resuming equals never stopping, also on another number of processes.

On as many processes as before everything is equal to the last bit. On another number, and from one to the other, it is
what two processes and one are to each other: decisions, cursors and samples exactly, numbers to float32 round-off.
"""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from posttrain.controllers import SASR, Alternate, GRPOOnly
from posttrain.curricula import BOTS, DifficultyPools
from posttrain.methods import HPT, RLSD, SRFT, UFT, Escalate, Method, ReLIFT
from tests.distributed.processes import ranks
from tests.distributed.training import Case, save_tiny, train_all

TWO = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
ONE = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}
WINDOWS = {"num_iterations": 2, "max_steps": 8, "sft_weight": "clipped", "sft_window": 2}
OPEN, END = 5, 8  # inside windows whose rollouts and whose demonstrations are partly used up

METHODS: dict[str, Method] = {
    "relift": ReLIFT(buffer=3, passing=9.0),
    "hpt": HPT(gate=3, coefficient=0.5),
    "uft": UFT(weight=0.3, hinted=1.0),
    "escalate": Escalate(blocks=(2, 1, 1), below=(2, 3), shares=(0.5, 1.0), credit=0.8),
    "rlsd": RLSD(teacher_kl=0.5),
    "srft": SRFT(),
}
METHODS_STOP = dict.fromkeys(METHODS, OPEN) | {"relift": 4}  # inside a window
OF_METHODS = {"max_steps": 8, "optim": "sgd", "learning_rate": 0.1}  # Adam makes whole steps of a bias's rounding


def of_method(name: str, size: dict) -> Case:
    """A method in windows of two optimizer steps; ReLIFT's SFT steps are the third and the sixth."""
    changes = {**size, **OF_METHODS, "steps_per_generation": 2 * size["gradient_accumulation_steps"]}
    return Case(GRPOOnly(), changes, method=METHODS[name])


def of_curriculum(size: dict) -> Case:
    """Posteriors of each prompt, that a window moves on once it is scored: the stop lies inside one."""
    changes = {**size, **OF_METHODS, "steps_per_generation": 2 * size["gradient_accumulation_steps"]}
    return Case(GRPOOnly(), changes, sparse=True, curriculum=BOTS())


CASES = {
    "windows": (
        Case(Alternate(sft_steps=1, grpo_steps=4), {**TWO, **WINDOWS, "steps_per_generation": 8}, sparse=True),
        OPEN,
    ),
    "refill": (
        Case(GRPOOnly(), {**TWO, **OF_METHODS, "refill": {"max_batches": 3}, "steps_per_generation": 4}, sparse=True),
        OPEN,
    ),
    "pools": (
        Case(
            GRPOOnly(),
            {**TWO, **OF_METHODS, "steps_per_generation": 4},
            sparse=True,
            curriculum=DifficultyPools(easy_fraction=0.3, hard_fraction=0.3),
        ),
        OPEN,
    ),
    "bots": (of_curriculum(TWO), OPEN),
    "sasr": (Case(SASR(gamma=2.0, refresh_every=2), {**TWO, "max_steps": 4}), 2),
    **{name: (of_method(name, TWO), stop) for name, stop in METHODS_STOP.items()},
    "lora": (Case(SASR(mode="blend"), {**TWO, "max_steps": 4, "beta": 0.1, "learning_rate": 1e-2}, lora=True), 2),
}
ALONE = CASES["windows"][0]._replace(changes={**ONE, **WINDOWS, "steps_per_generation": 16})

ALONE_OF = {"windows": ALONE, "bots": of_curriculum(ONE), **{name: of_method(name, ONE) for name in METHODS}}

SHARDED = ("windows", "sasr", "lora", "relift", "hpt", "pools", "bots")
ON_ANOTHER_NUMBER = tuple(ALONE_OF)


def both(names) -> dict[str, Case]:
    """Each case without a stop, with one, and resumed."""
    cases = {}
    for name in names:
        case, stop = CASES[name]
        cases[f"{name}, whole"] = case
        cases[f"{name}, cut"] = case._replace(stop=stop, folder=name)
        cases[f"{name}, resumed"] = case._replace(resume=True, folder=name)
    return cases


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("resumed")


@pytest.fixture(scope="module")
def stopped_alone(tiny, folder):
    cases = {}
    for name, case in ALONE_OF.items():
        stop = CASES[name][1]
        cases |= {f"{name}, whole": case, f"{name}, cut": case._replace(stop=stop, folder=f"{name} of one")}
    return ranks(1, train_all, tiny, folder, cases, folder=folder)[0]


@pytest.fixture(scope="module")
def ddp(tiny, folder, stopped_alone):
    cases = both(CASES)
    for name in ON_ANOTHER_NUMBER:
        shutil.copytree(folder / f"{name} of one", folder / f"{name} one to two")
        case, stop = CASES[name]
        cases[f"{name}, cut for one"] = case._replace(stop=stop, folder=f"{name} two to one")
        cases[f"{name}, from one"] = case._replace(resume=True, folder=f"{name} one to two")
    return ranks(2, train_all, tiny, folder, cases, folder=folder)[0]


@pytest.fixture(scope="module")
def fsdp(tiny, folder):
    return ranks(2, train_all, tiny, folder / "fsdp", both(SHARDED), folder=folder, fsdp=True)[0]


@pytest.mark.parametrize("name", CASES)
def test_resuming_equals_never_stopping(ddp, name):
    is_the_same(ddp, name)


@pytest.mark.parametrize("name", SHARDED)
def test_resuming_sharded_equals_never_stopping(fsdp, name):
    is_the_same(fsdp, name)


def is_the_same(results, name):
    whole, cut, resumed = (results[f"{name}, {part}"] for part in ("whole", "cut", "resumed"))
    assert {**cut.records, **resumed.records} == whole.records
    assert len(resumed.records) == len(whole.records) - CASES[name][1] > 0
    assert {**cut.completions, **resumed.completions} == whole.completions
    assert whole.weights.keys() == resumed.weights.keys()
    for key, value in whole.weights.items():
        assert torch.equal(resumed.weights[key], value), key


def close(resumed, whole):
    """What is exact on another number of processes, and what is so to round-off."""
    for step, record in resumed.records.items():
        expected = whole.records[step]
        for key in ("mix", "prompt_cursor", "demonstration_cursor", "rollouts", "curriculum"):
            assert record.get(key) == expected.get(key), (step, key)
        for key in ("sft_norm", "grpo_norm", "kl", "grpo_loss", "sft_loss"):
            if expected[key] is not None:
                assert record[key] == pytest.approx(expected[key], rel=1e-4, abs=1e-5), (step, key)
    for step, rows in resumed.completions.items():
        assert [row["completion"] for row in rows] == [row["completion"] for row in whole.completions[step]]
    for key, value in whole.weights.items():
        torch.testing.assert_close(resumed.weights[key], value, rtol=1e-4, atol=2e-5, msg=key)


@pytest.mark.parametrize("name", ON_ANOTHER_NUMBER)  # not sharded: such a checkpoint is read by shards
def test_two_go_on_with_what_one_left_and_one_with_what_two_left(name, ddp, tiny, folder, stopped_alone):
    results, stop = ddp, CASES[name][1]
    state = json.loads((folder / f"{name} two to one" / f"checkpoint-{stop}" / "posttrain.json").read_text())
    assert state["window"], "the stop must lie inside a window for this to prove much"
    close(results[f"{name}, from one"], stopped_alone[f"{name}, whole"])
    assert sorted(results[f"{name}, from one"].records) == list(range(stop + 1, END + 1))
    case = ALONE_OF[name]._replace(resume=True, folder=f"{name} two to one")
    resumed = ranks(1, train_all, tiny, folder, {"resumed": case}, folder=folder / "alone")[0]["resumed"]
    close(resumed, results[f"{name}, whole"])
    assert sorted(resumed.records) == list(range(stop + 1, END + 1))
    if name == "relift":
        assert len(state["buffer"]["waiting"]) > 0
        assert [record["method"]["used"] for record in results["relift, whole"].records.values()].count(3) == 2
