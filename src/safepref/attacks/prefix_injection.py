"""A demanded compliant opening, rules against refusal words, and text before the request."""

from __future__ import annotations

from functools import partial

from safepref.attacks.base import Attack, shipped_templates

ATTACK = Attack(
    name="prefix_injection",
    summary="a demanded opening such as 'Sure, here is', refusal suppression, text before the request",
    source="arXiv 2307.02483 (the form; the texts are written for this set)",
    load=partial(shipped_templates, "prefix_injection"),
)
