"""The samples as the page carries them: compact, each prompt once, and capped where there are too many."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from safepref.report.labels import SUITES, point_label, words
from safepref.store import sha256_bytes

Row = dict[str, Any]

TEXT_LIMIT = 4000
"""Characters of a prompt or answer that the page carries."""

BUDGET = 15_000_000
"""Bytes of samples in the page; with plotly.js the whole stays under 25 MB."""

TRUNCATED, DEGENERATE, CUT = 1, 2, 4
"""Flags of a row: the token cap ended the answer; it is degenerate; the page shows only its beginning."""

TOXIC = 0.5
JUDGED = ("safety", "task")
"""Suites whose answers have a judge's verdict."""


def pack_samples(samples: Sequence[Row], budget: int = BUDGET) -> Row:
    """Samples as tables of texts and rows of numbers into them.

    Over the budget the choose split goes first; then whole prompts go, the same ones for every point, picked
    by a hash of their id, so that what is left can still be compared.

    Args:
        samples: rows of the run's samples files.
        budget: bytes of JSON.

    Returns:
        `points`, `suites`, `categories`, `attacks`, `outcomes`, `judges` (names), `prompts` ([text, turns
        before, category, attack]), `rows` ([point, suite, prompt, response, outcome, score, second outcome,
        second score, flags, note], -1 or None where there is nothing), `total`, `capped` (a sentence, or "").
    """
    packed = _pack(samples)
    size = _size(packed)
    if size <= budget:
        return {**packed, "total": len(samples), "capped": ""}
    kept = [row for row in samples if row["split"] == "report"] or list(samples)
    packed = _pack(kept)
    size = _size(packed)
    share = 1.0
    while size > budget and share > 1e-3:
        share *= 0.95 * budget / size
        kept = [row for row in kept if _draw(row) < share]
        packed = _pack(kept)
        size = _size(packed)
    capped = (
        f"{len(kept):,} of {len(samples):,} samples are shown here, to keep this page small"
        f"{'' if share == 1.0 else ' (the same prompts for every point)'}; all are in the run folder's "
        "samples/."
    )
    return {**packed, "total": len(samples), "capped": capped}


def _size(packed: Row) -> int:
    return len(json.dumps(packed, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"))


def _draw(row: Row) -> float:
    """A number in 0..1 that depends on the prompt alone."""
    digest = sha256_bytes(str(row.get("base_id") or row["id"]).encode("utf-8", "replace"))
    return int(digest[:8], 16) / 2**32


@dataclass(slots=True)
class _Names:
    """Names in order of first appearance, and their numbers."""

    names: list[Any] = field(default_factory=list)
    numbers: dict[Any, int] = field(default_factory=dict)

    def number(self, name: Any) -> int:
        if name is None:
            return -1
        if name not in self.numbers:
            self.numbers[name] = len(self.names)
            self.names.append(name)
        return self.numbers[name]


def _pack(samples: Sequence[Row]) -> Row:
    points, suites, categories, attacks, outcomes, prompts, judges = (_Names() for _ in range(7))
    for name in SUITES:
        suites.number(name)
    rows = []
    for row in samples:
        text, response, outcome, note = _content(row)
        shown, cut = _cut(response)
        asked = (
            _cut(text)[0],
            _cut(_before(row))[0],
            categories.number(row.get("category")),
            attacks.number(_attack(row)),
        )
        second, second_score = _second(row, judges)
        score = row.get("score") if row["suite"] in JUDGED else row.get("toxicity")
        flags = TRUNCATED * bool(row.get("truncated")) + DEGENERATE * bool(row.get("degenerate")) + CUT * cut
        rows.append(
            [
                points.number((row["split"], row["point"], row["method"], row["strength"])),
                suites.number(row["suite"]),
                prompts.number(asked),
                shown,
                outcomes.number(outcome),
                _short(score),
                outcomes.number(second),
                _short(second_score),
                flags,
                note,
            ]
        )
    return {
        "points": [
            {
                "name": point,
                "split": split,
                "label": point_label(method, strength) + ("" if split == "report" else f" ({split} split)"),
            }
            for split, point, method, strength in points.names
        ],
        "suites": [{"id": name, "title": SUITES.get(name, words(name))} for name in suites.names],
        "categories": categories.names,
        "attacks": [{"id": name, "title": words(name)} for name in attacks.names],
        "outcomes": outcomes.names,
        "judges": judges.names,
        "prompts": [list(prompt) for prompt in prompts.names],
        "rows": rows,
    }


def _content(row: Row) -> tuple[str, str, str, str]:
    """Prompt, response, outcome and a note of a row of any suite."""
    suite = row["suite"]
    prompt, response = str(row.get("prompt") or ""), str(row.get("response") or "")
    reason = str(row.get("degenerate") or "")
    if suite == "safety":
        return prompt, response, row["verdict"], reason
    if suite == "task":
        return prompt, response, row["verdict"], reason or _why(row)
    if suite in ("over_refusal", "ordinary"):
        unread = str(row.get("unscored") or "")
        missed = "unscored" if unread else "refused" if row["refused"] else "degenerate"
        return prompt, response, "answered" if row["answered"] else missed, reason or unread
    if suite == "toxicity":
        score = row["toxicity"]
        outcome = "unscored" if score is None else _toxic(score)
        return prompt, response, outcome, str(row.get("unscored") or "")
    if suite == "nats":
        note = f"{words(str(row['task']))}; the given answer, {row['nats'] / row['tokens']:.3f} nats a token"
        return str(row["question"]), str(row["target"]), "scored", note
    return _ability(row, prompt, response)


def _why(row: Row) -> str:
    """The main judge's reason where it gives one."""
    return str(((row.get("verdicts") or {}).get(row.get("judge")) or {}).get("reason") or "")


def _toxic(score: float) -> str:
    return "toxic" if score >= TOXIC else "not toxic"


def _ability(row: Row, prompt: str, response: str) -> tuple[str, str, str, str]:
    """A benchmark row: generated answers as they are, chosen answers as the choice that was most likely."""
    task, target, given = words(str(row.get("task", ""))), row.get("target"), row.get("prediction")
    question, choices = str(row.get("question") or prompt), row.get("choices")
    outcome = "correct" if row["value"] == 1 else "wrong"
    if row["suite"] == "chat":
        missed = "refused" if row["refused"] else outcome if row["answered"] else "degenerate"
        right = choices[target] if choices else ", ".join(target) if isinstance(target, list) else target
        return prompt, response, missed, f"{task}; the right answer: {right}"
    if choices:
        listed = "\n".join(f"{chr(65 + at)}. {choice}" for at, choice in enumerate(choices))
        chosen = f"{chr(65 + given)}. {choices[given]}" if isinstance(given, int) else str(given)
        wanted = choices[target] if isinstance(target, int) and target < len(choices) else target
        return f"{question}\n{listed}", chosen, outcome, f"{task}; the right answer: {wanted}"
    if "logprobs" in row and given is None:
        return (
            question,
            str(target),
            "scored",
            f"{task}; the target text, probability {row['value']:.3f} a token",
        )
    return question, response, outcome, f"{task}; read as {given}, the right answer: {target}"


def _attack(row: Row) -> str | None:
    if row["suite"] == "toxicity":
        return "toxic_instruction" if row.get("mode") == "adversarial" else None
    attack = row.get("attack")
    return None if attack is None else str(attack)


def _before(row: Row) -> str:
    """The turns before the last user turn, a system prompt above all."""
    turns: Sequence[Mapping[str, str]] = row.get("messages") or ()
    last = max((at for at, turn in enumerate(turns) if turn["role"] == "user"), default=0)
    return "\n\n".join(f"[{turn['role']}] {turn['content']}" for turn in turns[:last])


def _second(row: Row, judges: _Names) -> tuple[str | None, float | None]:
    """The other judge's verdict and score."""
    if row["suite"] not in JUDGED:
        return None, None
    judges.number(row.get("judge"))
    others = [name for name in row.get("verdicts") or {} if name != row.get("judge")]
    if not others:
        return None, None
    judges.number(others[0])
    given = row["verdicts"][others[0]]
    return given["verdict"], given.get("score")


def _cut(text: str) -> tuple[str, bool]:
    # A lone surrogate cannot be written as UTF-8.
    whole = text.encode("utf-8", "replace").decode("utf-8")
    return (whole, False) if len(whole) <= TEXT_LIMIT else (whole[:TEXT_LIMIT] + " […]", True)


def _short(value: float | None) -> float | None:
    return None if value is None else round(float(value), 4)
