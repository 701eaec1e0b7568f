"""What a search tries for each method: ranges about the settings that hold without it."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from safepref.errors import InputError
from safepref.methods import Method
from safepref.methods.table import Range
from safepref.recipe import Recipe
from safepref.training import TrainingSettings

DIGITS = 3
"""Significant digits of the values that are tried; more say nothing."""


@dataclass(frozen=True, slots=True)
class Span:
    """From `low` to `high` times the present setting."""

    low: float
    high: float
    log: bool = True
    """Drawn evenly by ratio, not by difference."""


SPANS: Mapping[str, Span] = {
    "learning_rate": Span(1 / 4, 2),
    "beta": Span(1 / 4, 4),
    "epochs": Span(1 / 2, 3 / 2, log=False),
    "chosen_nll": Span(1 / 4, 2),
    "harmless_nll": Span(1 / 2, 4),
    "anchor": Span(1 / 2, 4),
    "label_smoothing": Span(1 / 4, 3),
}
"""For every method that has the setting. A setting of 0 is switched off and stays so."""

NARROWED: Mapping[str, Mapping[str, Span]] = {
    # Unbounded below: what grows without end must not be trained harder than the default.
    "rdpo": {"learning_rate": Span(1 / 4, 1), "epochs": Span(1 / 2, 1, log=False)},
    # The target per token is 1 / (2 beta) nats; below half the default it is out of any model's reach.
    "ipo": {"beta": Span(1 / 2, 10)},
    # The chosen reward settles at ln 2 / beta nats: 9 at the upper end, and fewer teach no refusal.
    "nca": {"beta": Span(1 / 5, 3 / 2)},
    "exo": {"label_smoothing": Span(1 / 10, 100)},
}
"""Where a method's loss asks for another range."""


@dataclass(frozen=True, slots=True)
class Knob:
    """One number that is searched, and between what."""

    name: str
    center: float
    """The present setting, which is the first trial's."""
    low: float
    high: float
    log: bool


def search_space(
    recipe: Recipe, method: Method, width: int | None, only: Collection[str] = ()
) -> tuple[Knob, ...]:
    """The numbers that are searched for a method, about what the recipe and the method's row give.

    Args:
        recipe: whose training section gives the centers.
        method: a row of the table.
        width: the model's hidden size, which the default learning rate depends on.
        only: names to search; none for all.

    Raises:
        InputError: a name in `only` that nothing has, or none of them is a setting of this method.
    """
    for name in only:
        if name not in SPANS:
            near = difflib.get_close_matches(name, list(SPANS), n=1)
            hint = f"did you mean {near[0]}?" if near else f"give some of {', '.join(SPANS)}"
            raise InputError(f"--search: {name!r} is nothing that is searched; {hint}")
    spans = {**SPANS, **NARROWED.get(method.name, {})}
    found = []
    for name, center in _centers(recipe, method, width).items():
        if center > 0 and (not only or name in only):
            span, limit = spans[name], method.params.get(name)
            low, high = rounded(center * span.low), rounded(center * span.high)
            if isinstance(limit, Range):  # inside the open end of a loss's own range
                high = min(high, rounded(0.98 * limit.high))
            found.append(Knob(name, center, min(low, center), max(high, center), span.log))
    if not found:
        raise InputError(
            f"--search {','.join(only)}: {method.name} has none of these, or they are 0 in the recipe; "
            f"give some of {', '.join(SPANS)}"
        )
    return tuple(found)


def rounded(value: float) -> float:
    """A value to `DIGITS` significant digits."""
    return float(f"{value:.{DIGITS}g}")


def _centers(recipe: Recipe, method: Method, width: int | None) -> dict[str, float]:
    """What holds without a search, for all that has an effect on the recipe's data."""
    settings = TrainingSettings.from_recipe(recipe.training, method, recipe.seed)
    beta, params = method.resolve(settings.beta, settings.params)
    centers = {
        "learning_rate": settings.rate(method, width),
        "beta": beta,
        "epochs": settings.epochs,
    }
    if not method.holds_nll(params):
        centers["chosen_nll"] = settings.chosen_nll["harmful"]
        if recipe.data.harmless or recipe.data.ordinary:
            centers["harmless_nll"] = settings.chosen_nll["harmless"]
    if recipe.data.general:
        centers["anchor"] = settings.anchor
    if "label_smoothing" in params:
        centers["label_smoothing"] = float(params["label_smoothing"])
    return centers
