"""Small edits of the request's own words that a reader sees through: misspelling, spacing, synonyms.

Whole mechanisms are kept on one side: training never sees the kind of edit that the report measures.
"""

from __future__ import annotations

from safepref.attacks import edits
from safepref.attacks.base import Attack, Sides, Template

SIDES: Sides = {
    "train": (
        Template("letter-swap", edits.swap_letters),
        Template("leet", edits.leet),
        Template("case-noise", edits.case_noise),
        Template("letter-spacing", edits.space_letters),
        Template("chat-spelling", edits.chat_spelling),
    ),
    "choose": (
        Template("vowel-drop", edits.drop_vowels),
        Template("accents", edits.add_accents),
        Template("stutter", edits.stutter),
    ),
    "report": (
        Template("synonyms", edits.synonyms),
        Template("homoglyphs", edits.homoglyphs),
        Template("letter-doubling", edits.double_letters),
        Template("punctuation-noise", edits.punctuation_noise),
    ),
}

ATTACK = Attack(
    name="token_manipulation",
    summary="misspellings, look-alike characters, spacing, case noise and synonyms that keep the meaning",
    source="arXiv 2404.08676, section 4 (the family); arXiv 1812.05271 (the kinds of edit)",
    load=lambda: SIDES,
)
