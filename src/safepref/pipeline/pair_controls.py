"""What is done to the pairs of a run once they are built: noise on purpose, the vetting judge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safepref.attacks import get_attack
from safepref.data.records import Pair
from safepref.data.splits import request
from safepref.judges.base import Judge
from safepref.judges.cache import load_cached
from safepref.pairs.noise import flip_share, is_flipped
from safepref.pairs.vetting import counts_of, settle, vet
from safepref.pipeline.judging import Bench
from safepref.pipeline.prompts import Prompts
from safepref.progress import console, track
from safepref.recipe import Recipe
from safepref.store import write_jsonl


def controlled(
    recipe: Recipe, pairs: Sequence[Pair], prompts: Prompts, judges: Bench, folder: Path
) -> tuple[list[Pair], dict[str, Any]]:
    """The pairs that are trained on, and the counts of what was done to them; none where nothing was asked.

    Args:
        recipe: `data.flipped`, `data.vet` and `judges.vet`.
        pairs: what was built, and the user's own.
        prompts: the pools that the pairs were built from.
        judges: the run's.
        folder: where `vetting.jsonl` is written.

    Raises:
        InputError: vetting leaves no pair.
    """
    section = recipe.data
    made, counts = flip_share(pairs, section.flipped, recipe.seed), {}
    if section.flipped:
        counts["flipped"] = sum(map(is_flipped, made))
        console().print(f"  noise: chosen and rejected of {counts['flipped']} of {len(made)} pairs exchanged")
    if section.vet is not None:
        judge = _vetting_judge(recipe, judges)
        with track(f"vetting by {judge.name}", len(made)) as advance:
            found = vet(made, judge, judges.refuses, _bare(made, prompts, recipe.seed), advance)
        made, done = settle(found, section.vet)
        write_jsonl(folder / "vetting.jsonl", (v.to_json(d) for v, d in zip(found, done, strict=True)))
        counts["vetting"] = {"judge": judge.name, "action": section.vet, **counts_of(found, done)}
        console().print(f"  {_said(counts['vetting'])}")
    return made, counts


def _vetting_judge(recipe: Recipe, judges: Bench) -> Judge:
    section = recipe.judges
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
