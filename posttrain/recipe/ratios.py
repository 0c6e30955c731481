"""By which ratios models are added to one another. Pure functions over floats.

Balanced Actor Initialization (arXiv 2509.00309) is the sum of three models by two ratios; its linear form is from a
description of the paper, and the ratios are the user's, as the paper's own are not known here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from posttrain.errors import ConfigError


def bai_ratios(alpha: float, beta: float) -> list[float]:
    """Of an instruct, a distilled and a pretrained model: beta * (alpha, 1 - alpha), and 1 - beta."""
    return [alpha * beta, (1.0 - alpha) * beta, 1.0 - beta]


def bai_of(sources: Sequence[Any], given: Sequence[float], where: str) -> list[float]:
    """`bai_ratios` of what was given for these models.

    Raises:
        ConfigError: Not three models, not two shares.
    """
    if len(sources) != 3:
        raise ConfigError(
            f"bai of {len(sources)} models", expected="three: an instruct, a distilled and a pretrained one",
            where=where, fix="set ratios",
        )  # fmt: skip
    if len(given) != 2 or not all(0.0 <= share <= 1.0 for share in given):
        seen = f"bai {', '.join(f'{share:g}' for share in given)}"
        raise ConfigError(seen, expected="alpha and beta, from 0 to 1", where=where, fix="such as 0.5,0.5")
    return bai_ratios(*given)


def ema_ratios(count: int, decay: float) -> list[float]:
    """Of an exponential moving average that begins at the first of so many, the latest last; their sum is 1."""
    return [decay ** (count - 1 - place) * (1.0 if place == 0 else 1.0 - decay) for place in range(count)]


def check_ratios(sources: Sequence[Any], ratios: Sequence[float], where: str) -> None:
    """Refuse ratios that are not of these models, or that make a model of another scale.

    Raises:
        ConfigError: With what was expected.
    """
    if len(sources) != len(ratios):
        raise ConfigError(f"{len(ratios)} ratios of {len(sources)} models", expected="a ratio each", where=where)
    if not all(math.isfinite(ratio) for ratio in ratios):
        raise ConfigError(
            f"ratios {', '.join(f'{ratio:g}' for ratio in ratios)}", expected="numbers with the sum 1", where=where
        )
    if abs(sum(ratios) - 1.0) > 1e-6:
        raise ConfigError(
            f"ratios with the sum {sum(ratios):.6g}",
            expected="the sum 1: any other scales the model",
            where=where,
            fix=f"set them to {', '.join(f'{ratio / sum(ratios):.4g}' for ratio in ratios)}" if sum(ratios) else None,
        )
