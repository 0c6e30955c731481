from __future__ import annotations

import functools
import hashlib
import math
import pickle
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest

from posttrain.errors import RewardError
from posttrain.scoring.calling import score_batch, score_completion
from posttrain.scoring.loading import known_rewards, load_reward
from posttrain.scoring.score import Outcome, Reward, Score
from posttrain.scoring.scorer import message_text


@dataclass
class Spec:
    name: str | None = None
    path: str | None = None
    import_: str | None = None
    weight: float = 1.0
    kwargs: dict[str, Any] = field(default_factory=dict)


def exact(completion: str, *, answer: str, **row: Any) -> float:
    return float(completion == answer)


@pytest.mark.parametrize(
    ("value", "expected"), [(True, 1.0), (0, 0.0), (0.25, 0.25), (np.float32(0.5), 0.5), (1 + 1e-12, 1.0)]
)
def test_score_takes_numbers_in_the_unit_interval(value, expected):
    score = Score(value)
    assert score.value == expected
    assert type(score.value) is float
    assert pickle.loads(pickle.dumps(Score(value, {"a": 1}, [1], "why"))) == Score(value, {"a": 1.0}, [1], "why")


@pytest.mark.parametrize("value", [1.5, -0.1, math.nan, math.inf, "1", None, [1.0]])
def test_score_refuses_anything_else(value):
    with pytest.raises(RewardError) as error:
        Score(value)
    assert "Score.value" in str(error.value)
    assert repr(value) in str(error.value)


def test_score_parts_are_finite_numbers():
    with pytest.raises(RewardError, match="'share'"):
        Score(1.0, parts={"share": math.nan})


def test_built_in_rewards_are_found_by_name():
    assert {"knights_knaves", "format"} <= set(known_rewards())
    reward = load_reward(Spec(name="format", weight=0.2, kwargs={"require_think": False}))
    assert (reward.name, reward.weight, reward.style) == ("format", 0.2, "score")
    assert score_completion(reward, "<answer>1</answer>", {}).value == 1.0
    assert reward.source is not None
    assert reward.source_sha256 == hashlib.sha256(Path(reward.source).read_bytes()).hexdigest()


def test_an_unknown_name_shows_the_nearest_and_all():
    with pytest.raises(RewardError) as error:
        load_reward(Spec(name="knight_knaves"))
    assert "nearest: 'knights_knaves'" in str(error.value)
    assert "format" in str(error.value)


def test_a_file_beside_the_recipe(tmp_path):
    (tmp_path / "helper.py").write_text("LIMIT = 3\n")
    (tmp_path / "mine.py").write_text(
        "from helper import LIMIT\ndef short(completion, *, slack=0, **row):\n"
        "    return len(completion) <= LIMIT + slack\n"
    )
    reward = load_reward(Spec(path="./mine.py:short", kwargs={"slack": 1}), tmp_path)
    assert reward.name == "short"
    assert score_completion(reward, "four", {}).value == 1.0
    assert score_completion(reward, "fives", {}).value == 0.0
    assert str(tmp_path) not in sys.path


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        (None, "./mime.py:score", "nearest: 'mine.py'"),
        ("x = 1\n", "./mine.py:score", "no function 'score'"),
        ("def scored(completion): ...\n", "./mine.py", "nearest: 'scored'"),
        ("def score(completion) return\n", "./mine.py", "SyntaxError"),
        ("import not_a_module_of_anyone\n", "./mine.py", "not_a_module_of_anyone"),
        ("raise SystemExit(3)\n", "./mine.py", "SystemExit"),
        ("def score(text): ...\n", "./mine.py", "name the first argument `completion`"),
        ("async def score(completion): ...\n", "./mine.py", "async function"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path, text, path, message):
    (tmp_path / "mine.py").write_text(text or "")
    with pytest.raises(RewardError, match="reward") as error:
        load_reward(Spec(path=path), tmp_path)
    assert message in str(error.value)


def test_an_importable_function():
    reward = load_reward(Spec(import_="posttrain.rewards.format:score"))
    assert reward.name == "format"
    with pytest.raises(RewardError, match="install 'no_such_package'"):
        load_reward(Spec(import_="no_such_package.rewards:score"))
    with pytest.raises(RewardError, match="nearest: 'score'"):
        load_reward(Spec(import_="posttrain.rewards.format:scor"))


@pytest.mark.parametrize("spec", [Spec(), Spec(name="format", path="./a.py")])
def test_exactly_one_source(spec):
    with pytest.raises(RewardError, match="exactly one of name, path and import"):
        load_reward(spec)


def test_python_callables():
    class Judge:
        def __call__(self, completion: str, **row: Any) -> float:
            return 1.0

    assert load_reward(exact).name == "exact"
    assert load_reward(Judge()).name == "Judge"
    assert load_reward(functools.partial(exact, answer="x")).required_columns() == []
    assert Reward.from_callable(exact, weight=2, name="same").weight == 2.0
    with pytest.raises(RewardError, match=r"no argument 'toll'.*nearest: 'tol'"):
        Reward.from_callable(lambda completion, tol: 1.0, kwargs={"toll": 1})


def test_columns_are_checked_by_signature():
    reward = Reward.from_callable(exact)
    reward.check_columns({"prompt", "answer"})
    with pytest.raises(RewardError) as error:
        reward.check_columns({"prompt", "answers", "level"})
    message = str(error.value)
    assert "'exact'" in message
    assert "no column 'answer' (nearest: 'answers')" in message
    assert "answers, level, prompt" in message
    Reward.from_callable(exact, kwargs={"answer": "x"}).check_columns({"prompt"})
    Reward.from_callable(lambda completion, prompt: 1.0).check_columns(set())
    Reward.from_callable(lambda prompts, completions, trainer_state, **columns: []).check_columns(set())
    with pytest.raises(RewardError, match="no column 'answer'"):
        Reward.from_callable(lambda completions, answer: []).check_columns({"prompt"})


@pytest.mark.parametrize(
    ("returned", "value", "error"),
    [
        (0.5, 0.5, None),
        (True, 1.0, None),
        (None, None, None),
        (Score(0.25, note="why"), 0.25, None),
        (1.5, None, "1.5"),
        (math.nan, None, "nan"),
        ("good", None, "'good' (str)"),
        ([1.0], None, "[1.0] (list)"),
    ],
)
def test_what_a_function_returns(returned, value, error):
    outcome = score_completion(Reward.from_callable(lambda completion: returned), "x", {})
    assert outcome.value == value
    assert (outcome.error is None) if error is None else (error in (outcome.error or ""))


@pytest.mark.parametrize("error", [KeyError("k"), RecursionError("deep"), SystemExit(1), ValueError("a\nb")])
def test_an_exception_is_an_outcome(error):
    def broken(completion: str) -> float:
        raise error

    outcome = score_completion(Reward.from_callable(broken), "x", {})
    assert outcome.score is None
    assert type(error).__name__ in (outcome.error or "")
    assert "\n" not in (outcome.error or "")


def test_an_interrupt_still_interrupts():
    def interrupted(completion: str) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_completion(Reward.from_callable(interrupted), "x", {})


def test_arguments_follow_the_signature():
    def narrow(completion: str, /, answer: str, tolerance: float) -> float:
        return float(answer == "a" and tolerance == 0.5)

    reward = Reward.from_callable(narrow, kwargs={"tolerance": 0.5})
    row = {"answer": "a", "tolerance": 9.0, "level": 3, "completion": "the demonstration"}
    assert score_completion(reward, "x", row).value == 1.0


def test_message_text():
    user, call = {"role": "user", "content": "q"}, {"role": "tool", "content": "t"}
    answer = {"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    assert message_text("plain") == "plain"
    assert message_text([user, answer, call]) == "ab"
    assert message_text([user, call]) == "q\nt"
    assert message_text([{"role": "assistant", "content": None}]) == ""


def test_rewards_need_no_torch():
    code = "import sys, posttrain.scoring.loading, posttrain.rewards.knights_knaves, posttrain.rewards.format\n"
    code += "print([m for m in ('torch', 'transformers', 'trl', 'datasets') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_example_to_copy():
    folder = Path(__file__).parents[2] / "recipes" / "custom_reward"
    reward = load_reward(Spec(path="./my_reward.py:score", kwargs={"tolerance": 0.01}), folder)
    assert reward.name == "my_reward"
    reward.check_columns({"prompt", "answer"})
    assert score_completion(reward, "so it is 3, or rather 4.005", {"answer": "4"}).value == 1.0
    wrong = Score(0.0, parts={"number": 1, "right": 0}, parsed=5.0, note="said 5")
    assert score_completion(reward, "5", {"answer": "4"}).score == wrong
    assert score_completion(reward, "5", {"answer": "yes"}).score is None
    assert score_completion(reward, "none", {"answer": "4"}).value == 0.0


def test_a_file_is_loaded_again_only_when_it_has_changed(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def score(completion):\n    return 0.5\ndef other(completion):\n    return 0.75\n")
    first, other = (load_reward(Spec(path=f"mine.py:{name}"), tmp_path) for name in ("score", "other"))
    assert first.function.__globals__ is other.function.__globals__
    file.write_text("def score(completion):\n    return 0.25\n")
    again = load_reward(Spec(path="mine.py"), tmp_path)
    assert [score_completion(reward, "x", {}).value for reward in (first, again)] == [0.5, 0.25]
    file.write_text("def score(completion) return\n")
    with pytest.raises(RewardError, match="SyntaxError"):
        load_reward(Spec(path="mine.py"), tmp_path)


class OneElement:
    """A tensor's scalar, as far as rewards look at it."""

    def __init__(self, value):
        self.value = value

    def item(self):
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


@pytest.mark.parametrize(
    "nan",
    [math.nan, np.float16("nan"), np.float32("nan"), np.float64("nan"), np.longdouble("nan"), np.array(math.nan),
     np.array([np.nan], np.float32), OneElement(math.nan)],
)  # fmt: skip
def test_nan_of_any_width_does_not_apply(nan):
    reward = Reward.from_callable(lambda completions: [nan, 0.5])
    assert score_batch(reward, ["", ""], ["a", "b"], {})[0] == replace(Outcome(), seconds=ANY)
    assert score_batch(reward, ["", ""], ["a", "b"], {})[1].value == 0.5


def test_batches_of_numpy_and_torch_keep_their_numbers_and_nans():
    import torch

    values = [np.nan, 0.25, -3.0]
    for batch in (
        np.array(values, np.float32), torch.tensor(values), torch.tensor(values, dtype=torch.bfloat16),
        torch.tensor(values, requires_grad=True), torch.tensor([values]).T,
    ):  # fmt: skip
        reward = Reward.from_callable(lambda completions, batch=batch: batch)
        outcomes = score_batch(reward, [""] * 3, ["a"] * 3, {})
        assert [(outcome.value, outcome.error) for outcome in outcomes] == [(None, None), (0.25, None), (-3.0, None)]


@pytest.mark.parametrize(
    "value",
    [math.inf, np.float32("inf"), "nan", [math.nan], np.array([math.nan, 1.0]), OneElement(ValueError("two")),
     OneElement(KeyError("x")), 10**400, complex(math.nan, 0)],
)  # fmt: skip
def test_what_is_no_number_of_a_batch_is_one_failure(value):
    outcomes = score_batch(Reward.from_callable(lambda completions: [value, 0.5]), ["", ""], ["a", "b"], {})
    assert outcomes[0].error
    assert outcomes[1].value == 0.5
