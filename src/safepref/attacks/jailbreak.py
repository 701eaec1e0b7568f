"""Role-play, hypothetical and no-rules wrappers round the request."""

from __future__ import annotations

from functools import partial

from safepref.attacks.base import Attack, shipped_templates

ATTACK = Attack(
    name="jailbreak",
    summary="role-play, hypothetical and no-rules wrappers of one to eight sentences",
    source="arXiv 2305.13860, 2308.03825 (the families; the texts are written for this set)",
    load=partial(shipped_templates, "jailbreak"),
)
