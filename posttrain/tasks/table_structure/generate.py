"""Tables at random, from the fields of `json_structure`: the same few for each row, and a text that says it all."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from posttrain.errors import DataError
from posttrain.tasks.json_structure.domains import DOMAINS
from posttrain.tasks.json_structure.fields import Field
from posttrain.tasks.table_structure.writing import TableForm

# So many draws in a row without a new table mean that (almost) none is left.
_PATIENCE = 3_000


@dataclass(frozen=True)
class Bounds:
    """What tables are drawn from; see `TableStructure`."""

    forms: Sequence[TableForm]
    rows: Sequence[int]
    columns: Sequence[int]
    domains: Sequence[str]
    kinds: Sequence[str]
    vocabulary: int | None
    synonyms: bool


@dataclass(frozen=True)
class TableRecord:
    """A text with the table that it says.

    Args:
        form: How the table is asked for.
        columns: The names; the first one's values are all different.
        rows: The cells, as the text has them; truth values are `yes` and `no`.
        text: A line for each row, in their order.
    """

    form: TableForm
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text: str


def fields_of(fields: Sequence[Field], kinds: Sequence[str]) -> list[Field]:
    """Those of these kinds."""
    return [field for field in fields if field.kind in kinds]


def random_table(rng: random.Random, form: TableForm, rows: int, columns: int, bounds: Bounds) -> TableRecord:
    """A table of so many rows and columns, of one domain."""
    fields = DOMAINS[bounds.domains[rng.randrange(len(bounds.domains))]]
    first = rng.choice([field for field in fields if field.kind == "text"])
    drawn = [
        first,
        *rng.sample([field for field in fields_of(fields, bounds.kinds) if field is not first], columns - 1),
    ]
    names = tuple(rng.choice(field.names) if bounds.synonyms else field.key for field in drawn)
    cells: list[tuple[str, ...]] = []
    lines: list[str] = []
    for subject in rng.sample(first.words[: bounds.vocabulary], rows):
        values = [subject, *(field.value(rng, bounds.vocabulary) for field in drawn[1:])]
        sentences = [field.sentence(value, rng) for field, value in zip(drawn, values, strict=True)]
        rng.shuffle(sentences)
        cells.append(tuple(_cell(field, value) for field, value in zip(drawn, values, strict=True)))
        lines.append(" ".join(sentences))
    return TableRecord(form, names, tuple(cells), "\n".join(lines))


def _cell(field: Field, value: object) -> str:
    return ("yes" if value else "no") if field.kind == "flag" else field.spoken(value)


def split_tables(bounds: Bounds, seed: int, counts: Mapping[str, int]) -> dict[str, list[TableRecord]]:
    """Disjoint `eval`, `demonstrations` and `train` tables; each form gets the same share of each part.

    No two have the same text. No eval table is any other's, in whatever words or form. The parts have random streams of
    their own, so that asking for more train tables changes neither eval nor demonstrations.

    Raises:
        DataError: There are not that many.
    """
    texts: set[str] = set()
    held_out: set[object] = set()
    parts: dict[str, list[TableRecord]] = {}
    for part in ("eval", "demonstrations", "train"):
        rng = random.Random(f"table_structure {part} {seed}")
        records: list[TableRecord] = []
        for number in range(counts.get(part, 0)):
            form = bounds.forms[number % len(bounds.forms)]
            for _ in range(_PATIENCE):
                record = random_table(rng, form, rng.choice(bounds.rows), rng.choice(bounds.columns), bounds)
                if record.text not in texts and (record.columns, record.rows) not in held_out:
                    break
            else:
                raise DataError(
                    f"after {len(records)} of {counts[part]} {part} texts no new one was found",
                    expected="as many different texts as the task asks for",
                    where="task table_structure",
                    fix="ask for fewer, or allow more domains, a larger vocabulary, or more rows",
                )
            texts.add(record.text)
            if part == "eval":
                held_out.add((record.columns, record.rows))
            records.append(record)
        rng.shuffle(records)
        parts[part] = records
    return parts
