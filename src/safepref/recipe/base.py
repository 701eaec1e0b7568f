"""What all sections share: their kind, and the types of values."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """A part of the recipe: unknown keys, wrong types and infinite numbers are errors; values stay."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=False, validate_default=True, allow_inf_nan=False
    )


Names = str | tuple[str, ...]
"""One file or named set, or several."""

STARTER, EXTENDED = "starter", "extended"
SHIPPED = (STARTER, EXTENDED)
"""Names of the shipped sets of prompts."""


def as_names(value: Names | None) -> tuple[str, ...]:
    """The names that a key holds; the shipped set's where it is null."""
    if value is None:
        return (STARTER,)
    return (value,) if isinstance(value, str) else value
