"""Texts with `{column}` in them, as a recipe writes prompts, demonstrations and system prompts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from posttrain.errors import ConfigError
from posttrain.nearest import hint

#: Two braces stand for one; a name in braces is a column, with `?` one that may be empty; any other brace is itself, as
#: in `\boxed{}` or JSON.
_PIECE = re.compile(r"\{\{|\}\}|\{([A-Za-z_][\w.-]*)(\??)\}")


class Template:
    """A text that a row's columns are put into.

    Args:
        text: With `{column}`, or `{column?}` for one that may be empty; `{{` and `}}` are braces.
        where: The recipe's key.
    """

    def __init__(self, text: str, where: str):
        self.text, self.where = text, where
        found = [piece for piece in _PIECE.finditer(text) if piece[1]]
        self.columns = tuple(dict.fromkeys(piece[1] for piece in found))
        self._optional = {piece[1] for piece in found if piece[2]} - {piece[1] for piece in found if not piece[2]}

    def check(self, columns: Iterable[str]) -> None:
        """Refuse a template of columns that no row has.

        Raises:
            ConfigError: With the columns there are, and the nearest.
        """
        there = list(columns)
        for name in self.columns:
            if name not in there:
                raise ConfigError(
                    f"no column {name!r}{hint(name, there)} for {self.text!r}",
                    expected="columns of the rows: " + ", ".join(there),
                    where=self.where,
                    fix=f"correct the name, or write {{{{{name}}}}} for {{{name}}} as it stands",
                )

    def fill(self, columns: Mapping[str, Any]) -> str | None:
        """The text for a row; None where one of its columns is empty that may not be.

        Where one is empty that may be, and stands at the end, the text ends before the white space that leads to it.
        """
        texts = {name: as_text(columns.get(name)) or "" for name in self.columns}
        empty = {name for name, text in texts.items() if not text.strip()}
        if empty - self._optional or (empty and len(empty) == len(texts)):
            return None
        filled = _PIECE.sub(lambda found: texts[found[1]] if found[1] else found[0][0], self.text)
        if not empty:
            return filled
        body = filled.rstrip()
        return body + self.text[len(self.text.rstrip()) :]


def as_text(value: Any) -> str | None:
    """A cell in words: text as it is, numbers as written, lists and mappings as JSON."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool | list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)
