"""The page's parts that are tables and cards: headline, training, judges, times."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from safepref.evaluation.main_rate import SAFETY, main_rate
from safepref.progress import duration
from safepref.report.gains import Gain
from safepref.report.labels import at, method_label, words
from safepref.report.tables import methods_table, rate_title, scores_of
from safepref.strength import parse_strength, strength_text

Row = dict[str, Any]

HEADLINE = (
    ("global", "Global safety", "high", True),
    ("over_refusal", "Over-refusal", "low", True),
    ("capability", "Capability", "high", False),
    ("toxicity_adversarial", "Adversarial toxicity", "low", False),
)


def headline(rows: Sequence[Row], gains: Mapping[str, Mapping[str, Gain]]) -> list[Row]:
    """Before and after for the numbers that stand on top: safety never without what it costs.

    Args:
        rows: from `methods_table`.
        gains: from `paired_gains`.

    Returns:
        For each number `key`, `title`, `rate`, `better`, `before`, `after` with `*_interval`, `gain` (paired,
        or None) and `change`, "better", "worse" or "same"; after is None where nothing is recommended.
    """
    before = rows[0]
    after: Row = next((row for row in rows if row["recommended"]), {})
    found = []
    for key, title, better, rate in HEADLINE:
        if key == "global":
            title = rate_title(before)
        elif key.startswith("toxicity") and before.get("measure"):
            continue
        old, new = before[key], after.get(key)
        change = "same"
        if old is not None and new is not None and old != new:
            change = "better" if (new > old) == (better == "high") else "worse"
        found.append(
            {
                "key": key,
                "title": title,
                "rate": rate,
                "better": better,
                "before": old,
                "before_interval": before.get(f"{key}_interval"),
                "after": new,
                "after_interval": after.get(f"{key}_interval"),
                "gain": gains.get(after.get("name", ""), {}).get(key),
                "change": change,
            }
        )
    return found


def recommendation(results: Mapping[str, Any], manifest: Mapping[str, Any]) -> Row:
    """The recommended point and its reason.

    Returns:
        `title` ("" where nothing is recommended), `why` as a sentence, and `floor`: the safety floor of the
        recipe where the point's interval on the choose split does not lie above it, else None.
    """
    chosen = results.get("recommended") or {}
    method, strength = chosen.get("method"), chosen.get("strength")
    why = str(chosen.get("why") or "no recommendation was recorded").rstrip(".")
    found = {"title": "", "why": f"{why[0].upper()}{why[1:]}.", "floor": None}
    if method is None or strength is None:
        return found
    text = strength_text(parse_strength(strength))
    main = main_rate(at(results, "methods", method, "choose", text))
    tried = main.interval
    floor = at(manifest, "recipe", "report", "safety_floor" if main.name == SAFETY else "task_floor")
    if tried is not None and floor is not None and tried[0] < floor:
        found["floor"] = floor
    return {**found, "title": f"{method_label(method)} at strength {text}"}


def training_rows(results: Mapping[str, Any]) -> list[Row]:
    """What each method was trained with and where it ended; warnings as sentences."""
    found = []
    for method, entry in results["methods"].items():
        summary = entry.get("training") or {}
        if "merged" in summary:
            continue
        found.append(
            {
                "method": method,
                "label": method_label(method),
                "summary": summary,
                "displacement": summary.get("displacement") or {},
                "warnings": [
                    f"{method_label(method)}, step {w['step']}: the chosen answers of {w['kind']} pairs have "
                    f"lost {-w['chosen']:.1f} nats while the margin grew to {w['chosen'] - w['rejected']:.1f}"
                    for w in summary.get("warnings") or []
                ]
                + [f"{method_label(method)} sorts its batch: only its NLL took the weights of pairs"]
                * bool(summary.get("weights_ignored")),
            }
        )
    return found


def merge_lines(results: Mapping[str, Any]) -> list[str]:
    """What each merge was made of, a sentence each."""
    return [
        f"{method_label(name)}: merged by {merge_text(entry['training'])}"
        for name, entry in results["methods"].items()
        if at(entry, "training", "merged")
    ]


def merge_text(training: Mapping[str, Any]) -> str:
    """How a merge was made, of its training summary: "ties of DPO 0.5, NCA 0.5, density 0.5"."""
    merged = training["merged"]
    parts = zip(merged["methods"], merged["weights"], strict=True)
    shares = ", ".join(f"{method_label(method)} {weight:.3g}" for method, weight in parts)
    more = "".join(f", {key} {merged[key]:g}" for key in ("density", "seed") if key in merged)
    return f"{words(merged['how'])} of {shares}{more}"


MEASURES = (
    ("sensitivity", "Sensitivity", "harmful answers that it finds"),
    ("specificity", "Specificity", "harmless answers that it lets pass"),
    ("roc_auc", "ROC AUC", "chance that a harmful answer scores above a harmless one"),
    ("pr_auc", "PR AUC", "average precision"),
    ("f1", "F1", "of the harmful verdicts"),
    ("kappa", "Kappa", "agreement with people beyond chance"),
    ("ece", "ECE", "expected calibration error of its probabilities"),
)


def judge_cards(judges: Mapping[str, Any]) -> list[Row]:
    """What each judge is, and every measurement on human labels that its card holds.

    Returns:
        For each judge `role`, `name`, `family`, `threshold`, `exact` (it has no error to measure), lists of
        texts `trained_on`, `never_trained_on` and `weaknesses`, and `measured`: rows with `data`, `n`, the
        values of `MEASURES` and `intervals`.
    """
    found = []
    for role, card in judges.items():
        if not isinstance(card, Mapping):
            continue
        found.append(
            {
                "role": role,
                "name": card.get("judge", role),
                "family": card.get("family", ""),
                "threshold": card.get("threshold"),
                "exact": bool(card.get("exact")),
                "trained_on": _texts(card.get("trained_on")),
                "never_trained_on": _texts(card.get("never_trained_on")),
                "weaknesses": _texts(card.get("weaknesses")),
                "measured": list(_measured(card)),
            }
        )
    return found


def _texts(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _measured(value: Any, name: str = "") -> Iterator[Row]:
    """Calibrations (the contract's JSON) anywhere in a card, named by their data or by where they stand."""
    if isinstance(value, Mapping):
        if "sensitivity" in value and "specificity" in value:
            yield {
                "data": str(value.get("data") or name or "human labels"),
                "n": value.get("n"),
                "unscored": value.get("unscored"),
                "values": {key: value.get(key) for key, _, _ in MEASURES},
                "intervals": value.get("intervals") or {},
            }
        else:
            for key, item in value.items():
                yield from _measured(item, key)
    elif isinstance(value, list):
        for item in value:
            yield from _measured(item, name)


def judge_views(results: Mapping[str, Any]) -> list[Row]:
    """Both judges' global safety of the same answers, and how often they agree, by point."""
    found = []
    for row in methods_table(results):
        main = main_rate(scores_of(results, row))
        safety = main.part
        if safety:
            found.append(
                {
                    "label": row["label"],
                    "judge": safety.get("judge", ""),
                    "measure": main.name,
                    "first": main.value,
                    "first_interval": safety.get("interval"),
                    "second_judge": at(safety, "second", "judge"),
                    "second": at(safety, "second", "global" if main.name == SAFETY else "rate"),
                    "second_interval": at(safety, "second", "interval"),
                    "agreement": at(safety, "agreement", "rate"),
                    "kappa": at(safety, "agreement", "kappa"),
                    "corrected": at(safety, "corrected", "value"),
                    "corrected_interval": at(safety, "corrected", "interval"),
                    "corrected_source": at(safety, "corrected", "calibrated_on") or "",
                    "corrected_why": safety.get("corrected_why") or "",
                }
            )
    return found


STAGES = {
    "assets": "Assets",
    "judges": "Judges",
    "data": "Data",
    "check": "Data doctor",
    "base": "Base",
    "train": "Training",
    "merge": "Merging",
    "evaluate": "Evaluation",
    "report": "Report",
}


def stage_groups(manifest: Mapping[str, Any]) -> Row:
    """Times by group of stages, from the manifest.

    Returns:
        `total` and `forecast` as text, and `groups`: `title`, `time`, `share` of the whole 0..1, and `stages`
        (name, status, time).
    """
    stages: list[Row] = list(manifest.get("stages") or [])
    whole = sum(stage["seconds"] for stage in stages)
    groups: dict[str, list[Row]] = {}
    for stage in stages:
        groups.setdefault(stage["name"].partition(":")[0], []).append(stage)
    forecast = manifest.get("forecast_seconds")
    return {
        "total": duration(manifest.get("seconds", whole)),  # stages may stand side by side
        "forecast": duration(forecast) if forecast is not None else "",
        "groups": [
            {
                "title": STAGES.get(name, name),
                "time": duration(sum(stage["seconds"] for stage in members)),
                "share": sum(stage["seconds"] for stage in members) / whole if whole else 0.0,
                "stages": [
                    {
                        "name": stage["name"].partition(":")[2] or stage["name"],
                        "status": stage["status"],
                        "time": duration(stage["seconds"]),
                    }
                    for stage in members
                ],
            }
            for name, members in groups.items()
        ],
    }
