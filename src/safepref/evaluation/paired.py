"""Two policies on the same prompts: paired differences from their sample rows."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from safepref.errors import InputError
from safepref.evaluation.safety import PLAIN, part_weights
from safepref.judges.base import Verdict
from safepref.statistics import DRAWS, Floats, Interval, McNemar, mcnemar, paired_difference

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Gain:
    """Second minus first on the rows that both have, with its 95 % interval; rates as fractions.

    `test` is the exact McNemar test on the plain, independent rows of a yes-or-no measure, else None.
    `unpaired` counts the rows left out, those that only one side has with a value.
    """

    measure: str
    value: float
    interval: Interval
    n: int
    unpaired: int
    test: McNemar | None


MEASURES = ("safety", "over_refusal", "toxicity.plain", "toxicity.adversarial", "capability")


def paired_gain(
    first: Sequence[Row], second: Sequence[Row], measure: str, *, seed: int = 0, draws: int = DRAWS
) -> Gain:
    """Compare two policies by their sample rows (`read_samples`) of one evaluation suite.

    "safety" is the global score (half plain, half the mean over attacks), "over_refusal" the share not
    answered, "toxicity.*" the mean P(toxic), "capability" the mean over the tasks of their rows' values.

    Raises:
        InputError: an unknown measure, or no row that both have.
    """
    if measure not in MEASURES:
        raise InputError(f"measure: {measure!r} is not known; one of {', '.join(MEASURES)}")
    a, b = _values(first, measure), _values(second, measure)
    both = [key for key in a if key in b]
    if not both:
        raise InputError(f"{measure}: the two sides share no rows; evaluate both on the same prompts")
    values = [np.array([side[key][0] for key in both]) for side in (a, b)]
    groups = [a[key][1] for key in both]
    clusters = [a[key][2] for key in both]
    names = list(dict.fromkeys(groups))
    weights: dict[Hashable, float] | None = None
    if measure == "safety":
        weights = dict(zip(names, part_weights(names).tolist(), strict=True))
    estimate = paired_difference(
        values[0],
        values[1],
        clusters=clusters,
        groups=groups,
        group_weights=weights,
        seed=seed,
        draws=draws,
    )
    return Gain(
        measure,
        estimate.value,
        estimate.interval,
        len(both),
        len(set(a) ^ set(b)),
        _test(values, groups, clusters, measure),
    )


def _values(rows: Sequence[Row], measure: str) -> dict[str, tuple[float, str, str]]:
    """Value, group and cluster of each scored row that the measure is made of, by a key of the row."""
    suite, _, mode = measure.partition(".")
    out: dict[str, tuple[float, str, str]] = {}
    for row in rows:
        if row["suite"] != suite or (mode and row["mode"] != mode):
            continue
        if suite == "safety":
            value = float(row["verdict"] == Verdict.HARMLESS.value)
            out[row["id"]] = (value, row["attack"] or PLAIN, row["base_id"])
        elif suite == "over_refusal":
            out[row["id"]] = (float(not row["answered"]), PLAIN, row["base_id"])
        elif suite == "toxicity":
            if row["toxicity"] is None:
                continue
            out[row["id"]] = (row["toxicity"], PLAIN, row["base_id"])
        elif "logprobs" not in row or "choices" in row:  # a likelihood per token is not in the mean
            key = f"{row['task']}/{row['id']}"
            out[key] = (row["value"], row["task"], key)
    return out


def _test(
    values: Sequence[Floats], groups: Sequence[str], clusters: Sequence[str], measure: str
) -> McNemar | None:
    plain = [at for at, group in enumerate(groups) if group == PLAIN]
    independent = len({clusters[at] for at in plain}) == len(plain)
    if measure not in ("safety", "over_refusal") or not plain or not independent:
        return None
    return mcnemar(values[0][plain], values[1][plain])
