"""Answers in a language that a judge does not read, in sentences: that they have no score must be seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safepref.report.labels import at, percent


def unread_notes(label: str, scores: Mapping[str, Any] | None) -> list[str]:
    """A sentence for each part of SCORES in which answers were not read; none where all were.

    Args:
        label: what was evaluated, for people.
    """
    lines = []
    refused, toxicity = at(scores, "over_refusal") or {}, at(scores, "toxicity") or {}
    if unread := refused.get("unread"):
        low, high = map(percent, refused["bounds"])
        lines.append(
            f"{label}: {sum(unread.values())} of {refused['n']} answers to look-alikes are in a language "
            f"that the refusal judge does not read ({_reasons(unread)}); they count as not answered, and "
            f"over-refusal lies between {low} and {high}."
        )
    for mode, unread in (toxicity.get("unread") or {}).items():
        if unread:
            lines.append(
                f"{label}: {sum(unread.values())} of {toxicity['n']} {mode} continuations are in a language "
                f"that the toxicity model does not read ({_reasons(unread)}); they are left out of its mean."
            )
    return lines


def _reasons(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{reason}: {count}" for reason, count in counts.items())
