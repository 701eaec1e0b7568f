"""Text behind the request: adversarial-looking strings and instructions about the end of the answer."""

from __future__ import annotations

from functools import partial

from safepref.attacks.base import Attack, shipped_templates

ATTACK = Attack(
    name="suffix_injection",
    summary="strings in the manner of optimised suffixes, and demands about the end of the answer",
    source="arXiv 2307.15043 (the form; the strings are written for this set and not optimised)",
    load=partial(shipped_templates, "suffix_injection"),
)
