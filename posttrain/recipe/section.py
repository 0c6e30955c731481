"""The base of a recipe's sections, and the kinds of number they hold. Importing this loads no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=0)]
Size = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
SFTWeight = Literal["nll", "dft", "phi", "trust", "clipped", "dco", "pearson", "hellinger", "js", "unselected"]
"""What a demonstration's token counts in the SFT loss (see `training.token_weights` and `training.row_weights`)."""
AGAINST_START = ("pearson", "hellinger", "js")
"""Weights that compare with the policy that a stage began with."""
BY_ROW = ("dco", *AGAINST_START)
"""Weights that all tokens of a demonstration share."""
OF_WHOLE = (*BY_ROW, "unselected")
"""Weights for which a demonstration is looked at as a whole."""
TRIES = 8
"""N of `dco`, where a recipe says nothing."""


class Section(BaseModel):
    """A part of a recipe: read-only, no unknown keys, no silent conversions (neither "10" nor true is a number)."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_default=True, allow_inf_nan=False)
