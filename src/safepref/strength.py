"""A strength: how much of what was trained is applied, alike everywhere or by groups of decoder layers.

One number scales the whole change: 0 is the base, 1 the trained model. A tuple of K numbers cuts the decoder
layers into K groups of neighbours, input side first, each with a number of its own, as adaptive model
averaging does (arXiv 2309.06256). It is written "0.8" or "1/0.6/1".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from safepref.errors import InputError

Strength = float | tuple[float, ...]


def parse_strength(value: object, where: str = "strength") -> Strength:
    """A strength from a number, its written form, or a sequence of numbers.

    A tuple of equal numbers is the number, so that one point has one name.

    Raises:
        InputError: not a number in 0..1, or a part that is none; `where` and the value are named.
    """
    parts: Sequence[Any] = [value]
    if isinstance(value, str):
        parts = value.split("/")
    elif isinstance(value, tuple | list):
        parts = value
    levels: list[float] = []
    for part in parts:
        try:
            level = math.nan if isinstance(part, bool) else float(part)
        except (TypeError, ValueError):
            level = math.nan
        if not 0 <= level <= 1:
            raise InputError(
                f"{where}: strength {value!r} is no number in 0..1; write 0.8, or 1/0.6/1 by groups of layers"
            )
        levels.append(level)
    if not levels:
        raise InputError(f"{where}: the strength is empty; write 0.8, or 1/0.6/1 by groups of layers")
    return levels[0] if len(set(levels)) == 1 else tuple(levels)


def strength_text(value: Strength) -> str:
    """The written form: "0.8", "1/0.6/1"."""
    return "/".join(f"{level:g}" for level in levels_of(value))


def strength_json(value: Strength) -> float | str:
    """What stands in JSON: one number as it is, several in their written form."""
    return strength_text(value) if isinstance(value, tuple) else value


def levels_of(value: Strength) -> tuple[float, ...]:
    """The numbers of a strength, one for a strength that is alike everywhere."""
    return value if isinstance(value, tuple) else (value,)


def mean_strength(value: Strength) -> float:
    """The mean over the groups, by which strengths are put in an order."""
    levels = levels_of(value)
    return sum(levels) / len(levels)


def point_name(method: str, value: Strength) -> str:
    """A point as results and samples name it: "nca" at 1, else "nca@0.8", "nca@1/0.6/1"."""
    return method if value == 1 else f"{method}@{strength_text(value)}"


def point_file(point: str) -> str:
    """A point's name as part of a file's: no strength holds a slash there."""
    return point.replace("/", "_")


def file_point(name: str) -> str:
    """The point that `point_file` made a file's name of."""
    method, at, strength = name.partition("@")
    return f"{method}{at}{strength.replace('_', '/')}"


def group_of_layer(layer: int, layers: int, groups: int) -> int:
    """The group of a decoder layer: `groups` runs of neighbours, whose sizes differ by at most one."""
    return layer * groups // layers
