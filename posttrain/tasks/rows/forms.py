"""The forms of a row: text or messages, prompt and completion apart or in one conversation; read into one form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.errors import ConfigError, DataError
from posttrain.nearest import hint, nearest
from posttrain.tasks.columns import RESERVED, content_key, own_columns
from posttrain.tasks.row_files import RawRow
from posttrain.tasks.rows.templates import Template, as_text

Message = dict[str, str]
Text = str | list[Message]

_PARTS = ("prompt", "completion", "messages", "system")
_LIKELY = {
    "prompt": ("question", "problem", "instruction", "input", "query", "text", "user"),
    "messages": ("conversation", "conversations", "chat", "dialog", "dialogue"),
}
_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}  # as ShareGPT and others say


@dataclass(frozen=True)
class OwnRow:
    """A row in the one form that the task hands on.

    Args:
        where: Where it stands.
        prompt: Text or messages.
        completions: Its demonstrations, of the prompt's kind.
        columns: What the rewards get besides the prompt.
        weight: Of its file.
    """

    where: str
    prompt: Text
    completions: tuple[Text, ...]
    columns: dict[str, Any]
    weight: float = 1.0

    @property
    def key(self) -> str:
        """What makes two rows the same one."""
        return content_key({"prompt": self.prompt})

    @property
    def characters(self) -> int:
        """The length of its prompt and its longest completion."""
        return _length(self.prompt) + max(map(_length, self.completions), default=0)

    def public(self) -> dict[str, Any]:
        """As a prompt."""
        return {"prompt": self.prompt, **self.columns}

    def demonstrations(self) -> list[dict[str, Any]]:
        """As demonstrations, one for each completion."""
        return [{"prompt": self.prompt, "completion": one, **self.columns} for one in self.completions]


class Forms:
    """How a recipe's rows are read.

    Args:
        columns: The recipe's names for columns of the files.
        templates: `prompt`, `completion` and `system`, where the recipe writes them.

    Raises:
        ConfigError: A column is to get a name that no column can have.
    """

    def __init__(self, columns: Mapping[str, str], templates: Mapping[str, Template]):
        self._columns, self._templates = columns, templates
        for name in columns:
            if name in RESERVED - set(_PARTS):
                raise ConfigError(
                    f"{name!r} as the name of a column",
                    expected="another name: this one has a meaning of its own where rewards are called",
                    where=f"task.columns.{name}",
                )

    @property
    def demonstrated_by(self) -> tuple[str, ...]:
        """The files' own name for the demonstration, where the recipe says which column it is."""
        return tuple(source for name, source in self._columns.items() if name == "completion")

    def check(self, columns: Sequence[str], where: str) -> None:
        """What can be said of all rows together.

        Args:
            columns: Those that any row has.
            where: The first row.

        Raises:
            DataError: A column that the recipe names is not there, one has a reserved name, or none is a prompt.
            ConfigError: A template has a column that is not there.
        """
        for name, source in self._columns.items():
            if source not in columns:
                raise DataError(
                    f"no column {source!r}{hint(source, columns)}",
                    expected="one of " + ", ".join(columns),
                    where=f"task.columns.{name} ({where})",
                )
        for template in self._templates.values():
            template.check([*columns, *(name for name in self._columns if name not in columns)])
        taken = [name for name in columns if name in RESERVED - set(_PARTS) and name not in self._columns.values()]
        if taken:
            raise DataError(
                f"the column {taken[0]!r}",
                expected="another name: rewards, or the trainer, get something else under this one",
                where=where,
                fix=f"rename it in the recipe: columns: {{my_{taken[0]}: {taken[0]}}}",
            )
        there = {*columns, *self._columns, *self._templates}
        if not there & {"prompt", "messages"}:
            likely = [(part, name) for part, names in _LIKELY.items() for name in names if name in columns]
            part, name = likely[0] if likely else ("prompt", (nearest("prompt", columns) or ["COLUMN"])[0])
            raise DataError(
                f"columns {', '.join(columns)}",
                expected="prompt (text or messages), or messages",
                where=where,
                fix=f"name it, such as columns: {{{part}: {name}}}, or write a template, such as prompt: '{{{name}}}'",
            )

    def read(self, raw: RawRow, weight: float = 1.0) -> OwnRow | str:
        """The row in the task's form, or why it is not used.

        Raises:
            DataError: The prompt or the completion is in no known form.
        """
        columns = {**raw.columns, **{name: raw.columns.get(source) for name, source in self._columns.items()}}
        conversation = self._messages(columns, raw.where)
        completion = self._text("completion", columns, raw.where)
        if "prompt" in self._templates or "prompt" in self._columns or conversation is None:
            prompt = self._text("prompt", columns, raw.where)
        else:
            prompt, said = conversation
            completion = completion or said
        if not prompt or (isinstance(prompt, str) and not prompt.strip()):
            return "without a prompt"
        if isinstance(prompt, list) and prompt[-1]["role"] == "assistant":
            raise DataError(
                "the prompt's last message is the assistant's",
                expected="a prompt that the assistant is to answer",
                where=f"{raw.where} column prompt",
                fix="put the whole conversation into a column messages: its last turn is the demonstration then",
            )
        prompt = _with_system(prompt, self._text("system", columns, raw.where))
        completions = () if not completion else (_alike(prompt, completion),)
        if isinstance(prompt, str) and completion and not isinstance(completion, str):
            prompt = [{"role": "user", "content": prompt}]
        return OwnRow(raw.where, prompt, completions, own_columns(columns), weight)

    def _messages(self, columns: Mapping[str, Any], where: str) -> tuple[list[Message], list[Message]] | None:
        """A conversation as the prompt and the last turn of the assistant; None without such a column."""
        if columns.get("messages") is None:
            return None
        messages = _messages(columns["messages"], f"{where} column {self._columns.get('messages', 'messages')}")
        if messages and messages[-1]["role"] == "assistant":
            return messages[:-1], messages[-1:]
        return messages, []

    def _text(self, part: str, columns: Mapping[str, Any], where: str) -> Text | None:
        """A prompt, completion or system prompt: by its template, or from its column."""
        if part in self._templates:
            return self._templates[part].fill(columns)
        value = columns.get(part)
        if value is None or isinstance(value, str):
            return value or None
        if isinstance(value, list | dict):
            roles = {"prompt": "user", "completion": "assistant", "system": "system"}
            named = f"{where} column {self._columns.get(part, part)}"
            return _messages([value] if isinstance(value, dict) else value, named, roles[part])
        return as_text(value)


def _with_system(prompt: Text, system: Text | None) -> Text:
    if not system:
        return prompt
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if messages[0]["role"] in ("system", "developer"):
        return messages
    said = [{"role": "system", "content": system}] if isinstance(system, str) else system
    return [*said, *messages]


def _alike(prompt: Text, completion: Text) -> Text:
    if isinstance(completion, str) and not isinstance(prompt, str):
        return [{"role": "assistant", "content": completion}]
    return completion


def _messages(value: Any, where: str, role: str | None = None) -> list[Message]:
    """Messages with `role` and `content`, or ShareGPT's `from` and `value`."""
    if not isinstance(value, list):
        raise DataError(f"a {type(value).__name__}", expected=_EXPECTED, where=where)
    return [_message(one, where, role) for one in value]


_EXPECTED = "a list of messages, such as {role: user, content: ...}"


def _message(one: Any, where: str, default: str | None) -> Message:
    if not isinstance(one, dict):
        raise DataError(f"a {type(one).__name__} among the messages", expected=_EXPECTED, where=where)
    role = one.get("role", one.get("from", default))
    content = one.get("content", one.get("value"))
    if not isinstance(role, str) or not isinstance(content, str):
        seen = "content that is not text" if isinstance(role, str) else f"a message with {', '.join(map(str, one))}"
        raise DataError(
            seen,
            expected=_EXPECTED,
            where=where,
            fix="tools, images and calls are not supported: leave such rows out, or write them as text",
        )
    return {"role": _ROLES.get(role, role), "content": content}


def _length(text: Text) -> int:
    return len(text) if isinstance(text, str) else sum(len(message["content"]) for message in text)
