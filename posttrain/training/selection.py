"""What a selection of tokens for GRPO is asked for by; `window.selection` does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from posttrain.errors import ConfigError
from posttrain.nearest import did_you_mean


@dataclass(frozen=True)
class Band:
    """What holds the selected tokens' entropies together.

    Attributes:
        coef: Of the loss.
        low, high: Quantiles of a completion's selected entropies, between which nothing is added.
    """

    coef: float
    low: float = 0.1
    high: float = 0.5


@dataclass(frozen=True)
class Selection:
    """Which tokens of a completion GRPO trains.

    Attributes:
        top_entropy: Share of a completion's tokens, above 0 and below 1.
        per: Of what the share is taken.
        kl_too: Whether the KL penalty (`beta`) acts on the selected tokens only, too.
        band: `None` is none.
    """

    top_entropy: float
    per: str = "response"
    kl_too: bool = True
    band: Band | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any] | Selection | None) -> Selection | None:
        """From a mapping of its attributes.

        Raises:
            ConfigError: It has others, or values that select nothing or everything.
        """
        if given is None or isinstance(given, Selection):
            return given
        _known(cls, given, "top_entropy", "tokens")
        share = given["top_entropy"]
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0.0 < share < 1.0:
            expected = "a share above 0 and below 1: 1 is every token"
            raise ConfigError(repr(share), expected=expected, where="tokens.top_entropy", fix="leave tokens out")
        if given.get("per", "response") != "response":
            fix = "TRL's top_entropy_quantile is by the micro-batch"
            raise ConfigError(repr(given["per"]), expected="response", where="tokens.per", fix=fix)
        if not isinstance(given.get("kl_too", True), bool):
            raise ConfigError(repr(given["kl_too"]), expected="true or false", where="tokens.kl_too")
        return cls(**{**given, "band": _band(given.get("band"))})


def _band(given: Mapping[str, Any] | Band | None) -> Band | None:
    if given is None or isinstance(given, Band):
        return given
    _known(Band, given, "coef", "tokens.band")
    band = Band(**given)
    if not (band.coef > 0.0 and 0.0 <= band.low <= band.high <= 1.0):
        raise ConfigError(
            f"coef {band.coef:g}, low {band.low:g}, high {band.high:g}",
            expected="coef above 0, and 0 <= low <= high <= 1",
            where="tokens.band",
        )
    return band


def _known(kind: type, given: Mapping[str, Any], needed: str, where: str) -> None:
    names = [each.name for each in fields(kind)]
    unknown = [str(name) for name in given if name not in names]
    if unknown or needed not in given:
        fix = did_you_mean(unknown[0], names) if unknown else f"set {needed}"
        seen = f"{where} with {', '.join(unknown)}" if unknown else f"{where} without {needed}"
        raise ConfigError(seen, expected=" and ".join(names), where=where, fix=fix)
