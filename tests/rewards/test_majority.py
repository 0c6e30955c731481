"""Votes of a group: by whose notion answers are equal, ties, and who is asked where a group lies on two processes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from datasets import Dataset

from posttrain.controllers import GRPOOnly
from posttrain.errors import ConfigError, RewardError
from posttrain.methods import LUFFY
from posttrain.rewards import knights_knaves, length_budget, majority, math_answer
from posttrain.scoring.loading import load_reward
from posttrain.scoring.pool import RewardPool
from posttrain.scoring.score import Reward
from posttrain.scoring.scorer import Scorer
from posttrain.training.trainer import HybridTrainer
from tests.rewards.voting import WORD, vote
from tests.training.conftest import hybrid_args, loaded, model, model_folder, prompts, tokenizer  # noqa: F401


def votes(*group: str, of: str = WORD, **more):
    return [majority.score(text, of=of, group_completions=group, **more).value for text in group]


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        (("a", "it is A", "b", ""), [1, 1, 0, 0]),
        (("a", "b"), [1, 0]),
        (("b", "a", "a", "b"), [1, 0, 0, 1]),
        (("", " "), [0, 0]),
        (("a", "b", "c", "c"), [0, 0, 1, 1]),
    ],
    ids=["most", "a tie goes to the first", "also of several", "no answers", "the last ones"],
)
def test_the_answer_with_the_most_votes_pays(group, expected):
    assert votes(*group) == expected


@pytest.mark.parametrize(
    ("group", "expected"),
    [(("a", "a", "a", "b"), [1, 1, 1, 0]), (("a", "b"), [0, 0]), (("a", "a", "b", "b"), [0, 0, 0, 0]), (("a",), [0])],
)
def test_without_its_own_vote_a_completion_needs_the_others(group, expected):
    assert votes(*group, leave_one_out=True) == expected


def test_what_is_shown():
    said = majority.score("b", of=WORD, group_completions=["a", "b", "a", ""])
    assert (said.value, said.parsed, said.note) == (0.0, "b", "1 of 4 votes; 2 for another")
    assert said.parts == {"votes": 0.25, "agreement": 0.5}
    assert majority.score("b", of=WORD).value == 1.0, "alone: an answer that can be read"


def test_mathematics_has_its_own_notion():
    group = [r"\boxed{1/2}", r"so \boxed{0.5}", r"\boxed{\frac{2}{4}}", r"\boxed{2}", "I don't know"]
    assert votes(*group, of="math_answer") == [1, 1, 1, 0, 0]
    assert math_answer.score.same_answer("x=5", "5")
    assert not math_answer.score.same_answer("5 cm", "5 km")
    assert math_answer.score.same_answer("@@", "@@")


def test_puzzles_are_told_by_everyones_role_and_no_solution_is_asked_for():
    group = [
        "<answer>Ann is a knight, Bob is a knave</answer>", "Final answer: Bob is a knave. Ann is a knight.",
        "<answer>Ann is a knight, Bob is a knight</answer>", "<answer>Ann is a knight</answer>",
    ]  # fmt: skip
    assert votes(*group, of="knights_knaves", names=["Ann", "Bob"]) == [1, 1, 0, 0]
    assert knights_knaves.score.read_answer(group[0], names=["Ann", "Bob"]) == (True, False)


def test_objects_are_equal_as_json():
    assert votes('{"a": 1, "b": [2]}', '{"b": [2.0], "a": 1}', '{"a": true}', "{", of="json_structure") == [1, 1, 0, 0]


# ---- whose group ----


@pytest.mark.parametrize("workers", [0, 1])
def test_a_group_is_of_a_prompt_wherever_its_completions_lie(workers):
    texts = ["a", "a", "b", "c", "d", "d"]
    reward = load_reward(SimpleNamespace(name="majority", path=None, import_=None, weight=1.0, kwargs={"of": WORD}))
    assert reward.of_group
    reward.check_columns(["answer"])

    def scored(part: slice, number: int) -> list[float | None]:
        shares = [texts[:4], texts[4:]]
        together = SimpleNamespace(
            gathered=lambda mine: shares if mine == shares[number] else [mine], together=lambda work: work(),
            number=number, count=2,
        )  # fmt: skip
        pool = RewardPool([reward], workers=workers, time_limit_s=60.0)
        try:
            scorer = Scorer([reward], ranks=together, pool=pool)
            scorer.group = 3
            (outcomes,) = scorer([""] * len(texts[part]), texts[part], {"answer": [None] * len(texts[part])})
            return [outcome.value for outcome in outcomes]
        finally:
            pool.close()

    assert scored(slice(4), 0) == [1, 1, 0, 0]
    assert scored(slice(4, None), 1) == [1, 1], "the first of its group is another process's"


def test_a_column_of_the_name_of_what_training_fills_in_stays_what_the_reward_gets():
    """As it was before anything was filled in; what pays a budget wants the length of what was sampled."""

    def seen(completion, *, completion_tokens, group_completions=(), **row):
        return completion_tokens / 100.0 + len(group_completions) / 10.0

    columns = {"completion_tokens": [7, 9], "group_completions": [["x"], ["x"]]}

    def of(function, columns):
        scorer = Scorer([Reward.from_callable(function)])
        scorer.group = 2
        (outcomes,) = scorer(["", ""], ["a", "b"], columns, completion_ids=[[1, 2, 3], [4]])
        return [outcome.value for outcome in outcomes]

    assert of(seen, columns) == pytest.approx([0.17, 0.19])
    assert of(seen, {}) == pytest.approx([0.23, 0.21])
    assert of(length_budget.score, {"completion_tokens": [7, 9], "token_budget": [6, 6]}) == pytest.approx(
        [1 / 2, 1 / 6]
    )


def test_what_is_no_whole_group_is_an_error():
    scorer = Scorer([Reward.from_callable(majority.score, kwargs={"of": WORD})])
    scorer.group = 4
    with pytest.raises(RewardError, match="3 completions at once, groups of 4"):
        scorer([""] * 3, ["a"] * 3, {})


def test_a_training_votes_in_each_prompts_own_group(model, tokenizer, prompts, tmp_path):  # noqa: F811
    kept = []

    class Kept:
        def step(self, record):
            kept.append(record)

        def completions(self, step, rows):
            kept.extend(rows)

    args = hybrid_args(tmp_path, max_steps=2, completions_every=1, refill={"max_batches": 2})
    only = Dataset.from_list([{"prompt": row["prompt"]} for row in prompts])
    trainer = HybridTrainer(
        model, vote, args, only, processing_class=tokenizer, controller=GRPOOnly(), recorder=Kept()
    )  # fmt: skip
    trainer.train()
    rows = [row for row in kept if "completion" in row]
    assert len(rows) == 16
    for start in range(0, len(rows), 4):
        group = ["early" if row["completion"][:1] < "1" else "late" for row in rows[start : start + 4]]
        expected = votes(*group)
        assert [row["reward/vote"] for row in rows[start : start + 4]] == expected
        assert rows[start]["part/vote.agreement"] == sum(expected) / 4


# ---- what cannot be ----


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({}, "without `of`"),
        ({"of": "countdown"}, "two right expressions are as good"),
        ({"of": "math_anser"}, "math_answer"),
        ({"of": "nowhere.at.all:score"}, "nowhere"),
    ],
)
def test_a_notion_that_there_is_not_is_refused_when_the_reward_is_loaded(kwargs, said):
    with pytest.raises(RewardError, match=said):
        Reward.from_callable(majority.score, kwargs=kwargs)


def test_a_method_makes_groups_of_its_own(model, tokenizer, prompts, tmp_path):  # noqa: F811
    with pytest.raises(ConfigError, match="votes in a group, whose rows the method luffy"):
        HybridTrainer(
            model, vote, hybrid_args(tmp_path), prompts, processing_class=tokenizer, method=LUFFY(),
            demonstrations=[{"prompt": "0 plus 0 is", "completion": " 0."}],
        )  # fmt: skip
