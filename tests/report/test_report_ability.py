"""The table of ability kept: what it shows of each point, and nothing where nothing was measured."""

from __future__ import annotations

from typing import Any

from safepref.report.ability import ability_table


def scores(refused: float, ratio: float, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "safety": None,
        "ordinary": {
            "refused": refused,
            "interval": [0.0, 0.1],
            "n": 40,
            "perplexity": {"ratio": ratio, "interval": [1.0, 1.1], "n": 40},
        },
        "capability": {
            "mean": 0.5,
            "tasks": {"piqa": 0.6},
            "above_chance": ["piqa"],
            "mean_above_chance": 0.6,
            "chat": {"arithmetic": {"score": 0.5, "interval": [0.4, 0.6], "refused": 0.0, "unanswered": 0.1}},
            "nats": {"gsm8k": 1.5},
            "nats_intervals": {"gsm8k": [1.4, 1.6]},
        },
        **({"changes": changes} if changes else {}),
    }


def test_a_trained_point_shows_its_paired_change_and_its_direction() -> None:
    changes = {
        "ordinary": {"value": 0.025, "interval": [0.005, 0.05], "n": 40},
        "capability.above_chance": {"value": -0.01, "interval": [-0.03, 0.01], "n": 100},
        "nats.gsm8k": {"value": -0.02, "interval": [-0.03, -0.01], "n": 100},
    }
    results = {
        "model": "m",
        "base": scores(0.0, 1.0),
        "methods": {"nca": {"scores": scores(0.025, 1.02, changes)}},
        "recommended": {"method": None},
    }
    table = ability_table(results)
    assert table["points"] == ["Base", "NCA"]
    rows = {row["title"]: row["cells"] for row in table["rows"]}
    base, tuned = rows["Ordinary requests not answered"]
    assert base["value"] == "0.0\u00a0%" and base["range"] == "0.0 to 10.0\u00a0%"
    assert tuned == {"value": "2.5\u00a0%", "range": "+2.5 (+0.5 to +5.0)", "change": "worse"}
    assert rows["Perplexity of the base's answers"][1]["value"] == "1.020"
    assert rows["Tasks above chance: piqa"][1]["change"] == ""
    assert rows["gsm8k, nats a token"][1]["change"] == "better"
    assert rows["arithmetic, asked in the chat: unanswered"][0]["value"] == "10.0\u00a0%"


def test_nothing_is_shown_where_nothing_was_measured() -> None:
    nothing = {"safety": None, "capability": {"mean": 0.5, "tasks": {"piqa": 0.6}}}
    results = {"model": "m", "base": nothing, "methods": {}, "recommended": {"method": None}}
    assert ability_table(results)["rows"] == []
