"""pass@k, intervals, and an evaluation of a model that has learnt its answers by heart."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from posttrain.errors import ConfigError, DataError, RewardError
from posttrain.evaluation.evaluate import evaluate
from posttrain.evaluation.statistics import bootstrap_ci, paired_difference, pass_at_k, share_ci
from posttrain.scoring.pool import RewardPool
from posttrain.scoring.score import Reward, Score


@pytest.mark.parametrize("n", [1, 2, 5, 7])
def test_pass_at_k_is_the_share_of_draws_with_a_pass(n):
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        draws = list(itertools.combinations([True] * c + [False] * (n - c), k))
        assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws), abs=1e-12)


def test_pass_at_k_is_stable_where_factorials_are_not():
    assert pass_at_k(10_000, 3, 100) == pytest.approx(1 - math.comb(9_997, 100) / math.comb(10_000, 100), rel=1e-12)


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, -1, 1), (4, 2, 5), (4, 2, 0)])
def test_impossible_counts_are_refused(n, c, k):
    with pytest.raises(ConfigError):
        pass_at_k(n, c, k)


def test_the_interval_is_about_the_normal_one_and_repeats():
    values = [1.0] * 60 + [0.0] * 140
    lo, hi = bootstrap_ci(values, seed=1)
    half = 1.96 * math.sqrt(0.3 * 0.7 / 200)
    assert (lo, hi) == pytest.approx((0.3 - half, 0.3 + half), abs=0.01)
    assert bootstrap_ci(values, seed=1) == (lo, hi)
    narrow = bootstrap_ci(values, confidence=0.5, seed=1)
    assert lo < narrow[0] < narrow[1] < hi


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(300):
        lo, hi = bootstrap_ci(rng.random(80) < 0.4, resamples=500, seed=trial)
        hits += lo <= 0.4 <= hi
    assert 0.90 <= hits / 300 <= 0.98


def test_resampling_in_pieces_uses_all_of_them(monkeypatch):
    monkeypatch.setattr("posttrain.evaluation.statistics.RESAMPLES_AT_ONCE", 1000)
    assert bootstrap_ci([0.0, 1.0] * 100, resamples=997) == pytest.approx((0.43, 0.57), abs=0.02)


def test_none_and_all_have_the_exact_interval():
    # By hand: 0 of 4 come with a chance of (1 - p)^4, which is 0.025 at p = 0.6024; tables give 0.6024 and 0.0092
    assert share_ci([0, 0, 0, 0]) == pytest.approx((0.0, 0.6024), abs=1e-4)
    assert share_ci([True] * 4) == pytest.approx((0.3976, 1.0), abs=1e-4)
    assert share_ci([0.0] * 400) == pytest.approx((0.0, 0.0092), abs=1e-4)
    assert share_ci([0], confidence=0.9) == pytest.approx((0.0, 0.95))
    assert share_ci([1.0, 0.0, 1.0], seed=3) == bootstrap_ci([1.0, 0.0, 1.0], seed=3)
    assert share_ci([0.5, 0.5]) == (0.5, 0.5), "chances that happen to be equal"
    assert paired_difference([1, 0, 1], [1, 0, 1]) == (0.0, 0.0, 0.0), "no flip: no interval"


def test_no_values_are_an_error():
    with pytest.raises(DataError):
        share_ci([])
    with pytest.raises(DataError):
        bootstrap_ci([])
    with pytest.raises(DataError, match="2 problems before and 1 after"):
        paired_difference([1, 0], [1])


def test_pairing_sees_what_two_intervals_hide():
    before = [True] * 80 + [False] * 120
    after = [True] * 92 + [False] * 108  # 12 problems more, none lost
    difference, lo, hi = paired_difference(before, after)
    assert difference == pytest.approx(0.06)
    assert 0 < lo < difference < hi
    assert bootstrap_ci(before)[1] > bootstrap_ci(after)[0]
    flipped = paired_difference(after, before)
    assert flipped == pytest.approx((-0.06, -hi, -lo), abs=0.01)


WORDS = ["<pad>", "<eos>", "<unk>", *"abcdefgh"]


@pytest.fixture(scope="module")
def learnt():
    """A model that answers each of a, b, c, d by the next letter, and e to h by h, surely."""
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(WORDS), hidden_size=32, intermediate_size=64, num_hidden_layers=1,
                    num_attention_heads=2, eos_token_id=1, pad_token_id=0)
    ).float()  # fmt: skip
    answers = ["b", "c", "d", "e", "h", "h", "h", "h"]
    rows = torch.tensor([[vocabulary[a], vocabulary[b], 1] for a, b in zip("abcdefgh", answers, strict=True)])
    labels = rows.clone()
    labels[:, 0] = -100
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        model(input_ids=rows, labels=labels).loss.backward()
        optimizer.step()
    return model.eval(), tokenizer


def next_letter(completion: str, *, answer: str, **row) -> Score:
    right = completion.strip() == answer
    return Score(1.0 if right else 0.5, note="right" if right else f"not {answer}")


PROBLEMS = [
    {"prompt": letter, "answer": answer, "half": 1 if letter in "abcd" else 2}
    for letter, answer in zip("abcdefg", "bcdefgh", strict=True)
]  # the model answers a, b, c, d and g rightly


def test_greedy_evaluation(learnt):
    seen = []
    result = evaluate(
        *learnt, PROBLEMS, Reward.from_callable(next_letter), max_new_tokens=4, batch_size=3, slice_by="half",
        on_progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert result.passed == [True, True, True, True, False, False, True]
    assert result.pass_at_1 == pytest.approx(5 / 7)
    assert result.by == {
        "half": {
            "1": {"n": 4, "pass@1": 1.0, "ci95": list(share_ci([True] * 4))},
            "2": {"n": 3, "pass@1": pytest.approx(1 / 3), "ci95": list(share_ci([False, False, True]))},
        }
    }
    assert (result.mean_length, result.truncated_share, result.errors) == (2.0, 0.0, 0)
    assert seen == [(3, 7), (6, 7), (7, 7)]
    assert result.rows[4] == {
        "row": 4, "sample": None, "prompt": "e", "completion": "h", "passed": False, "score": 0.5, "note": "not f",
        "error": None, "length": 2, "truncated": False, "parsed": None, "half": 2,
    }  # fmt: skip
    record = result.record("warmup", 30)
    assert {key: record[key] for key in ("stage", "step", "n", "pass@1")} == {
        "stage": "warmup", "step": 30, "n": 7, "pass@1": pytest.approx(5 / 7),
    }  # fmt: skip
    assert record["ci95"][0] < 5 / 7 < record["ci95"][1]
    assert "pass@k" not in record


def test_sampled_pass_at_k(learnt):
    seen = []
    result = evaluate(
        *learnt, PROBLEMS, Reward.from_callable(next_letter), k=(1, 4), samples=4, temperature=6.0, max_new_tokens=4,
        seed=2, on_progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    sampled = [row for row in result.rows if row["sample"] is not None]
    assert len(sampled) == 28
    assert result.pass_at_k[1] == pytest.approx(sum(row["passed"] for row in sampled) / 28)
    solved = {row["row"] for row in sampled if row["passed"]}
    assert result.pass_at_k[4] == pytest.approx(len(solved) / 7)
    assert result.record("final", 1)["pass@k"] == {"1": result.pass_at_k[1], "4": result.pass_at_k[4]}
    assert result.pass_at_1 == pytest.approx(5 / 7), "greedy does not change"
    assert seen[-1] == (35, 35)


def test_a_reward_that_fails_or_does_not_apply_passes_nothing(learnt):
    def moody(completion: str, *, prompt: str, **row) -> float | None:
        if prompt == "a":
            raise KeyError("a")
        return None if prompt == "b" else 1.0

    result = evaluate(*learnt, PROBLEMS, Reward.from_callable(moody), max_new_tokens=4)
    assert result.passed == [False, False, True, True, True, True, True]
    assert (result.errors, result.unscored) == (1, 1)
    assert result.rows[1]["note"] == "no reward scored it"
    assert "KeyError" in result.rows[0]["error"]
    assert result.rows[1]["score"] is None


def test_worker_processes_give_the_same_evaluation(learnt):
    def right(completion: str, *, answer: str) -> Score:  # not `next_letter`: the worker would load this module
        return Score(float(completion.strip() == answer), note=f"not {answer}")

    reward = Reward.from_callable(right)
    options = {"samples": 3, "temperature": 6.0, "max_new_tokens": 4, "slice_by": "half"}
    with RewardPool([reward], workers=1) as pool:
        in_pool = evaluate(*learnt, PROBLEMS, reward, pool=pool, **options)
    here = evaluate(*learnt, PROBLEMS, reward, **options)
    assert (in_pool.rows, in_pool.passed, in_pool.pass_at_k) == (here.rows, here.passed, here.pass_at_k)


def test_each_task_of_a_mixture_has_its_own_reward(learnt):
    def never(completion: str, **row) -> float:
        return 0.0

    problems = [{**row, "task": "late" if row["half"] == 2 else "early"} for row in PROBLEMS]
    rewards = [Reward.from_callable(next_letter, tasks=["early"]), Reward.from_callable(never, tasks=["late"])]
    result = evaluate(*learnt, problems, rewards, max_new_tokens=4)
    assert result.passed == [True, True, True, True, False, False, False]
    assert [row["note"] for row in result.rows] == ["right"] * 4 + [""] * 3


def test_a_reward_that_always_fails_is_no_result_of_zero(learnt):
    def broken(completion: str, **row) -> float:
        raise ZeroDivisionError("by none")

    with pytest.raises(RewardError, match=r"all of 7 completions.*by none"):
        evaluate(*learnt, PROBLEMS, Reward.from_callable(broken), max_new_tokens=4)


def test_a_reward_that_scores_nothing_is_no_result_of_zero(learnt):
    def forgets(completion: str, **row) -> None:
        pass

    with pytest.raises(RewardError, match="no reward scored any of the 7 completions"):
        evaluate(*learnt, PROBLEMS, Reward.from_callable(forgets), max_new_tokens=4)


def test_bad_arguments_are_refused_before_sampling(learnt):
    reward = Reward.from_callable(next_letter)
    with pytest.raises(DataError, match="no problems"):
        evaluate(*learnt, [], reward, max_new_tokens=4)
    with pytest.raises(ConfigError, match=r"pass@8 from 4 samples"):
        evaluate(*learnt, PROBLEMS, reward, k=(1, 8), samples=4, max_new_tokens=4)
