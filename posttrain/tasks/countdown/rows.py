"""Puzzles as rows: a prompt, a worked completion, and the columns that the reward reads."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from posttrain.tasks.countdown.arithmetic import text
from posttrain.tasks.countdown.generate import Puzzle

Prompt: TypeAlias = Literal["full", "short"]
Row: TypeAlias = dict[str, Any]


def puzzle_row(puzzle: Puzzle, operators: tuple[str, ...], prompt: Prompt, *, use_all: bool) -> Row:
    """A puzzle as a row without a completion."""
    return {
        "prompt": prompt_text(puzzle, operators, prompt, use_all=use_all),
        "numbers": list(puzzle.numbers),
        "target": puzzle.target,
        "use_all": use_all,
        "operators": list(operators),
        "expression": text(puzzle.solution),
        "difficulty": len(puzzle.numbers),
    }


def prompt_text(puzzle: Puzzle, operators: tuple[str, ...], prompt: Prompt, *, use_all: bool) -> str:
    """The puzzle and how to answer it; or in the fewest words, with the numbers from the largest down."""
    if prompt == "short":
        return f"Numbers: {' '.join(map(str, sorted(puzzle.numbers, reverse=True)))} Target: {puzzle.target}\n"
    rule = "Use each number exactly once" if use_all else "Use each number at most once"
    return (
        f"Using the numbers {', '.join(map(str, puzzle.numbers))}, write an expression that equals {puzzle.target}. "
        f"{rule}, with the operations {', '.join(operators)} and brackets where they are needed.\n"
        "Put your reasoning between <think> and </think>, then give only the expression between <answer> and "
        "</answer>, for example <answer>(1 + 2) * 3</answer>.\n"
    )


def with_completion(row: Row, thought: str | None, answer: str) -> Row:
    """The row as a demonstration: its prompt, a completion, its columns."""
    tagged = f"<answer>{answer}</answer>"
    completion = tagged if thought is None else f"<think>{thought}</think>\n{tagged}"
    return {"prompt": row["prompt"], "completion": completion, **{k: v for k, v in row.items() if k != "prompt"}}
