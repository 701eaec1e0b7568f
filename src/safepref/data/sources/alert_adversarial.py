"""Adversarial ALERT: ALERT's prompts under four kinds of attacks (arXiv 2404.08676, section 4)."""

from __future__ import annotations

from dataclasses import replace

from safepref.data.records import Prompt
from safepref.data.rows import Row, Where
from safepref.data.sources.base import Hub, Source, column, make_prompt

_ATTACKS = {
    "suffix": "suffix_injection",
    "prefix": "prefix_injection",
    "token": "token_manipulation",
    "jailbreak": "jailbreak",
}
"""The project's family by a word in `attack_type`, which copies of the set spell differently."""


def _parse(row: Row, where: Where) -> Prompt:
    """The attack is part of `prompt`; the bare request is not in the set, so judges see the whole."""
    prompt, category = column(row, where, "prompt"), column(row, where, "category")
    kind = str(column(row, where, "attack_type"))
    attack = next((family for word, family in _ATTACKS.items() if word in kind.casefold()), kind)
    return replace(make_prompt(where, SOURCE.name, prompt, category=category), attack=attack)


SOURCE = Source(
    name="alert-adversarial",
    title="Adversarial ALERT",
    holds="prompts",
    licence="CC BY-NC-SA 4.0",
    paper="2404.08676",
    fit_allowed=True,
    parse=_parse,
    hub=Hub("Babelscape/ALERT", "test", config="alert_adversarial"),
)
