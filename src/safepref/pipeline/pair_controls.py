"""What is done to the pairs of a run once they are built: noise on purpose, the vetting judge, CHES."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from safepref.attacks import get_attack
from safepref.data.limits import Truncation
from safepref.data.records import Pair
from safepref.data.render import renderer
from safepref.data.splits import request
from safepref.errors import InputError
from safepref.judges.base import Judge
from safepref.judges.cache import load_cached
from safepref.pairs.ches import ches_scores, leave_out
from safepref.pairs.noise import flip_share, is_flipped
from safepref.pairs.vetting import counts_of, settle, vet
from safepref.pipeline.judging import Bench
from safepref.pipeline.prompts import Prompts
from safepref.pipeline.render import pair_row
from safepref.progress import console, track
from safepref.recipe import JudgeSection
from safepref.store import write_jsonl

if TYPE_CHECKING:
    from safepref.pipeline.job import Job


def controlled(job: Job, pairs: Sequence[Pair]) -> tuple[list[Pair], dict[str, Any]]:
    """The pairs that are trained on, and the counts of what was done to them; none where nothing was asked.

    Args:
        job: the run; its recipe has `data.flipped`, `data.vet`, `judges.vet` and `data.ches`.
        pairs: what was built, and the user's own.

    Raises:
        InputError: vetting or CHES leaves no pair.
    """
    section, folder = job.recipe.data, job.out / "data"
    made, counts = flip_share(pairs, section.flipped, job.recipe.seed), dict[str, Any]()
    if section.flipped:
        counts["flipped"] = sum(map(is_flipped, made))
        console().print(f"  noise: chosen and rejected of {counts['flipped']} of {len(made)} pairs exchanged")
    if section.vet is not None:
        judge = _vetting_judge(job.recipe.judges, job.judges)
        with track(f"vetting by {judge.name}", len(made)) as advance:
            bare = _bare(made, job.prompts, job.recipe.seed)
            found = vet(made, judge, job.judges.refuses, bare, advance)
        made, done = settle(found, section.vet)
        write_jsonl(folder / "vetting.jsonl", (v.to_json(d) for v, d in zip(found, done, strict=True)))
        counts["vetting"] = {"judge": judge.name, "action": section.vet, **counts_of(found, done)}
        console().print(f"  {_said(counts['vetting'])}")
    if section.ches:
        made, counts["ches"] = _unlike(job, made)
        console().print(f"  CHES: {counts['ches']['left_out']} pairs with the most similar answers left out")
    return made, counts


def _unlike(job: Job, pairs: Sequence[Pair]) -> tuple[list[Pair], dict[str, Any]]:
    """The pairs without those of the highest CHES under the base model."""
    render = renderer(job.loaded.tokenizer, job.recipe.model.system)
    rows = {at: pair_row(render, pair, job.limits, Truncation()) for at, pair in enumerate(pairs)}
    fitting = {at: row for at, row in rows.items() if row is not None}
    with track("CHES", len(fitting)) as advance:
        found = ches_scores(job.loaded.model, [*fitting.values()], job.out / "data" / "ches.jsonl", advance)
    kept, out = leave_out(pairs, dict(zip(fitting, found, strict=True)), job.recipe.data.ches)
    if not kept:
        raise InputError(
            f"data.ches is {job.recipe.data.ches}: it leaves out all of {len(pairs)} pairs; lower it, or "
            "build more pairs"
        )
    kinds = dict(sorted(Counter(pair.kind for pair in out).items()))
    flipped = {"flipped": sum(map(is_flipped, out))} if job.recipe.data.flipped else {}
    return kept, {"scored": len(fitting), "left_out": len(out), "by_kind": kinds, **flipped}


def _vetting_judge(section: JudgeSection, judges: Bench) -> Judge:
    if section.vet is None or section.vet == section.select:
        return judges.select
    return judges.report if section.vet == section.report else load_cached(section.vet)


def _bare(pairs: Sequence[Pair], prompts: Prompts, seed: int) -> dict[str, str]:
    """Bare requests by the attacked ones that training pairs hold, which keep the attack's name only."""
    wanted = {request(pair) for pair in pairs if pair.attack is not None}
    families = {pair.attack for pair in pairs if pair.attack is not None}
    made = (
        (get_attack(family).apply(prompt, side="train", seed=seed).text, prompt.text)
        for family in sorted(families)
        for prompt in prompts.harmful
        if prompt.attack is None
    )
    return {text: plain for text, plain in made if text in wanted}


def _said(counts: dict[str, Any]) -> str:
    wrong = f"{counts['caught']} of {counts['flipped']} flipped pairs caught, " if counts["flipped"] else ""
    return (
        f"vetting by {counts['judge']}: {counts['suspicious']} of {counts['vetted']} pairs suspicious, "
        f"{counts['unscored']} unscored; {counts['dropped']} dropped, {counts['turned']} turned ({wrong}"
        f"{counts['lost']} others lost)"
    )
