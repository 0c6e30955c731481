"""How to install one of this package's extras where it is: a checkout has no name that an index would know."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

CHECKOUT = Path(__file__).resolve().parents[1]
"""Where the package lies in a checkout; elsewhere it is of no meaning."""


def install(extra: str) -> str:
    """The command that adds an extra, such as `pip install -e '.[vllm]'`."""
    if (CHECKOUT / "pyproject.toml").is_file():
        return f"{_pip()} install -e '{_shown(CHECKOUT)}[{extra}]'"
    origin = _origin()
    url = str(origin.get("url", ""))
    if "dir_info" in origin and url.startswith("file://"):
        return f"{_pip()} install '{_shown(Path(unquote(urlsplit(url).path)))}[{extra}]'"
    return f"{_pip()} install 'posttrain[{extra}]{f' @ {url}' if url else ''}'"


def _origin() -> dict[str, Any]:
    """Where pip took the package from (PEP 610); empty for an index, or where nobody wrote it down."""
    try:
        text = importlib.metadata.distribution("posttrain").read_text("direct_url.json")
        found = json.loads(text or "{}")
    except (importlib.metadata.PackageNotFoundError, OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _pip() -> str:
    """The pip that belongs to this Python, which is on the path in an environment that was activated."""
    activated = sys.prefix == sys.base_prefix or os.environ.get("VIRTUAL_ENV") == sys.prefix
    return "pip" if activated else f"{shlex.quote(_shown(Path(sys.executable)).removeprefix('./'))} -m pip"


def _shown(path: Path) -> str:
    """A path from the working directory, written so that pip takes it for none but a path."""
    here = Path.cwd()
    if not path.is_relative_to(here):
        return str(path)
    return "." if path == here else f"./{path.relative_to(here)}"
