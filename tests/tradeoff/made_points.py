"""Points with made scores."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from safepref.strength import Strength
from safepref.tradeoff.front import Point


def scores(
    safety: float, refusal: float, ability: float, error: float = 0.0, sums: float | None = None
) -> dict[str, Any]:
    """SCORES as far as a choice reads them; `error` is the standard error of capability."""
    half = 1.959964 * error
    return {
        "safety": {"global": safety, "interval": [safety - 0.02, safety + 0.02]},
        "over_refusal": {"rate": refusal},
        "capability": {
            "mean": ability,
            "interval": [ability - half, ability + half],
            "tasks": {} if sums is None else {"arithmetic": sums},
        },
    }


def point(name: str, *values: float, strength: Strength = 1.0, **more: Any) -> Point:
    return Point(name, strength, scores(*values, **more))


rates = st.floats(0, 1)
lists = st.lists(
    st.builds(
        lambda name, *values, **more: point(name, *values, **more),
        st.sampled_from(["nca", "dpo"]),
        rates,
        rates,
        rates,
        error=st.floats(0, 0.3),
        sums=rates,
    ),
    min_size=1,
    max_size=8,
)
