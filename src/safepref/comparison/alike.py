"""Whether two sides may be compared: the same judge, the same prompts behind equal ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safepref.comparison.sides import JUDGED, Side
from safepref.errors import InputError
from safepref.judges.version import VERSION, judge_version, version_differs
from safepref.recipe import parse_yaml, read_text
from safepref.store import read_json

Row = dict[str, Any]

PROMPT = ("mode", "base_id", "attack", "prompt", "question", "choices", "target", "messages")
"""Fields of a sample that say what was asked."""

SETTINGS = ("model.system", "evaluation.answer_tokens", "evaluation.continuation_tokens")
"""Recipe keys that change answers beside the model."""


def check_prompts(a: Sequence[Row], b: Sequence[Row], names: tuple[str, str]) -> None:
    """Equal ids must be equal prompts.

    Raises:
        InputError: the first prompt whose text, choices or attack differ.
    """
    asked = {_key(row): row for row in a}
    for row in b:
        other = asked.get(_key(row))
        if other is None:
            continue
        for field in PROMPT:
            first, second = _asked(other, field), _asked(row, field)
            if field in other and field in row and first != second:
                raise InputError(
                    f"{row['suite']} prompt {row['id']!r}: {field} is {_short(first)} in {names[0]} and "
                    f"{_short(second)} in {names[1]}; evaluate both on the same prompts"
                )


def _asked(row: Row, field: str) -> Any:
    """A field of the prompt; of a conversation what the user's side of it says.

    A system prompt belongs to what is compared, not to what was asked.
    """
    value = row.get(field)
    if field == "messages" and isinstance(value, list):
        return [turn for turn in value if not (isinstance(turn, dict) and turn.get("role") == "system")]
    return value


def _key(row: Row) -> tuple[str, str, str]:
    return row["suite"], str(row.get("task", "")), str(row["id"])


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_judges(
    a: tuple[Side, Sequence[Row]], b: tuple[Side, Sequence[Row]]
) -> tuple[str | None, list[str]]:
    """The judge of both sides' verdicts, and what is not known about it, a sentence each.

    Raises:
        InputError: judges differ, or a judge's version does.
    """
    used = [sorted({str(row.get("judge")) for row in rows if row["suite"] in JUDGED}) for _, rows in (a, b)]
    if not used[0] or not used[1]:
        return None, []
    if used[0] != used[1] or len(used[0]) > 1:
        raise InputError(
            f"{a[0].name} was judged by {', '.join(used[0])} and {b[0].name} by {', '.join(used[1])}; "
            "evaluate both with one judge"
        )
    judge = used[0][0]
    cards = [_card(side, judge) for side, _ in (a, b)]
    unknown = [side.name for (side, _), card in zip((a, b), cards, strict=True) if not card]
    if unknown:
        return judge, _by_rows(judge, a, b)
    field = version_differs(*cards)
    if field in VERSION:
        first, second = (card.get(field) for card in cards)
        raise InputError(
            f"judge {judge}: {field} is {_short(first)} in {a[0].name} and {_short(second)} in "
            f"{b[0].name}; evaluate both with the same version"
        )
    if field:
        what = "vote is of another version" if field == "vote" else "members are of other versions"
        raise InputError(
            f"judge {judge}: its {what} in {a[0].name} than in {b[0].name}; evaluate both with the same"
        )
    return judge, []


def _by_rows(judge: str, a: tuple[Side, Sequence[Row]], b: tuple[Side, Sequence[Row]]) -> list[str]:
    """The judge's version by the samples, where a card is not at hand; what is not known, a sentence each.

    Raises:
        InputError: the versions differ.
    """
    found = [_versions(side, rows, judge) for side, rows in (a, b)]
    unknown = [side.name for (side, _), mine in zip((a, b), found, strict=True) if not mine]
    if unknown:
        return [f"{' and '.join(unknown)}: the version of judge {judge} is not recorded, taken as equal"]
    if found[0] != found[1]:
        raise InputError(
            f"judge {judge}: version is {', '.join(found[0])} in {a[0].name} and {', '.join(found[1])} in "
            f"{b[0].name}; evaluate both with the same version"
        )
    return []


def _versions(side: Side, rows: Sequence[Row], judge: str) -> list[str]:
    """The versions that gave a side's verdicts; empty where any of them is not known."""
    card = _card(side, judge)
    if card:
        return [judge_version(card)]
    given = [(row.get("verdicts") or {}).get(judge) or {} for row in rows if row["suite"] in JUDGED]
    return (
        sorted({str(verdict["version"]) for verdict in given}) if all("version" in v for v in given) else []
    )


def _card(side: Side, judge: str) -> Row:
    """The judge's card in the run's folder; empty where none is."""
    if side.run is None or not (side.run / "judges.json").exists():
        return {}
    file = side.run / "judges.json"
    cards = read_json(file)
    if not isinstance(cards, dict):
        raise InputError(f"{file}: not the judges of a run; take it away, and versions go by the samples")
    found = [card for card in cards.values() if isinstance(card, dict) and card.get("judge") == judge]
    if found and not _are_cards(found[0].get("members") or []):
        raise InputError(f"{file}: the members of {judge} are no judges; evaluate again")
    return found[0] if found else {}


def _are_cards(members: Any) -> bool:
    """Whether an ensemble's members are judges' cards, down to the last."""
    return isinstance(members, list) and all(
        isinstance(card, dict) and _are_cards(card.get("members") or []) for card in members
    )


def setting_notes(a: Side, b: Side) -> list[str]:
    """Settings that differ between two runs and change answers beside the model, a sentence each."""
    if a.run is None or b.run is None or a.run == b.run:
        return []
    recipes = [_recipe(run / "recipe.yaml") for run in (a.run, b.run)]
    notes = []
    for key in SETTINGS:
        section, _, name = key.partition(".")
        first, second = (recipe.get(section, {}).get(name) for recipe in recipes)
        if first != second:
            notes.append(f"{key} is {first!r} in A and {second!r} in B")
    return notes


def _recipe(file: Path) -> Row:
    """A run's recipe by sections; none of them where the run kept no recipe."""
    if not file.exists():
        return {}
    values = parse_yaml(read_text(file, "recipe"), f"recipe {file}")
    return {name: section for name, section in values.items() if isinstance(section, dict)}
