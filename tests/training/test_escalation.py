"""Groups that are sampled block by block: what is decided, what is sampled again, and that each row is scored once."""

from __future__ import annotations

import copy
import math
import warnings

import pytest
import torch
from datasets import Dataset

from posttrain.errors import ConfigError
from posttrain.methods import Escalate
from posttrain.storage.files import read_lines
from posttrain.training.escalation import in_blocks
from posttrain.training.kept_rewards import KeptRewards
from posttrain.training.trainer import HybridTrainer
from tests.training.conftest import ROWS, hybrid_args
from tests.training.test_methods import LARGE, moved, off, picky, trained
from tests.training.worker_rewards import one

TRAPO = Escalate(blocks=(2, 1, 1), below=(1, 3), shares=(0.5, 1.0))


def run(method, successes, *, rows, demonstrations=((1, 2, 3, 4),), shared=1):
    """Sample a window of which the rows are solved as told, on one process or on several in turn; what each asked for.

    `successes` gives for each row its rewards, one for each time that it is sampled.
    """
    asked = [[] for _ in range(shared)]
    count = len(demonstrations) * rows // shared
    times = [0] * (count * shared)
    rewards = [math.nan] * len(times)
    windows = []
    for process in range(shared):
        first = process * count

        def sample(ask, process=process):
            asked[process].append(ask)
            return [[*begun, 9] for begun in ask.begun], [[-1.0]] * len(ask.begun)

        def score(places, completions, first=first, process=process):
            # Of the others, which take their turns later, all is known already
            for row, given in enumerate(successes):
                if not first <= row < first + count:
                    rewards[row] = given[min(len(asked[process]) - 1, len(given) - 1)]
            for place in places:
                rewards[first + place] = successes[first + place][times[first + place]]
                times[first + place] += 1
            return list(rewards)

        windows.append(
            in_blocks(method, demonstrations, group=rows, first=first, count=count, sample=sample, score=score)
        )
    return windows, asked


def levels(asked):
    return [len(ask.begun[0]) for ask in asked[0]]


def test_trapo_goes_on_from_more_where_too_few_are_solved():
    rows = [[1.0], [0.0], [0.0], [0.0], [1.0], [1.0], [1.0], [0.0]]
    (window,), asked = run(Escalate(), rows, rows=8)
    assert [ask.places for ask in asked[0]] == [[0, 1, 2, 3], [4, 5], [6], [7]]
    assert levels(asked) == [0, 1, 2, 3]  # of 4 tokens 25 %, 50 % and all but the last
    assert window.levels == [3]
    assert window.begun == [0, 0, 0, 0, 1, 1, 2, 3]
    assert window.trained == [False] * 5 + [True] * 3  # of the second block the second row alone
    assert window.completions[6] == [1, 2, 9]
    assert window.again == 0
    (window,), asked = run(Escalate(), [[1.0]] * 8, rows=8)
    assert (levels(asked), window.levels, window.begun, window.trained) == ([0] * 4, [0], [0] * 8, [False] * 8)


def test_ghpo_samples_dead_groups_again_until_one_is_solved():
    dead, late = [[0.0] * 4] * 3 + [[0.0, 0.0, 1.0, 0.0]], [[1.0]] * 4
    lost = [[0.0] * 4] * 4
    (window,), asked = run(Escalate(form="ghpo"), [*dead, *late, *lost], rows=4, demonstrations=[[1, 2, 3, 4]] * 3)
    assert [ask.places for ask in asked[0]] == [list(range(12)), [0, 1, 2, 3, 8, 9, 10, 11], [0, 1, 2, 3, 8, 9, 10, 11],
                                                [8, 9, 10, 11]]  # fmt: skip
    assert [ask.again for ask in asked[0]] == [0, 1, 2, 3]
    assert window.levels == [2, 0, 3]
    assert window.begun == [2] * 4 + [0] * 4 + [3] * 4
    assert not any(window.trained)
    assert window.again == 20


@pytest.mark.parametrize("neighbour", [0.0, 1.0])
def test_a_group_that_is_over_is_not_sampled_again_for_its_neighbour(neighbour):
    """One of 4 solved is enough at first; that it would not be behind the next share is nobody's question."""
    method = Escalate(form="ghpo", below=(1, 2, 4))
    successes = [[1.0], [0.0], [0.0], [0.0], *([[neighbour]] * 4)]
    successes = [given * 4 for given in successes]
    (window,), _ = run(method, successes, rows=4, demonstrations=((1, 2, 3, 4), (5, 6, 7, 8)))
    assert window.levels == [0, 0 if neighbour else 3]
    assert window.begun[:4] == [0] * 4


def test_without_a_demonstration_a_group_is_sampled_at_once():
    (window,), asked = run(Escalate(), [[0.0]] * 16, rows=8, demonstrations=[[], [1, 2, 3, 4]])
    assert asked[0][0].places == [*range(8), 8, 9, 10, 11]
    assert window.levels == [0, 3]
    assert len(asked[0]) == 4


def test_a_process_without_rows_in_a_block_samples_one_for_nothing():
    rows = [[0.0]] * 4
    (first, second), asked = run(TRAPO, rows, rows=4, shared=2)
    assert [ask.places for ask in asked[0]] == [[0, 1], [0], [0]]
    assert [ask.places for ask in asked[1]] == [[0], [0], [1]]
    assert first.completions == [[9], [9]]
    assert second.completions == [[1, 2, 9], [1, 2, 3, 9]]
    assert first.levels == second.levels == [2]
    assert (first.begun, second.begun, second.trained) == ([0, 0], [2, 3], [True, True])


def test_what_is_never_escalated_is_grpo_alone(model, tokenizer, prompts, demonstrations, tmp_path):
    everything = Escalate(blocks=(2, 1, 1), below=(1, 3), shares=(0.5, 1.0), passing=-1.0)
    blocks, start = trained(model, tokenizer, prompts, demonstrations, tmp_path, everything)
    alone = HybridTrainer(
        copy.deepcopy(model),
        picky,
        hybrid_args(tmp_path, max_steps=1, optim="sgd", learning_rate=LARGE, max_grad_norm=0.0),
        prompts,
        processing_class=tokenizer,
        controller="grpo_only",
    )
    alone.train()
    assert [row["completion"] for row in blocks.last_rollouts()] == [row["completion"] for row in alone.last_rollouts()]
    assert off(moved(blocks, start), moved(alone, start)) < 1e-6
    assert blocks.last_record["method"]["groups"] == {"enough solved: from nothing": 2}


def train(model, tokenizer, rows, folder, rewards, method, **changes):
    trainer = HybridTrainer(
        copy.deepcopy(model),
        rewards,
        hybrid_args(folder, **{"max_steps": 2, "completions_every": 1, **changes}),
        Dataset.from_list(rows),
        processing_class=tokenizer,
        method=method,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.train()
    return trainer


ROWS_WITH = [{"prompt": row["prompt"], "answer": row["answer"], "demonstration": row["completion"]} for row in ROWS]
"""Prompts that carry their demonstrations."""


@pytest.mark.parametrize("form", ["trapo", "ghpo"])
def test_each_row_is_scored_once_and_what_is_told_of_it_stays_its_own(form, model, tokenizer, tmp_path):
    asked = {"batch": 0, "async": 0}

    def batch(completions, answer, log_extra, **kwargs):
        assert len(completions) == len(answer)
        asked["batch"] += len(completions)
        log_extra("seen", [text.upper() for text in completions])
        return picky(completions)

    async def waited_for(completions, **kwargs):
        asked["async"] += len(completions)
        return [None] * len(completions)

    method = TRAPO if form == "trapo" else Escalate(form="ghpo", below=(3, 3, 3))
    trainer = train(model, tokenizer, ROWS_WITH, tmp_path, [batch, waited_for, one], method)
    again, begun = (sum(of["method"][key] for of in _lines(tmp_path)) for key in ("sampled_again", "begun_rows"))
    assert asked["batch"] == asked["async"] == 16 + again
    assert (again > 0) == (form == "ghpo")
    assert begun > 0
    rows = trainer.last_rollouts()
    assert [row["note"] for row in rows] == [f"ends with {row['completion'][-1:]!r}" for row in rows]
    assert [row["reward/batch"] for row in rows] == picky([row["completion"] for row in rows])
    assert list(trainer._logs["extra"]["seen"]) == [row["completion"].upper() for row in rows]


def _lines(folder):
    return read_lines(folder / "steps.jsonl")


def test_an_evaluation_beside_it_is_scored_as_ever(model, tokenizer, tmp_path):
    trainer = HybridTrainer(
        model, picky, hybrid_args(tmp_path, max_steps=1), Dataset.from_list(ROWS_WITH), processing_class=tokenizer,
        method=TRAPO, eval_dataset=Dataset.from_list(ROWS_WITH[:2]),
    )  # fmt: skip
    trainer.train()
    assert trainer.evaluate()["eval_reward"] in (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)


def test_kept_rewards_answer_for_all_rows_and_ask_for_those_that_are_due():
    calls = []

    def function(prompts, completions, completion_ids, answer, trainer_state):
        calls.append((prompts, completions, completion_ids, answer, trainer_state))
        return [None if text == "none" else float(len(text)) for text in completions]

    kept = KeptRewards([function])
    (reward,) = kept.functions
    given = {"prompts": list("pqr"), "completion_ids": [[1], [2], [3]], "answer": [7, 8, 9], "trainer_state": "state"}
    kept.begin(3)
    kept.due = [0, 2]
    assert reward(completions=["a", "", "abc"], **given) == [1.0, 0.0, 3.0]
    assert calls == [(["p", "r"], ["a", "abc"], [[1], [3]], [7, 9], "state")]
    kept.due = []
    assert reward(completions=["a", "", "abc"], **given) == [1.0, 0.0, 3.0]
    kept.due = [1]
    reward(completions=["a", "none", "abc"], **given)
    kept.due, kept.ended = [], True
    assert reward(completions=["a", "none", "abc"], **given) == [1.0, None, 3.0]
    assert len(calls) == 2
    kept.end()
    assert reward(completions=["a"], **{key: value[:1] for key, value in given.items()}) == [1.0]
    assert reward.__name__ == "function"


def test_a_reward_model_and_another_group_are_refused(model, tokenizer, tmp_path):
    with pytest.raises(ConfigError, match=r"blocks of 4 \+ 2 \+ 1 \+ 1 = 8 rollouts, of 4 in a group") as caught:
        train(model, tokenizer, ROWS_WITH, tmp_path, picky, "escalate")
    assert "blocks: [2, 1, 1], below: [1, 3], shares: [0.5, 1.0]" in str(caught.value)

    class Judge(torch.nn.Module):
        config = None

    trainer = train(model, tokenizer, ROWS_WITH, tmp_path, picky, TRAPO, max_steps=1)
    trainer.reward_funcs = [Judge()]
    with pytest.raises(ConfigError, match="a reward model"):
        trainer._check_method(TRAPO)


def test_conversations_are_scored_as_they_are_trained_on(model, tokenizer, tmp_path):
    own = copy.deepcopy(tokenizer)
    own.chat_template = (
        "{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %} {% endif %}"
    )
    seen = []

    def spoken(completions, **kwargs):
        seen.extend(completions)
        return picky([message["content"] for (message,) in completions])

    rows = [
        {"prompt": [{"role": "user", "content": row["prompt"]}],
         "demonstration": [[{"role": "assistant", "content": row["completion"]}]]}
        for row in ROWS
    ]  # fmt: skip
    trainer = train(model, own, rows, tmp_path, spoken, TRAPO, max_steps=1)
    kept = [row["completion"] for row in trainer.last_rollouts()]
    assert sorted(map(str, seen)) == sorted(map(str, kept))
    assert trainer.last_record["method"]["begun_rows"] > 0
