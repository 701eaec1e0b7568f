"""The trials of a search as files: one JSON a trial, a table for people, the best settings as a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from safepref.errors import InputError
from safepref.evaluation.main_rate import SAFETY, main_rate
from safepref.store import read_json
from safepref.tradeoff.front import capability_of
from safepref.tradeoff.objective import LOWEST, PENALTY

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Trial:
    """One training of one method and what the choose split says of it. No times: equal trials are equal."""

    method: str
    number: int
    """From 0, the present settings."""
    values: dict[str, float]
    """What was searched."""
    settings: dict[str, Any]
    """The method's whole entry of `training.params`, the recipe's own part included."""
    objective: float | None
    """Null where training diverged."""
    scores: dict[str, Any] | None
    """SCORES of the choose split at strength 1."""
    training: dict[str, Any] | None
    """The summary of training."""
    failed: str | None = None
    """Why there are no scores."""

    @property
    def score(self) -> float:
        """The objective, and less than any other where training diverged."""
        return LOWEST if self.objective is None else self.objective

    def to_json(self) -> dict[str, Any]:
        """As it is written."""
        return {"schema": SCHEMA, **asdict(self)}


def trial_file(out: Path, method: str, number: int) -> Path:
    """Where a trial is written."""
    return out / "trials" / f"{method}-{number:03d}.json"


def read_trials(out: Path, method: str) -> list[Trial]:
    """The finished trials of a method, by their number.

    Raises:
        InputError: a file that no search has written.
    """
    found = []
    for path in sorted((out / "trials").glob(f"{method}-[0-9][0-9][0-9].json")):
        row = read_json(path)
        bad = InputError(f"{path}: not a trial of this search; remove it, and it is done again")
        try:
            trial = Trial(**{key: value for key, value in row.items() if key != "schema"})
            own = trial_file(out, trial.method, trial.number)
        except (TypeError, AttributeError, ValueError):
            raise bad from None
        if own != path:
            raise bad
        found.append(trial)
    return found


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """The trial of the highest objective, the earlier of two; none where all diverged."""
    scored = [trial for trial in trials if trial.objective is not None]
    return max(scored, key=lambda trial: (trial.score, -trial.number), default=None)


def fragment(found: Sequence[Sequence[Trial]], width: int | None) -> str:
    """A recipe of the best settings of each method, as YAML, found at hidden size `width`."""
    params, notes = {}, []
    for trials in found:
        best = best_of(trials)
        if best is not None:
            params[best.method] = best.settings
            first = "diverged" if trials[0].objective is None else f"{trials[0].score:.4f}"
            notes.append(
                f"# {best.method}: trial {best.number} of {len(trials)}, objective {best.score:.4f} "
                f"(trial 0, the settings before: {first})\n"
            )
    head = "# Found by `safepref tune` on the choose split; every trial is in trials/ and trials.md.\n"
    if width is not None:
        head += (
            f"# Learning rates hold at hidden size {width}; for a wider model multiply them by {width} / its "
            "size.\n"
        )
    return head + "".join(notes) + yaml.safe_dump({"training": {"params": params}}, sort_keys=False)


def table(found: Sequence[Sequence[Trial]], floor: float, ceiling: float) -> str:
    """All trials as a Markdown table, rates in per cent; the best of each method is marked."""
    names = list(dict.fromkeys(name for trials in found for trial in trials for name in trial.values))
    measured = [main_rate(t.scores).name for trials in found for t in trials if t.scores is not None]
    rate = measured[0] if measured else SAFETY
    head = ["method", "trial", *names, rate, "plain", "adversarial", "over-refusal", "capability"]
    head += ["objective", ""]
    lines = [
        "# Trials",
        "",
        "Choose split, strength 1, intervals of 95 %. Objective: capability minus over-refusal, less "
        f"{PENALTY:g} times what the {rate} interval's lower end misses of {floor:.0%} and over-refusal "
        f"exceeds {ceiling:.0%}.",
        "",
        _row(head),
        "|" + "---|" * len(head),
    ]
    for trials in found:
        best = best_of(trials)
        for trial in trials:
            said = ["the settings before"] if trial.number == 0 else []
            said += ["**best**"] if trial is best else []
            said += [str(trial.failed)] if trial.failed else []
            values = [f"{trial.values[name]:.3g}" if name in trial.values else "" for name in names]
            figures = [""] * 6 if trial.scores is None else [*_figures(trial.scores), f"{trial.score:.3f}"]
            lines.append(_row([trial.method, str(trial.number), *values, *figures, ", ".join(said)]))
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _figures(scores: dict[str, Any]) -> list[str]:
    main, refused = main_rate(scores), scores["over_refusal"]
    sides = [main.part.get(side) for side in ("plain", "adversarial")]  # of safety alone
    mean, _ = capability_of(scores)
    return [
        "" if main.value is None else f"{main.value:.1%} {_interval(main.part)}",
        *("" if value is None else f"{value:.1%}" for value in sides),
        f"{refused['rate']:.1%} {_interval(refused)}",
        "" if mean is None else f"{mean:.3f}",
    ]


def _interval(part: Mapping[str, Any]) -> str:
    low, high = part["interval"]
    return f"({low:.1%} to {high:.1%})"
