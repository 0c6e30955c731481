"""Texts with `{column}` in them, as a recipe writes prompts, demonstrations and system prompts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from posttrain.errors import ConfigError
from posttrain.nearest import hint

#: Two braces stand for one; a name in braces is a column; any other brace is itself, as in `\boxed{}` or JSON.
_PIECE = re.compile(r"\{\{|\}\}|\{([A-Za-z_][\w.-]*)\}")


class Template:
    """A text that a row's columns are put into.

    Args:
        text: With `{column}`; `{{` and `}}` are braces.
        where: The recipe's key.
    """

    def __init__(self, text: str, where: str):
        self.text, self.where = text, where
        self.columns = tuple(dict.fromkeys(found[1] for found in _PIECE.finditer(text) if found[1]))

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
        """The text for a row; None where one of its columns is empty."""
        texts = {name: as_text(columns.get(name)) for name in self.columns}
        if any(text is None or not text.strip() for text in texts.values()):
            return None
        return _PIECE.sub(lambda found: texts[found[1]] or "" if found[1] else found[0][0], self.text)


def as_text(value: Any) -> str | None:
    """A cell in words: text as it is, numbers as written, lists and mappings as JSON."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool | list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)
