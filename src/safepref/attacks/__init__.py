"""Static attacks: rewrites of a request that try to get it past a refusal.

An attack is one file with an `ATTACK` and one line in the table below. Its templates are shared out over the
train, choose and report sides, so that what is measured was never seen in training (arXiv 2404.08676 names
the four families; 2409.07772 evaluates on them).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from types import MappingProxyType

from safepref.attacks import (
    jailbreak,
    jailbreak_wild,
    prefix_injection,
    suffix_gcg,
    suffix_injection,
    token_manipulation,
)
from safepref.attacks.base import Attack, Template
from safepref.data.records import Prompt, Split, content_id
from safepref.errors import InputError

ATTACKS: Mapping[str, Attack] = MappingProxyType(
    {
        attack.name: attack
        for attack in (
            suffix_injection.ATTACK,
            prefix_injection.ATTACK,
            token_manipulation.ATTACK,
            jailbreak.ATTACK,
            suffix_gcg.ATTACK,
            jailbreak_wild.ATTACK,
        )
    }
)
DEFAULT_ATTACKS: tuple[str, ...] = ("suffix_injection", "prefix_injection", "token_manipulation", "jailbreak")
"""The families that need no download."""

__all__ = ["ATTACKS", "DEFAULT_ATTACKS", "Attack", "Template", "attack_prompts", "get_attack"]


def get_attack(name: str) -> Attack:
    """The attack of that name.

    Raises:
        InputError: no such attack; the nearest name is given.
    """
    if name in ATTACKS:
        return ATTACKS[name]
    near = get_close_matches(name, ATTACKS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else "use one of the known attacks"
    raise InputError(f"attack {name!r} is not known; {hint} Known: {', '.join(ATTACKS)}")


def attack_prompts(
    prompts: Sequence[Prompt], families: Sequence[str], side: Split, n_each: int | None = None, seed: int = 0
) -> list[Prompt]:
    """Put each attack family round a sample of plain prompts.

    The sample takes turns over the categories, so that each is there about equally often. Where `n_each`
    is more than there are prompts, the prompts come again under other templates; with all combinations used
    up, fewer than `n_each` are returned.

    Args:
        prompts: plain prompts (`attack` is None).
        families: names of attacks, see `ATTACKS`.
        side: the templates to draw from.
        n_each: attacked prompts for each family; None: each prompt once.
        seed: draws the sample and the templates; the result does not depend on the order of `prompts`.

    Returns:
        The attacked prompts, family by family; ids are unique.

    Raises:
        InputError: unknown family or side, negative `n_each`, or a prompt that `Attack.apply` refuses.
    """
    if n_each is not None and n_each < 0:
        raise InputError(f"n_each={n_each}: the number of prompts for each attack must be 0 or more")
    found: list[Prompt] = []
    for attack in map(get_attack, families):
        wanted = len(prompts) if n_each is None else n_each
        queue = _by_turns(prompts, attack.name, seed)
        # By id, since two misspellings of a text without letters give the same text.
        made: dict[str, Prompt] = {}
        for variant in range(len(attack.templates(side))):
            for prompt in queue:
                if len(made) == wanted:
                    break
                attacked = attack.apply(prompt, side=side, seed=seed, variant=variant)
                made.setdefault(attacked.id, attacked)
        found += made.values()
    return found


def _by_turns(prompts: Sequence[Prompt], name: str, seed: int) -> list[Prompt]:
    """Prompts in hashed order, one of each category in every turn."""
    groups: defaultdict[str, list[Prompt]] = defaultdict(list)
    for prompt in sorted(prompts, key=lambda prompt: content_id(name, prompt.id, str(seed))):
        groups[prompt.category or ""].append(prompt)
    order = sorted(groups, key=lambda category: content_id(name, category, str(seed)))
    longest = max(map(len, groups.values()), default=0)
    return [
        groups[category][turn]
        for turn in range(longest)
        for category in order
        if turn < len(groups[category])
    ]
