"""Which demonstrations a prompt has, by its content, as the tokens that a completion would have."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from posttrain.errors import DataError
from posttrain.inputs.data import demonstration_ids, prompt_key

FIX = "give demonstrations of prompts in train_dataset, or rows with a column 'demonstration'"


class Pairs:
    """Demonstrations of the prompts of a data set.

    Args:
        prompts: Rows with `prompt`, and maybe `demonstration`: a completion of it, or a list of several.
        demonstrations: Rows with `prompt` and `completion`; those whose prompt is among `prompts` are joined to it.
        tokenizer: The policy's.
        longest: Most tokens of a completion.
        too_long: What becomes of longer demonstrations; they are never cut.
        template_kwargs, after: As for `tokenize_demonstrations`.

    Attributes:
        ids: Completion tokens of each demonstration, with its end.
        rows: What each was made from.
        of: By a prompt's row number, the numbers of its demonstrations.
        left_out: Demonstrations that are too long.
        beyond: Those left out by `without`.
        alone: Demonstrations whose prompt is not among `prompts`.

    Raises:
        DataError: No prompt has a demonstration, or one is too long and `too_long` is `refuse`.
    """

    def __init__(
        self,
        prompts: Any,
        demonstrations: Sequence[Mapping[str, Any]] | Any,
        tokenizer: Any,
        *,
        longest: int,
        too_long: Literal["refuse", "leave_out"],
        template_kwargs: Mapping[str, Any],
        after: Any,
    ):
        self.ids: list[list[int]] = []
        self.rows: list[Mapping[str, Any]] = []
        self.of: dict[int, list[int]] = {}
        self.left_out = self.alone = self.beyond = 0
        rows: dict[str, list[int]] = {}
        for number, row in enumerate(prompts):
            rows.setdefault(prompt_key(row["prompt"]), []).append(number)
        joined: list[Mapping[str, Any]] = list(_own(prompts))
        for row in demonstrations if demonstrations is not None else ():
            if "prompt" not in row or "completion" not in row:
                raise DataError(
                    f"a demonstration has the columns {', '.join(sorted(row))}",
                    expected="prompt and completion: a method joins demonstrations to prompts by content",
                    where="demonstrations",
                    fix=FIX,
                )
            joined.append(row)
        for number, row in enumerate(joined):
            partners = rows.get(prompt_key(row["prompt"]))
            if partners is None:
                self.alone += 1
                continue
            ids = demonstration_ids(row, number, tokenizer, template_kwargs, after)[1]
            if len(ids) > longest:
                if too_long == "refuse":
                    raise DataError(
                        f"a demonstration has {len(ids)} tokens, and a completion at most {longest}",
                        expected="demonstrations that a rollout could be: they are not cut",
                        where="demonstrations",
                        fix="raise max_completion_length, or set the method's too_long to leave_out",
                    )
                self.left_out += 1
                continue
            for partner in partners:
                self.of.setdefault(partner, []).append(len(self.ids))
            self.ids.append(ids)
            self.rows.append(row)
        self.prompts = len(prompts)
        self._check_some()

    def _check_some(self) -> None:
        if not self.of:
            raise DataError(
                f"none of {self.prompts} prompts has a demonstration ({self._rest()})",
                expected="a demonstration for some prompts at least: the method looks at both",
                where="demonstrations",
                fix=FIX,
            )

    def without(self, numbers: Collection[int], too_long: Literal["refuse", "leave_out"], positions: int) -> None:
        """Part prompts from demonstrations that a model of so many positions cannot look at beside a completion.

        Raises:
            DataError: There are some, and `too_long` is `refuse`; or no prompt has a demonstration any more.
        """
        if numbers and too_long == "refuse":
            raise DataError(
                f"with {len(numbers):,} demonstrations before its prompt, a completion may end beyond the model's "
                f"{positions:,} positions",
                expected="demonstrations that the teacher can be shown: they are not cut",
                where="demonstrations",
                fix="lower max_completion_length, or set the method's too_long to leave_out",
            )
        self.beyond = len(numbers)
        self.of = {row: kept for row, of in self.of.items() if (kept := [n for n in of if n not in numbers])}
        self._check_some()

    def in_words(self) -> str:
        """How many prompts have one, and what became of the rest."""
        return f"{len(self.of):,} of {self.prompts:,} prompts have a demonstration; {self._rest()}"

    def _rest(self) -> str:
        beyond = f", {self.beyond:,} leave a teacher no positions for a completion" if self.beyond else ""
        return (
            f"{self.alone:,} demonstrations have another prompt, {self.left_out:,} are longer than a completion may be"
            + beyond
        )


def _own(prompts: Any) -> list[dict[str, Any]]:
    """Demonstrations that rows carry themselves."""
    if "demonstration" not in getattr(prompts, "column_names", ()):
        return []
    rows = []
    for row in prompts:
        given = row["demonstration"]
        several = given if isinstance(given, list) and given and not isinstance(given[0], Mapping) else [given]
        rows += [{"prompt": row["prompt"], "completion": one} for one in several if one]
    return rows
