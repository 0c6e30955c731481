"""How good a model is on held-out problems, and how sure one can be of it.

What a problem passes by is the recipe's to say (`judging`). Greedy pass@1 is what the tables show; sampled
pass@k (Chen et al. 2021, arXiv 2107.03374) says what more tries would give. Intervals are percentile bootstraps over
problems: they say how the figure would vary with another draw of problems, not with another seed of training. When
every problem passes, or none, there is nothing to resample, and the interval is the exact one (Clopper, Pearson 1934).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from posttrain.curricula.base import PROMPT_SOURCE
from posttrain.errors import ConfigError, DataError, RewardError
from posttrain.evaluation.judging import PASS, judge, judged, passes
from posttrain.evaluation.statistics import pass_at_k, share_ci
from posttrain.scoring.score import SOURCE, Outcome, Reward

if TYPE_CHECKING:
    from posttrain.processes.ranks import Ranks
    from posttrain.rundir.completions import Completion
    from posttrain.scoring.pool import RewardPool


@dataclass(frozen=True)
class Evaluation:
    """The result of one evaluation.

    Attributes:
        passed: Whether the greedy completion of each problem passes, in the order of the problems.
        ci95: The interval of greedy pass@1 (`share_ci`).
        pass_at_k: Sampled pass@k by k, empty when nothing was sampled.
        by: Greedy pass@1 by the values of a column, {column: {value: {"n", "pass@1", "ci95"}}}.
        rows: One row a completion for the completions' parquet file; `sample` is None for the greedy one.
        mean_length: Mean length of the greedy completions, in tokens.
        truncated_share: Share of the greedy completions that the limit on tokens cut off.
        errors: How many completions the reward failed on; they count as not passed.
        unscored: How many greedy completions no reward scored; they count as not passed.
        seconds: How long it took.
        judge: What the problems passed by, as `judging.judge` has it.
    """

    passed: list[bool]
    ci95: tuple[float, float]
    pass_at_k: dict[int, float] = field(default_factory=dict)
    by: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    mean_length: float = 0.0
    truncated_share: float = 0.0
    errors: int = 0
    unscored: int = 0
    seconds: float = 0.0
    judge: dict[str, Any] = field(default_factory=dict)

    @property
    def pass_at_1(self) -> float:
        """The share of problems whose greedy completion passes."""
        return sum(self.passed) / len(self.passed)

    def record(self, stage: str, step: int) -> dict[str, Any]:
        """The line of eval.jsonl; `stage` is "start", "warmup", "hybrid" or "final"."""
        line: dict[str, Any] = {
            "stage": stage,
            "step": step,
            "n": len(self.passed),
            "pass@1": self.pass_at_1,
            "ci95": list(self.ci95),
        }
        if self.pass_at_k:
            line["pass@k"] = {str(k): value for k, value in self.pass_at_k.items()}
        return line | {
            "judge": self.judge,
            "by": self.by,
            "mean_length": self.mean_length,
            "truncated_share": self.truncated_share,
            "errors": self.errors,
            "unscored": self.unscored,
            "seconds": self.seconds,
        }


def evaluate(
    model: Any,
    tokenizer: Any,
    rows: list[dict[str, Any]],
    reward: Reward | Sequence[Reward],
    *,
    threshold: float = PASS,
    k: Sequence[int] = (1,),
    samples: int = 1,
    temperature: float = 1.0,
    max_new_tokens: int,
    batch_size: int = 128,
    seed: int = 0,
    template_kwargs: Mapping[str, Any] | None = None,
    slice_by: str | None = None,
    engine: Any = None,
    pool: RewardPool | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    ranks: Ranks | None = None,
    synced: bool = False,
) -> Evaluation:
    """Answer each row's prompt greedily, and `samples` times more when that is above 1, and score the answers.

    Of several processes each takes every `ranks.count`-th row, and all of them return the result that one would get.

    Args:
        model: A causal language model of transformers or PEFT; its mode and torch's generators stay as they are.
        tokenizer: Its tokenizer.
        rows: The problems: `prompt` (text or messages) and the columns that the reward reads.
        reward: What judges: one, or several whose scores are weighed.
        threshold: The score at which a completion passes.
        k: The k of the sampled pass@k, each at most `samples`; used when `samples` is above 1.
        samples: Sampled completions per problem; 1 means the greedy one only.
        temperature: Of the samples.
        max_new_tokens: The limit on a completion's length, in tokens.
        batch_size: Completions generated at a time.
        seed: Of the samples and of the bootstrap.
        template_kwargs: Arguments of the chat template, as TRL's `chat_template_kwargs`.
        slice_by: A column by whose values pass@1 is given too, such as a difficulty. Where rows say in a column
            `source` which of up to 50 they are from, it is given by that, too.
        engine: A vLLM engine to sample with, which gets the model's weights; transformers samples if `None`.
        pool: Worker processes that have the reward, to score in.
        on_progress: Called with (completions done, completions in all), equally often on every process.
        ranks: The processes that evaluate together.
        synced: The model is sharded over them, so that all must make the same number of forward passes.

    Raises:
        ConfigError: a k that `samples` can't give.
        DataError: there are no rows.
        RewardError: the reward failed on every completion.
    """
    if not rows:
        raise DataError("there are no problems to evaluate on", expected="at least one row")
    if samples > 1 and not all(1 <= each <= samples for each in k):
        raise ConfigError(f"pass@{max(k)} from {samples} samples", expected=f"each k in 1..{samples}", where="k")
    judges = [reward] if isinstance(reward, Reward) else list(reward)
    started = time.perf_counter()
    share, sliced = _Share(len(rows), ranks), sliced_by(rows, slice_by)
    total = len(rows) * (1 + samples if samples > 1 else 1)

    def sample(generate: Callable[..., Any], at: float, number: int, offset: int) -> list[_Answer]:
        def report(done: int, _: int) -> None:
            on_progress(min(total, offset + done * share.processes), total)  # type: ignore[misc]

        groups = generate(
            [rows[place % len(rows)]["prompt"] for place in share.places], places=share.places,
            max_new_tokens=max_new_tokens, temperature=at, num_samples=number, seed=seed,
            template_kwargs=template_kwargs, on_progress=report if on_progress else None,
        )  # fmt: skip
        return share.answers(groups, greedy=at == 0)

    def answered() -> list[_Answer]:
        generate = _sampler(model, tokenizer, engine, batch_size, synced)
        answers = sample(generate, 0.0, 1, 0)
        if samples > 1:
            answers += sample(generate, temperature, samples, len(rows))
        if engine is not None:
            engine.sleep(level=1)
        return answers

    def scored(answers: list[_Answer]) -> list[dict[str, Any]]:
        outcomes = judged(judges, [rows[place] for place, _, _ in answers], [each for _, _, each in answers], pool)
        return [
            _row(outcome, passes(outcome, threshold), rows[place], place, number, completion, sliced)
            for outcome, (place, number, completion) in zip(outcomes, answers, strict=True)
        ]

    if ranks is None:
        everything = scored(answered())
    else:
        # With shards the others wait for this process's and not for its error, which ends it and so them
        answers = answered() if synced else ranks.together(answered)
        everything = _in_order(ranks.gathered(ranks.together(lambda: scored(answers))))
    table = everything[: len(rows)]
    tried = [everything[start : start + samples] for start in range(len(rows), len(everything), samples)]
    failures = [line["error"] for line in everything if line["error"] is not None]
    if len(failures) == len(everything):
        raise _unjudged(
            judges,
            share,
            f"it failed on all of {len(everything)} completions of the evaluation, the first time by: {failures[0]}\n"
            f"on {_on(everything)}",
            expected="a score for at least one of them",
            fix="repair the reward for such completions, or name another judge in evaluate.reward",
        )
    unscored = [line for line in table if line["score"] is None and line["error"] is None]
    if len(unscored) == len(table):
        raise _unjudged(
            judges,
            share,
            f"no reward scored any of the {len(table)} completions of the evaluation, such as {_on(unscored)}",
            expected="a number in [0, 1] or a Score for each row that is evaluated on; None is for rows that a reward "
            "is not for",
            fix="does it forget `return`? `posttrain rewards check` shows what it gives; or name another judge in "
            "evaluate.reward",
        )
    passed = [line["passed"] for line in table]
    return Evaluation(
        passed=passed,
        ci95=share_ci(passed, seed=seed),
        pass_at_k={each: _mean_pass_at_k(tried, each) for each in k} if tried else {},
        by={column: _slices(table, name, seed) for column, name in sliced.items()},
        rows=everything,
        mean_length=float(np.mean([line["length"] for line in table])),
        truncated_share=float(np.mean([line["truncated"] for line in table])),
        errors=len(failures),
        unscored=len(unscored),
        seconds=time.perf_counter() - started,
        judge=judge(judges, threshold),
    )


PARSED = 1000
"""Characters that are kept of what was read in a completion."""

MOST_SOURCES = 50
"""Sources by which pass@1 is told apart; a column of more is no column of sources."""
_SHOWN = 400  # characters of a completion in an error
_Answer = tuple[int, int | None, "Completion"]
"""A row's number, a sample's, None of the greedy one, and the completion."""


class _Share:
    """The rows of this process: every so many-th, and as many on each.

    Attributes:
        processes: How many share the rows.
        places: The rows' numbers. Those past the last row are sampled for company: a sharded model needs all processes
            in every forward pass, and no evaluation ends sooner for a process that has nothing to do.
    """

    def __init__(self, rows: int, ranks: Ranks | None):
        first, self.processes = (0, 1) if ranks is None else (ranks.number, ranks.count)
        self._rows = rows
        self.places = [first + self.processes * turn for turn in range(-(-rows // self.processes))]

    def answers(self, groups: Sequence[Sequence[Completion]], *, greedy: bool) -> list[_Answer]:
        """The completions of each place, without those for company."""
        return [
            (place, None if greedy else number, completion)
            for place, group in zip(self.places, groups, strict=True)
            for number, completion in enumerate(group)
            if place < self._rows
        ]


def _in_order(shares: Sequence[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The completions of all processes as one would have them: the greedy ones, then each problem's samples."""
    everything = [line for share in shares for line in share]
    return sorted(everything, key=lambda line: (line["sample"] is not None, line["row"], line["sample"] or 0))


def _sampler(
    model: Any, tokenizer: Any, engine: Any, batch_size: int, synced: bool
) -> Callable[..., list[list[Completion]]]:
    if engine is None:
        from posttrain.rollouts import transformers

        return partial(transformers.generate, model, tokenizer, batch_size=batch_size, synced=synced)
    from posttrain.rollouts import with_engine

    engine.load(model)
    return partial(with_engine.generate, engine, tokenizer)


def _row(
    outcome: Outcome,
    passed: bool,
    row: dict[str, Any],
    index: int,
    sample: int | None,
    completion: Completion,
    sliced: Mapping[str, str],
) -> dict[str, Any]:
    """A completion with its score, as a row of the parquet file."""
    score = outcome.score
    return {
        "row": index,
        "sample": sample,
        "prompt": row["prompt"],
        "completion": completion.text,
        "passed": passed,
        "score": None if score is None else float(score.value),
        "note": score.note if score else "" if outcome.error else "no reward scored it",
        "error": None if outcome.error is None else str(outcome.error),
        "length": completion.length,
        "truncated": completion.truncated,
        "parsed": None if score is None else _as_text(score.parsed),
        **{name: row.get(column) for column, name in sliced.items()},
    }


def _as_text(parsed: Any) -> str | None:
    """What a reward took a completion to say: the same text for the same answer."""
    if parsed is None or isinstance(parsed, str):
        return None if parsed is None else parsed[:PARSED]
    try:
        return json.dumps(parsed, ensure_ascii=False, sort_keys=True)[:PARSED]
    except (TypeError, ValueError):
        return repr(parsed)[:PARSED]


def _unjudged(judges: Sequence[Reward], share: _Share, seen: str, *, expected: str, fix: str) -> RewardError:
    """The error of an evaluation that nothing judged, on all processes."""
    where = "reward " + " and ".join(repr(each.name) for each in judges)
    error = RewardError(seen, expected=expected, where=where, fix=fix)
    error.shared = share.processes > 1
    return error


def _on(lines: list[dict[str, Any]]) -> str:
    return repr(lines[0]["completion"][:_SHOWN])


def _mean_pass_at_k(tried: list[list[dict[str, Any]]], k: int) -> float:
    """pass@k of the data set: the mean over problems of each one's estimate."""
    return float(np.mean([pass_at_k(len(group), sum(line["passed"] for line in group), k) for group in tried]))


def sliced_by(rows: Sequence[Mapping[str, Any]], slice_by: str | None) -> dict[str, str]:
    """The columns by which pass@1 is told apart, and what tables of completions call them.

    Args:
        rows: The problems.
        slice_by: The task's own column.
    """
    found = {slice_by: slice_by} if slice_by else {}
    sources = {str(row[SOURCE]) for row in rows if row.get(SOURCE) is not None}
    return found | ({SOURCE: PROMPT_SOURCE} if 1 < len(sources) <= MOST_SOURCES else {})


def _slices(table: list[dict[str, Any]], slice_by: str, seed: int) -> dict[str, dict[str, Any]]:
    groups: dict[Any, list[bool]] = {}
    for line in table:
        groups.setdefault(line[slice_by], []).append(line["passed"])
    ordered = sorted(groups, key=lambda value: (isinstance(value, str), value is None, value or 0))
    return {
        str(value): {
            "n": len(groups[value]),
            "pass@1": sum(groups[value]) / len(groups[value]),
            "ci95": list(share_ci(groups[value], seed=seed)),
        }
        for value in ordered
    }
