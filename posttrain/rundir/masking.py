"""Keeping passwords and tokens out of what a run writes down: its recipe, its command, and the page that shows both."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

_NAME = (
    r"(?:(?:hub|hf|api|auth|access|bearer|wandb|secret|private)[_-]?(?:token|key)|token|password|passwd|secret"
    r"|credentials?)"
)
_KEY = re.compile(rf"(?:.*[_.-])?{_NAME}", re.IGNORECASE)
_SPECIAL = re.compile(r"(?:.*[_.-])?(?:bos|eos|pad|unk|cls|sep|mask|image|decoder_start)_token", re.IGNORECASE)
"""Tokens of a vocabulary, which are no secrets."""
_NAMED = re.compile(
    rf"(?P<before>(?P<key>[\w.-]*?{_NAME})[\"']?\s*[:=]\s*[\"']?)(?P<value>[^\s,\"'}}\]]+)", re.IGNORECASE
)
"""`key=value` or `key: value` within a longer text."""
_KNOWN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[\w-]{16,}|gh[pousr]_\w{16,}|github_pat_\w{16,}|AKIA[0-9A-Z]{16}|xox[abp]-[\w-]{10,})"
)
"""What looks like a token of a service, whatever key it stands under."""
_IN_URL = re.compile(r"(?P<scheme>\w+://)(?P<login>[^/@\s]+)@")


def without_secrets(value: Any, key: str = "") -> Any:
    """A copy of plain data with secrets replaced by a hash, so that a changed one still shows.

    A text is a secret by its key (`api_key`, `hub_token`, `password` and so on) or by its looks (`hf_...`, a login in
    an address).
    """
    if isinstance(value, Mapping):
        return {name: without_secrets(item, str(name)) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(item, key) for item in value]
    if not isinstance(value, str) or not value:
        return value
    if _KEY.fullmatch(key) and not _SPECIAL.fullmatch(key):
        return _hidden(value)
    return _known_hidden(value)


def command_without_secrets(arguments: Sequence[str]) -> list[str]:
    """A command line with secrets replaced: `--hub_token X`, `rewards.0.kwargs.api_key=X` and what looks like one."""
    shown, secret_next = [], False
    for argument in arguments:
        name = argument.lstrip("-")
        shown.append(_hidden(argument) if secret_next else _NAMED.sub(_named_hidden, _known_hidden(argument)))
        secret_next = argument.startswith("-") and bool(_KEY.fullmatch(name)) and not _SPECIAL.fullmatch(name)
    return shown


def _hidden(secret: str) -> str:
    return secret if secret.startswith("(secret ") else f"(secret {hashlib.sha256(secret.encode()).hexdigest()[:8]})"


def _known_hidden(text: str) -> str:
    text = _KNOWN.sub(lambda found: _hidden(found[0]), text)
    return _IN_URL.sub(lambda found: f"{found['scheme']}{_hidden(found['login'])}@", text)


def _named_hidden(found: re.Match[str]) -> str:
    if _SPECIAL.fullmatch(found["key"]) or found["value"].startswith("(secret"):
        return found[0]
    return found["before"] + _hidden(found["value"])
