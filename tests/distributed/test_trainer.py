"""`HybridTrainer` on two processes is `HybridTrainer` on one, under DDP and FSDP2 over gloo.

Exact: which losses a step is made of, cursors, what is sampled to the last token, and all that each process holds in
common with the other. To float32 round-off: norms, the weights of a blend that follow from them, losses, KL and
parameters, for sums over rows are taken in another order.
"""

from __future__ import annotations

import pytest
import torch

from posttrain.controllers import GAC, SASR, Alternate, GRPOOnly, Static
from posttrain.curricula import BOTS, DUMP, DifficultyPools, MixedSources
from posttrain.methods import HPT, LUFFY, RLSD, SRFT, UFT, Escalate, PrefixRFT, ReLIFT
from tests.distributed.processes import ranks
from tests.distributed.training import ROWS, Case, save_tiny, train_all

TWO = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
MORE_ROWS = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}
MORE_MICRO_BATCHES = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}

WINDOWS = {"steps_per_generation": 4, "num_iterations": 2, "max_steps": 7}
EVALUATED = {"eval_strategy": "steps", "eval_steps": 3, "num_generations_eval": 2}
OF_METHODS = {"max_steps": 3, "kl_sample": 1.0, "optim": "sgd", "learning_rate": 0.1, "steps_per_generation": 2}
OF_CURRICULA = {"max_steps": 4, "optim": "sgd", "learning_rate": 0.1, "steps_per_generation": 2}
SHARES = {str(row["answer"]): 1.0 + number for number, row in enumerate(ROWS)}
CASES = {
    "sasr": Case(SASR(gamma=2.0, refresh_every=2), {"max_steps": 6, **EVALUATED}),
    "blend": Case(SASR(mode="blend", match_norms=True), {"max_steps": 3, "kl_offload": True}),
    "windows": Case(Alternate(sft_steps=1, grpo_steps=4), WINDOWS),
    "dropping": Case(GRPOOnly(), {**WINDOWS, "max_steps": 5, "kl_sample": 0.0, "epsilon": 0.01}, sparse=True),
    # SGD: a key's bias has no gradient but rounding, of which Adam makes whole steps
    "gpt2": Case(
        GRPOOnly(),
        {**WINDOWS, "max_steps": 5, "kl_sample": 1.0, "optim": "sgd", "learning_rate": 0.1},
        sparse=True,
        placed=True,
    ),
    # Some of a round's groups are one process's, and the other has none
    "refill": Case(
        GRPOOnly(),
        {"max_steps": 4, "kl_sample": 1.0, "refill": {"max_batches": 3}, "optim": "sgd", "learning_rate": 0.1},
        sparse=True,
    ),
    "dump": Case(
        GRPOOnly(),
        {"max_steps": 4, "refill": {"max_batches": 3}, "optim": "sgd", "learning_rate": 0.1},
        sparse=True,
        curriculum=DUMP(source="answer"),
    ),
    "bots": Case(Alternate(sft_steps=1, grpo_steps=4), WINDOWS, curriculum=BOTS()),
    "pools": Case(GRPOOnly(), OF_CURRICULA, sparse=True, curriculum=DifficultyPools(hard_fraction=0.3)),
    "mixed_sources": Case(GRPOOnly(), OF_CURRICULA, curriculum=MixedSources(source="answer", shares=SHARES)),
    "beta": Case(Static(sft_share=0.5, mode="blend"), {"max_steps": 3, "beta": 0.1}),
    "phi": Case(Static(sft_share=0.4, mode="blend"), {"max_steps": 3, "sft_weight": "phi"}),
    "dco": Case(Static(sft_share=0.4, mode="blend"), {"max_steps": 3, "sft_weight": "dco", "sft_tries": 100_000_000}),
    "pearson": Case(Static(sft_share=0.4, mode="blend"), {"max_steps": 3, "sft_weight": "pearson"}),
    # Selected by entropies of each completion, whose rows lie on other processes and in other micro-batches
    "tokens": Case(
        GRPOOnly(),
        {
            "max_steps": 3,
            "beta": 0.1,
            "kl_sample": 1.0,
            "optim": "sgd",
            "learning_rate": 0.1,
            "tokens": {"top_entropy": 0.3, "band": {"coef": 0.1}},
        },
    ),
    "unselected": Case(
        Static(sft_share=0.4, mode="blend"),
        {"max_steps": 3, "sft_weight": "unselected", "tokens": {"top_entropy": 0.3}},
    ),
    "migu": Case(Static(sft_share=0.4, mode="blend"), {"max_steps": 3, "migu": 0.7, "optim": "sgd"}),
    "clipped": Case(Alternate(sft_steps=2, grpo_steps=1), {"max_steps": 6, "sft_weight": "clipped", "sft_window": 3}),
    "gac": Case(GAC(update_every=1, ema=0.0), {"max_steps": 3, "sft_weight": "phi"}, sparse=True),
    # SGD, as for gpt2. Some groups have a demonstration beside them: rows that don't come out even on two processes
    "hpt": Case(GRPOOnly(), {**OF_METHODS, "beta": 0.1}, method=HPT(gate=3, passing=1.0), sparse=True),
    "luffy": Case(GRPOOnly(), OF_METHODS, method=LUFFY(), sparse=True),
    "prefix_rft": Case(GRPOOnly(), OF_METHODS, method=PrefixRFT(kept=0.5)),
    "uft": Case(Static(sft_share=0.3, mode="blend"), OF_METHODS, method=UFT(weight=0.3)),
    "rlsd": Case(GRPOOnly(), OF_METHODS, method=RLSD(clip=0.05, teacher_kl=0.3), sparse=True),
    "srft": Case(GRPOOnly(), OF_METHODS, method=SRFT(), sparse=True),
    # Of 2 demonstrations some micro-batches have none; one row a pass makes several passes of a micro-batch
    "relift": Case(
        GRPOOnly(), {**OF_METHODS, "max_steps": 5, "sft_weight": "dft"}, method=ReLIFT(buffer=2), sparse=True
    ),
    "passes": Case(
        GRPOOnly(),
        {**OF_METHODS, "max_steps": 5, "demonstration_batch_size": 1},
        method=ReLIFT(buffer=7, passing=9.0),
    ),
    # One group, whose first block is one process's and all others are the other's
    "trapo": Case(
        GRPOOnly(),
        {**OF_METHODS, "num_generations": 16, "steps_per_generation": 1},
        method=Escalate(passing=0.7).scaled_to(16),
    ),
    "ghpo": Case(GRPOOnly(), OF_METHODS, method=Escalate(form="ghpo", passing=0.6, below=(2, 2, 2))),
    "lora": Case(SASR(mode="blend"), {"max_steps": 3, "beta": 0.1, "learning_rate": 1e-2}, lora=True),
}


def sized(size: dict) -> dict[str, Case]:
    """The cases with `steps_per_generation` in optimizer steps made one in micro-batches."""
    accumulation = size["gradient_accumulation_steps"]
    cases = {}
    for name, case in CASES.items():
        changes = {**case.changes, **size, "per_device_eval_batch_size": size["per_device_train_batch_size"]}
        if "steps_per_generation" in changes:
            changes["steps_per_generation"] *= accumulation
        cases[name] = case._replace(changes=changes)
    return cases


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def one(tiny, tmp_path_factory):
    """The cases on one process, with larger batches and with more of them."""
    folder = tmp_path_factory.mktemp("one")
    both = {f"{name}, rows": case for name, case in sized(MORE_ROWS).items()}
    both |= {f"{name}, micro-batches": case for name, case in sized(MORE_MICRO_BATCHES).items()}
    return ranks(1, train_all, tiny, folder, both, folder=folder)[0]


@pytest.fixture(scope="module", params=["ddp", "fsdp"])
def two(request, tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    cases = sized(TWO)
    if request.param == "fsdp":
        del cases["migu"]  # which masks whole gradients
    results = ranks(2, train_all, tiny, folder, cases, folder=folder, fsdp=request.param == "fsdp")
    assert {case.sharded for of in results for case in of.values()} == {request.param == "fsdp"}
    return results


EXACT = ("step", "prompt_cursor", "demonstration_cursor", "rollouts", "skipped", "tokens")
ROUNDED = (
    "p", "sft_loss", "sft_trained_loss", "grpo_loss", "sft_norm", "grpo_norm", "grad_norm", "kl", "reward", "entropy",
    "advantage_variance", "nll_variance", "coefficient_gap",
)  # fmt: skip


@pytest.mark.parametrize("other_way", ["rows", "micro-batches"])
@pytest.mark.parametrize("name", CASES)
def test_two_processes_are_one(one, two, name, other_way):
    if name not in two[0]:
        pytest.skip("refused there")
    alone, together = one[f"{name}, {other_way}"], two[0][name]
    assert alone.records.keys() == together.records.keys()
    for step, record in alone.records.items():
        same = together.records[step]
        for key in EXACT:
            assert same[key] == record[key], (step, key)
        assert same.get("curriculum") == record.get("curriculum"), step
        blended = 0.0 < record["mix"]["sft"] < 1.0
        assert same["mix"] == (pytest.approx(record["mix"]) if blended else record["mix"]), step
        measured, seen = ({key: of[key] for key in ROUNDED if of[key] is not None} for of in (record, same))
        assert seen == pytest.approx(measured, rel=1e-4, abs=1e-5), step
    assert alone.completions.keys() == together.completions.keys() != set()
    for step, rows in alone.completions.items():
        assert [row["completion"] for row in rows] == [row["completion"] for row in together.completions[step]], step
    assert alone.weights.keys() == together.weights.keys()
    for key, value in alone.weights.items():
        torch.testing.assert_close(together.weights[key], value, rtol=1e-4, atol=2e-5, msg=key)


@pytest.mark.parametrize("name", CASES)
def test_the_processes_hold_the_same(two, name):
    if name not in two[0]:
        pytest.skip("refused there")
    first, second = (result[name] for result in two)
    assert first.own_records == second.own_records
    assert first.own_records


def test_evaluations_are_the_same(one, two):
    keys = ("step", "eval_reward", "eval_completions/mean_length")
    for way in ("rows", "micro-batches"):
        alone, together = one[f"sasr, {way}"].evaluations, two[0]["sasr"].evaluations
        assert len(alone) == len(together) == 2
        for a, b in zip(alone, together, strict=True):
            assert [a[key] for key in keys] == pytest.approx([b[key] for key in keys], rel=1e-5)


def test_the_cases_show_what_they_are_for(one):
    records = {name: list(result.records.values()) for name, result in one.items()}
    assert {record["mix"]["sft"] for record in records["sasr, rows"]} == {0.0, 1.0}
    refreshed = [r for r in records["sasr, rows"] if r["mix"]["sft"] == 0.0 and r["sft_norm"] is not None]
    assert refreshed, "no norm was measured aside"
    assert [record["rollouts"] for record in records["windows, rows"]][-1] == 64
    assert all(record["kl"] is not None for record in records["windows, rows"] if record["mix"]["grpo"])
    last_kl = {name: records[f"{name}, rows"][-1]["kl"] for name in CASES if name not in ("windows", "dropping")}
    least = {"migu": 1e-7}  # of which most rows stay where they are
    assert not {name: kl for name, kl in last_kl.items() if not kl or kl <= least.get(name, 1e-6)}
    assert all(0.0 < record["trained_rows"] < 0.8 for record in records["dropping, rows"])
    assert all(0.0 < record["positions"] < 0.5 for record in records["dropping, rows"])
    for name, used in (("relift", 2), ("passes", 7)):
        taken = [record["method"]["used"] for record in records[f"{name}, rows"]]
        assert taken == [0, 0, used, 0, 0], name
    first, last = records["windows, rows"][1], records["windows, rows"][-1]
    assert (first["kl"], last["kl"]) != (0.0, 0.0)
