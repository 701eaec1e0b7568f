"""What a run or an evaluation learns from, held against all that it asks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safepref.data.contamination import Asked, Learned, contamination, summary
from safepref.data.findings import Finding
from safepref.data.records import Example, Pair, Prompt
from safepref.data.rows import Where
from safepref.data.splits import request
from safepref.evaluation import CapabilityTask, ChatTask
from safepref.judges.behind import parts, requests_behind, rows_of_file
from safepref.judges.behind_files import Rows
from safepref.judges.labelled import request_digest
from safepref.pipeline.prompts import Prompts
from safepref.recipe import JudgeSection
from safepref.store import read_json, read_jsonl, write_json, write_jsonl

TRAINING = "training"


def asked_texts(
    suites: Iterable[tuple[Sequence[Prompt], Sequence[CapabilityTask | ChatTask]]],
) -> list[Asked]:
    """Every prompt and question of the suites; an attacked prompt counts by its bare request where
    that is known."""
    found: list[Asked] = []
    for prompts, tasks in suites:
        found += [
            Asked(
                prompt.request,
                prompt.source or "evaluation",
                attacked=prompt.attack is not None and not prompt.plain,
            )
            for prompt in prompts
        ]
        found += [Asked(row["question"], task.name, numbers=True) for task in tasks for row in task.rows]
    return found


def trained_texts(
    pairs: Sequence[Pair], examples: Sequence[Example], pools: Sequence[Prompt], folder: Path
) -> list[Learned]:
    """Training pairs and anchor examples, and the bare prompts that they were made from."""
    mend = "remove it from training: evaluation would measure memory"
    rows = [(request(pair), Where(str(folder / "pairs.jsonl"), n)) for n, pair in enumerate(pairs, 1)]
    rows += [
        (request(Prompt(example.id, example.messages, "general")), Where(str(folder / "examples.jsonl"), n))
        for n, example in enumerate(examples, 1)
    ]
    rows += [(prompt.request, Where(prompt.source or "prompts", 0)) for prompt in pools]
    return [Learned(text, TRAINING, where, mend) for text, where in rows]


def judged_texts(section: JudgeSection, asked: Sequence[Asked]) -> tuple[list[Learned], list[str]]:
    """What the judges were fitted, set and calibrated on, and the names of what is not known.

    Args:
        section: the judges, the members of ensembles among them, and the files that they were set with.
        asked: the evaluated texts: of a request that only a digest is left of, the equal one.
    """
    equal = {request_digest(item.text): item.text for item in asked}
    names = [section.select, section.report, f"refusal:{section.refusal}" if section.refusal else "refusal"]
    names += [section.vet] if section.vet is not None else []
    uses = [(part, f"judge {part}") for name in names for part in parts(name)]
    if section.calibration is not None:
        uses.append((f"calibration:{section.calibration}", f"calibration {section.calibration}"))
    found: list[Learned] = []
    unknown: list[str] = []
    for part, use in dict.fromkeys(uses):
        head, _, file = part.partition(":")
        if file and head in ("weighted", "refusal", "calibration"):
            mend = f"leave it out of the evaluation, or make {file} anew without it"
            found += _of_file(rows_of_file(part), use, mend, equal, unknown)
            continue
        behind = requests_behind(part)
        if behind is None:
            unknown.append(use)
            continue
        mend = f"leave it out of the evaluation, or judge with one that {part} shares no rows with"
        found += [Learned(row.text, f"{use}, {row.use}", Where(row.source, 0), mend) for row in behind]
    return found, unknown


def _of_file(rows: Rows, use: str, mend: str, equal: Mapping[str, str], unknown: list[str]) -> list[Learned]:
    """The learned texts of a file; what of it cannot be checked is added to `unknown`."""
    where = Where(rows.source, 0)
    if rows.texts is not None:
        return [Learned(text, use, where, mend) for text in rows.texts]
    if rows.digests is None:
        unknown.append(use)
        return []
    unknown.append(f"{use}, near")
    return [Learned(equal.get(digest, ""), use, where, mend) for digest in rows.digests]


def trained_in(adapter: Path | None) -> list[Learned]:
    """What the run that made an adapter trained on, where the adapter still lies in its run folder."""
    if adapter is None:
        return []
    folder = adapter.resolve().parent.parent / "data"
    if not (folder / "pairs.jsonl").is_file():
        return []
    pairs = [Pair.from_json(row) for row in read_jsonl(folder / "pairs.jsonl")]
    file = folder / "examples.jsonl"
    examples = [Example.from_json(row) for row in read_jsonl(file)] if file.is_file() else []
    return trained_texts(pairs, examples, (), folder)


def checked(
    learned: Sequence[Learned], asked: Sequence[Asked], unknown: Sequence[str]
) -> tuple[dict[str, Any], list[Finding]]:
    """The counts for results.json, `unknown` naming what could not be checked, and a finding a match."""
    matches = contamination(learned, asked)
    return summary(learned, asked, matches) | {"unknown": list(unknown)}, [m.finding() for m in matches]


def contamination_of(
    prompts: Prompts, pairs: Sequence[Pair], examples: Sequence[Example], judges: JudgeSection, place: Path
) -> dict[str, Any]:
    """The counts of a run, from `place` or found and written there, the findings beside it as .jsonl."""
    if not place.exists():
        asked = asked_texts(
            ((*suite.safety, *suite.benign, *suite.toxicity, *suite.ordinary), suite.tasks)
            for suite in (prompts.choose, prompts.report)
        )
        pools = (*prompts.harmful, *prompts.harmless, *prompts.general)
        learned = trained_texts(pairs, examples, pools, place.parent)
        behind, unknown = judged_texts(judges, asked)
        counts, findings = checked([*learned, *behind], asked, unknown)
        write_jsonl(place.with_suffix(".jsonl"), (finding.to_json() for finding in findings))
        write_json(place, counts)
    return dict(read_json(place))
