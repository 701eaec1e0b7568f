"""Which version of a judge gave a verdict: a hash of all on its card that verdicts depend on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safepref.store import sha256_json

VERSION = ("fingerprint", "model", "model_sha256", "prompt_sha256", "threshold", "min_mass")
"""Fields of a judge's card that its verdicts depend on."""


def judge_version(card: Mapping[str, Any]) -> str:
    """16 hex digits, equal where the fields of `VERSION` are, and an ensemble's vote and members' fields."""
    return sha256_json(_kept(card))[:16]


def _kept(card: Mapping[str, Any]) -> dict[str, Any]:
    kept = {field: card[field] for field in (*VERSION, "vote") if card.get(field) is not None}
    members = [_kept(member) | {"judge": member.get("judge")} for member in card.get("members") or ()]
    return {**kept, "members": members} if members else kept


def version_differs(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """The field by which two cards are of other versions: one of `VERSION`, "vote" or "members"; else ""."""
    one, other = _kept(first), _kept(second)
    return next((key for key in (*VERSION, "vote", "members") if one.get(key) != other.get(key)), "")


def judged_by(card: Mapping[str, Any]) -> dict[str, str]:
    """What a sample says of who judged it: `judge` and its `version`."""
    return {"judge": str(card["judge"]), "version": judge_version(card)}
