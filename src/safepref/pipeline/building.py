"""The data stage: on-policy pairs and anchor examples, the user's own pairs beside them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from safepref.data.records import Pair
from safepref.errors import InputError
from safepref.pairs.build import Builder, Built
from safepref.pipeline.pair_controls import controlled
from safepref.progress import console, track
from safepref.store import write_json, write_jsonl

if TYPE_CHECKING:
    from safepref.pipeline.job import Job


def build(job: Job) -> None:
    """Write data/pairs.jsonl, examples.jsonl and counts.json of a run.

    Raises:
        InputError: no pairs.
    """
    folder = job.out / "data"
    section, built = job.recipe.data, Built()
    weight = section.weights.preference
    for note in job.prompts.notes:
        console().print(f"  {note}")
    for name, count in job.prompts.dropped.items():
        if count:
            name = job.task.counted if name == "harmful" else name
            console().print(
                f"  {count} {name} training prompts dropped: they or their template are evaluated"
            )
    # Prompts are asked again until an answer is unsafe, so this is a guess.
    own = job.task.wanted(section)
    total = round(1.8 * own + 1.5 * (section.harmless + section.ordinary) + 1.2 * section.general)
    with track("answers", total) as advance:
        builder = Builder(
            section,
            job.engine(),
            job.judges.select,
            job.judges.refuses,
            folder / "answers",
            job.recipe.seed,
            advance,
        )
        if own:
            job.task.pairs(builder, job.prompts.harmful, built)
            # Those of harmful requests have their own weight already.
            built.pairs = [_weighed(p, weight) if p.kind == "preference" else p for p in built.pairs]
        if section.harmless:
            ready = sum(pair.weight for pair in job.prompts.pairs)
            builder.harmless(job.prompts.harmless, built, ready=ready)
        if section.ordinary:
            builder.ordinary(job.prompts.general, built)
        if section.general:
            builder.general(job.prompts.general, built)
    for kind in (job.task.counted, "harmless", "ordinary", "general"):
        wanted = getattr(section, kind)
        if built.counts[kind] < wanted:
            console().print(f"  {kind}: {built.counts[kind]} of {wanted} found, all the prompts gave")
    built.pairs += [_weighed(pair, weight) for pair in job.prompts.pairs]
    if not built.pairs:
        raise InputError(f"no pairs to train on; raise data.{job.task.counted} or give data.pairs")
    pairs, counts = controlled(job, built.pairs)
    if counts:
        job.manifest.put("pairs", **counts)
    write_jsonl(folder / "pairs.jsonl", (pair.to_json() for pair in pairs))
    write_jsonl(folder / "examples.jsonl", (example.to_json() for example in built.examples))
    write_json(folder / "counts.json", {**built.counts, "dropped": job.prompts.dropped, **counts})


def _weighed(pair: Pair, weight: float) -> Pair:
    return replace(pair, weight=pair.weight * weight)
