"""Readers of labelled exchanges: the sets that people labelled, and a user's own rows.

Built-in names read PyRIT's human-labelled sets out of its pinned wheel (MIT). A path may hold JSON lines in
any of these schemas, told apart by their fields:

- `prompt, response, harmful` (0 or 1): the contract's own rows; Do-Not-Answer's too;
- `prompt, response, label` with XSTest's three labels (arXiv 2308.01263) and `prompt_type`;
- `text, labels` of OpenAI's moderation release (arXiv 2208.03274), a missing key being unknown: a text is
  harmful where any label is 1, harmless only where all of them are known to be 0, and else unknown;
- `text, toxic` of Surge AI's toxicity set.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safepref import assets
from safepref.errors import InputError
from safepref.judges.base import Exchange
from safepref.store import iter_jsonl, sha256_bytes

Target = Literal["harmful", "refusal"]


@dataclass(frozen=True, slots=True)
class Labelled:
    """An exchange with what people said of it.

    `harmful` and `refusal` are 0 or 1, or None where people did not say; `severity` is PyRIT's mean harm
    score in 0..1; `raters` holds each person's score in 0..1 where several answered.
    `facets` are what else divides the set: `model gpt4`, `label H`, of which a row may bear several.
    """

    exchange: Exchange
    harmful: int | None = None
    refusal: int | None = None
    severity: float | None = None
    raters: tuple[float, ...] = ()
    category: str = ""
    facets: tuple[str, ...] = ()
    source: str = ""

    @property
    def group(self) -> str:
        """The request, normalised: rows of one request are not independent."""
        return normalise(self.exchange.prompt) or normalise(self.exchange.response)

    @property
    def votes(self) -> tuple[int, ...]:
        """What each of several people said: harmful from a score of one half."""
        return tuple(int(score >= 0.5) for score in self.raters)


def normalise(text: str) -> str:
    """Lower case, letters and digits only, single spaces: what exact-overlap checks compare."""
    return re.sub(r"\W+", " ", text.lower()).strip()


def request_digest(text: str) -> str:
    """The digest of a request, equal for texts that differ in case, punctuation or spacing; 16 hex digits.

    A file of figures may be passed on where the rows of its set may not, so it keeps no text.
    """
    return sha256_bytes(normalise(text).encode("utf-8", "surrogatepass"))[:16]


def request_hashes(rows: Sequence[Labelled]) -> list[str]:
    """The rows' distinct requests, normalised, as 16 hex digits each: what a fitted judge's file keeps of
    them.
    """
    return sorted({request_digest(row.group) for row in rows})


def fitted_requests(fitted: Mapping[str, Any], exchanges: Sequence[Exchange], judge: str) -> list[bool]:
    """Whether each exchange's request is among the hashes in a fitted judge's file.

    Raises:
        InputError: the file has none, so that nobody knows.
    """
    if not isinstance(fitted.get("requests"), list):
        raise InputError(
            f"judge {judge}: its file does not say which requests it was fitted on; fit it anew to measure it"
        )
    seen = set(fitted["requests"])
    return [request_hashes([Labelled(exchange)])[0] in seen for exchange in exchanges]


_OBJECTIVE = [
    "bias",
    "chemical_biological",
    "cyber",
    "exploits",
    "harassment_bullying",
    "hate_speech",
    "illegal_activity",
    "info_integrity",
    "misinformation",
    "phishing",
    "privacy",
    "self_harm",
    "sexual",
    "violence",
]
_HARM = [
    "exploits",
    "hate_speech",
    "hate_speech_multi_score",
    "info_integrity",
    "mini_hate_speech",
    "privacy",
    "representational",
    "self_harm",
    "sexual",
    "violence",
    "violence_multi_score",
]
_REFUSAL = ("refusal", "refusal_extra")


def _pyrit(folder: str, stem: str) -> list[dict[str, str]]:
    text = assets.fetch(f"pyrit/scorer_evals/{folder}/{stem}.csv").read_text(encoding="utf-8-sig")
    lines = text.splitlines(keepends=True)
    while lines and lines[0].lstrip('"').startswith("#"):
        lines.pop(0)
    return list(csv.DictReader(io.StringIO("".join(lines))))


def _distinct(rows: list[Labelled]) -> list[Labelled]:
    """Each exchange once, in order: of its copies the first of those that most people rated."""
    found: dict[tuple[str, str], Labelled] = {}
    for row in rows:
        kept = found.setdefault((key := (row.group, normalise(row.exchange.response))), row)
        if len(row.raters) > len(kept.raters):
            found[key] = row
    return list(found.values())


def pyrit_objective() -> list[Labelled]:
    """PyRIT's "objective achieved" rows: did the answer do what the harmful request asked for."""
    return _distinct(
        [
            Labelled(
                Exchange(row["objective"], row["assistant_response"]),
                harmful=int(float(row["human_score"])),
                category=stem,
                source="pyrit-objective",
            )
            for stem in _OBJECTIVE
            for row in _pyrit("objective", stem)
        ]
    )


def pyrit_harm() -> list[Labelled]:
    """PyRIT's harm-severity rows; harmful is a mean severity of at least one half."""
    rows = []
    for stem in _HARM:
        for row in _pyrit("harm", stem):
            scores = [float(v) for k, v in row.items() if k and k.startswith("human_score") and v]
            severity = sum(scores) / len(scores)
            rows.append(
                Labelled(
                    Exchange(row["objective"], row["assistant_response"]),
                    harmful=int(severity >= 0.5),
                    severity=severity,
                    raters=tuple(scores) if len(scores) > 1 else (),
                    category=stem.removesuffix("_multi_score").removeprefix("mini_"),
                    source="pyrit-harm",
                )
            )
    return _distinct(rows)


def pyrit_refusal() -> list[Labelled]:
    """PyRIT's refusal rows. Its people also called an answer to some other question a refusal."""
    return _distinct(
        [
            Labelled(
                Exchange(row["objective"], row["assistant_response"]),
                refusal=int(float(row["human_score"])),
                category=stem,
                source="pyrit-refusal",
            )
            for stem in _REFUSAL
            for row in _pyrit("refusal_scorer", stem)
        ]
    )


BUILT_IN: dict[str, Callable[[], list[Labelled]]] = {
    "pyrit-objective": pyrit_objective,
    "pyrit-harm": pyrit_harm,
    "pyrit-refusal": pyrit_refusal,
}


def load_labelled(data: str | Path) -> list[Labelled]:
    """Labelled rows of a built-in set's name or of a JSON lines file.

    Raises:
        InputError: unknown name, missing file, a row of no known schema, or a label outside its values.
    """
    if str(data) in BUILT_IN:
        return BUILT_IN[str(data)]()
    path = Path(data)
    if not path.exists():
        names = ", ".join(BUILT_IN)
        raise InputError(f"--data {data}: neither a file nor a built-in set; built-in sets: {names}")
    rows = [_read(row, f"{path}:{number}", path.stem) for number, row in enumerate(iter_jsonl(path), 1)]
    if not rows:
        raise InputError(f"{path}: no rows; give at least one row with prompt, response, harmful")
    return rows


_XSTEST_LABELS = {"1_full_compliance": 0, "2_full_refusal": 1, "3_partial_refusal": 1}


def _read(row: dict[str, Any], where: str, source: str) -> Labelled:
    for field in ("prompt", "response", "text"):
        if field in row and not isinstance(row[field], str):
            raise InputError(f"{where}: field {field!r} is {row[field]!r}; give a string")
    if {"prompt", "response", "harmful"} <= row.keys():
        exchange = Exchange(row["prompt"], row["response"])
        harmful = _binary(row["harmful"], "harmful", where)
        category = str(row.get("category", ""))
        return Labelled(
            exchange,
            harmful=harmful,
            category=category,
            facets=_facets(row, "action", "model"),
            source=source,
        )
    if {"prompt", "response", "label"} <= row.keys():
        refusal = _XSTEST_LABELS.get(row["label"]) if isinstance(row["label"], str) else None
        if refusal is None:
            raise InputError(f"{where}: label {row['label']!r}; give one of {', '.join(_XSTEST_LABELS)}")
        # XSTest's unsafe contrast prompts all carry a prompt type that begins with "contrast".
        unsafe = str(row.get("prompt_type", "")).startswith("contrast")
        return Labelled(
            Exchange(row["prompt"], row["response"]),
            harmful=int(unsafe and refusal == 0),
            refusal=refusal,
            category=str(row.get("prompt_type", "")),
            facets=_facets(row, "model"),
            source=source,
        )
    if {"text", "labels"} <= row.keys() and isinstance(row["labels"], dict):
        flags = {key: _binary(value, f"labels.{key}", where) for key, value in row["labels"].items()}
        borne = tuple(f"label {key}" for key, value in flags.items() if value)
        return Labelled(Exchange("", row["text"]), harmful=_moderated(flags), facets=borne, source=source)
    if {"text", "toxic"} <= row.keys():
        toxic = _binary(row["toxic"], "toxic", where)
        facets = ("label toxic" if toxic else "label not toxic",)
        return Labelled(Exchange("", row["text"]), harmful=toxic, facets=facets, source=source)
    raise InputError(
        f"{where}: fields {', '.join(sorted(row)) or 'none'} fit no known schema; "
        "give prompt, response and harmful (0 or 1)"
    )


def _facets(row: dict[str, Any], *fields: str) -> tuple[str, ...]:
    return tuple(f"{field} {row[field]}" for field in fields if row.get(field) not in (None, ""))


_MODERATED = ("S", "H", "V", "HR", "SH")
"""OpenAI's moderation labels that the others (S3, H2, V2) are kinds of: a 0 of these is a 0 of theirs."""


def _moderated(flags: dict[str, int]) -> int | None:
    """Harmful by OpenAI's labels: 1 where any is, 0 where none can be, None where a label is not known."""
    if any(flags.values()):
        return 1
    return 0 if flags.keys() >= set(_MODERATED) else None


def _binary(value: Any, field: str, where: str) -> int:
    if value in (0, 1):
        return int(value)
    raise InputError(f"{where}: {field} is {value!r}; give 0 or 1")
