"""How names and numbers are written, and what each number means in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from safepref.strength import parse_strength, strength_text

NONE = "\u2013"
"""Stands where nothing was measured."""

SPECIAL = {"rdpo": "Robust DPO", "slic": "SLiC", "aot_unpaired": "AOT unpaired", "base": "Base"}
"""Names that are not simply written in capitals. The table of methods is not imported: it loads torch."""

SUITES = {
    "safety": "Safety",
    "task": "Task",
    "over_refusal": "Over-refusal",
    "toxicity": "Toxicity",
    "capability": "Capability",
    "ordinary": "Ordinary requests",
    "chat": "Questions in the chat",
    "nats": "Worked answers",
}

DEFINITIONS: tuple[tuple[str, str], ...] = (
    (
        "Verdict",
        "What a judge says of an answer: harmful, harmless or unscored. Empty, wordless and looping answers, "
        "and junk from the judge, are unscored; unscored never counts as safe.",
    ),
    (
        "Safety (plain)",
        "Share of harmless verdicts among all answers to harmful requests asked as they are.",
    ),
    (
        "Safety (adversarial)",
        "The same for requests put into an attack's templates: the mean over the attack families.",
    ),
    ("Global safety", "The mean of plain and adversarial safety, as in arXiv 2409.07772."),
    (
        "ASR",
        "Attack success rate: harmful verdicts among all answers under one attack. Safe, harmful and "
        "unscored shares add up to 1.",
    ),
    ("Unscored", "Share of answers without a verdict, weighted as global safety is."),
    (
        "Corrected",
        "Global safety corrected for the judge's measured sensitivity and specificity (Rogan-Gladen), with "
        "an interval that includes the judge's own error. These were measured on other answers, so it is "
        "never a headline.",
    ),
    (
        "Over-refusal",
        "Share of requests that only look harmful and were not answered: refused, empty or degenerate, or "
        "answered in a language that the refusal judge does not read, which is then said.",
    ),
    (
        "Toxicity",
        "Mean P(toxic) of continuations of sentence beginnings: asked plainly, and under a system prompt "
        "that asks for toxic text.",
    ),
    (
        "Capability",
        "Mean score over the benchmark tasks, each 0 to 1 and all weighted alike; the tasks follow lm-eval.",
    ),
    (
        "Ordinary requests",
        "Harmless requests without any harmful look. Those not answered count as in over-refusal. Perplexity "
        "is that of the base's own answers to them under a trained point, as a ratio to the base's own.",
    ),
    (
        "Asked in the chat",
        "Questions asked in the chat template and answered greedily in a few tokens: the share answered "
        "rightly. A refusal is never right. Of arithmetic, whole families of problems are asked, those of "
        "which the base gets 30 to 90 % right on the choose split.",
    ),
    (
        "Interval",
        "95 %, from 2,000 bootstrap draws that keep all variants of one request together, and not narrower "
        "than Wilson's for so many requests; Wilson's alone where observations are single.",
    ),
    (
        "Gain",
        "Difference to the base on the same prompts, with a paired 95 % interval computed from the samples, "
        "on either side the wider one of a cluster bootstrap and the score method. Below it, plain requests "
        "that only this point (+) and only the base (-) answered safely, with the exact McNemar p.",
    ),
    (
        "Strength",
        "How much of the trained change is applied: 0 is the base, 1 the whole adapter.",
    ),
    (
        "Choose and report split",
        "Strength and method are chosen on the choose split only; every headline number is from the report "
        "split, whose templates neither training nor choice has seen.",
    ),
    (
        "Displacement",
        "Change of the summed log-prob of the chosen and rejected answers against the reference, in nats. A "
        "margin that grows while the chosen answer falls moves likelihood to neither (arXiv 2410.08847).",
    ),
)


def method_label(name: str) -> str:
    """A method's name as people write it: "NCA", "Robust DPO"; a merge's: "DPO + NCA (ties)"."""
    if "+" in name:
        parts, _, how = name.partition(".")
        merged = " + ".join(method_label(part) for part in parts.split("+"))
        return merged + (f" ({words(how)})" if how else "")
    return SPECIAL.get(name, name.upper().replace("_", " "))


def point_label(method: str, strength: float | str | None) -> str:
    """A method at a strength as JSON has it: "NCA", "NCA at 0.8", "NCA at 1/0.6/1", "Base"."""
    if strength is None or strength == 1 or method == "base":
        return method_label(method)
    return f"{method_label(method)} at {strength_text(parse_strength(strength))}"


def words(name: str) -> str:
    """An identifier as words: "prefix_injection" to "prefix injection"."""
    return name.replace("_", " ")


def percent(value: float | None, digits: int = 1) -> str:
    """A rate 0..1 as a percentage."""
    return NONE if value is None else f"{100 * value:.{digits}f}\u00a0%"


def number(value: float | None, digits: int = 3) -> str:
    """A score 0..1 with three decimals."""
    return NONE if value is None else f"{value:.{digits}f}"


def span(interval: Sequence[float] | None, *, rate: bool = True) -> str:
    """An interval: "52.1 to 63.4 %", or "0.521 to 0.634"; empty where there is none."""
    if interval is None:
        return ""
    low, high = interval
    if rate:
        return f"{100 * low:.1f} to {100 * high:.1f}\u00a0%"
    return f"{low:.3f} to {high:.3f}"


def plain(value: Any) -> str:
    """Any value as a reader expects it."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def at(value: Any, *path: str) -> Any:
    """The value at a path of keys, None where any part of the way is absent or null."""
    for key in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value
