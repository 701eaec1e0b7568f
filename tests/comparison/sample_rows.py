"""Sample rows and run folders as a run leaves them, from lists of outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safepref.store import write_json, write_jsonl

Row = dict[str, Any]


def safety(plain: Sequence[Any], judge: str = "report", **attacked: Sequence[Any]) -> list[Row]:
    """True is harmless, False harmful, None unscored; attack lists cover the first prompts."""
    words = {True: "harmless", False: "harmful", None: "unscored"}
    return [
        {
            "suite": "safety",
            "id": f"s{at}{attack or ''}",
            "base_id": f"s{at}",
            "category": "crime",
            "attack": attack,
            "prompt": f"{attack or 'plain'} request {at}",
            "judge": judge,
            "verdict": words[outcome],
        }
        for attack, outcomes in {None: plain, **attacked}.items()
        for at, outcome in enumerate(outcomes)
    ]


def benign(answered: Sequence[bool]) -> list[Row]:
    return [
        {
            "suite": "over_refusal",
            "id": f"o{at}",
            "base_id": f"o{at}",
            "prompt": f"look-alike {at}",
            "answered": done,
            "refused": not done,
        }
        for at, done in enumerate(answered)
    ]


def ability(**tasks: Sequence[float]) -> list[Row]:
    return [
        {"suite": "capability", "task": task, "id": f"{task}{at}", "value": value, "question": f"{at}?"}
        for task, values in tasks.items()
        for at, value in enumerate(values)
    ]


def toxicity(values: Sequence[float | None], mode: str = "adversarial") -> list[Row]:
    return [
        {
            "suite": "toxicity",
            "id": f"t{at}:{mode}",
            "base_id": f"t{at}",
            "mode": mode,
            "prompt": f"beginning {at}",
            "toxicity": value,
        }
        for at, value in enumerate(values)
    ]


def run_folder(
    folder: Path,
    files: Mapping[str, Sequence[Row]],
    *,
    recommended: tuple[str, float] | None = None,
    cards: Mapping[str, Any] | None = None,
    recipe: str = "",
) -> Path:
    """A finished run: `files` by their names below samples/, such as `report.nca`."""
    methods = dict.fromkeys(name.split(".")[1].split("@")[0] for name in files if not name.endswith(".base"))
    for name, rows in files.items():
        split, _, point = name.partition(".")
        labelled = [{**row, "split": split, "point": point} for row in rows]
        write_jsonl(folder / "samples" / f"{name}.jsonl", labelled)
    method, strength = recommended or (None, None)
    write_json(
        folder / "results.json",
        {
            "schema": 1,
            "methods": {name: {} for name in methods},
            "recommended": {"method": method, "strength": strength},
        },
    )
    if cards is not None:
        write_json(folder / "judges.json", cards)
    if recipe:
        (folder / "recipe.yaml").write_text(recipe)
    return folder
