"""The package bitsandbytes, which holds weights in 4 bits: whether it is installed. Loads no torch."""

from __future__ import annotations

from importlib import metadata
from importlib.util import find_spec

from posttrain.errors import ConfigError
from posttrain.extras import install

PACKAGE = "bitsandbytes"
OLDEST = "0.46.1"
"""The first version that transformers takes; it computes on CPUs, too."""


def check_installed(where: str) -> None:
    """Refuse a 4-bit base where the package that holds it is missing.

    Args:
        where: The key that asked for it.

    Raises:
        ConfigError: It is not installed, or too old.
    """
    found = _installed_version()
    if found is None or not is_new_enough(found):
        raise ConfigError(
            f"the package {PACKAGE}, which holds weights in 4 bits, is {found or 'not installed'}",
            expected=f"{PACKAGE} {OLDEST} or newer",
            where=where,
            fix=f"{install('qlora')}; or take the weights whole, without model.load_in_4bit, in four times the memory",
        )


def is_new_enough(version: str) -> bool:
    """Whether a version of it can be used."""
    from packaging.version import Version

    return Version(version) >= Version(OLDEST)


def _installed_version() -> str | None:
    if find_spec(PACKAGE) is None:
        return None
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return None
