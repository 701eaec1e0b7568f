"""A set's own categories in the taxonomy, so that scores by category compare across sets."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources

import yaml

from safepref.taxonomy.types import fold


@cache
def category_table() -> Mapping[str, Mapping[str, str | None]]:
    """categories.yaml: by set, the micro category of each of its names; None where no single one fits."""
    text = resources.files(__package__).joinpath("categories.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def mapped(name: str, category: object) -> str | None:
    """The taxonomy's micro category for a category of the set `name`.

    The set's own name comes back where the table has none for it: an unknown category is not a wrong one.
    """
    if category is None or not str(category).strip():
        return None
    own = str(category).strip()
    return category_table()[name].get(fold(own.replace("/", " "))) or own
