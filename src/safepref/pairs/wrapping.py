"""Harmful training prompts under the attacks' train-side templates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from safepref.attacks import get_attack
from safepref.data.records import Prompt


def wrapped(prompts: Sequence[Prompt], families: Sequence[str], share: float, seed: int) -> list[Prompt]:
    """Wrap `share` of the prompts, the families in turn, by their train-side templates.

    Raises:
        InputError: an unknown family, or a prompt that is under attack already.
    """
    if not families or share == 0:
        return list(prompts)
    # Counted within each category, each from its own start: with one count for all, the turns of the
    # categories and of the families fall into step, and a category meets one form only.
    start = {name: at for at, name in enumerate(dict.fromkeys(p.category or "" for p in prompts))}
    seen, used = Counter[str](), Counter[str]()
    found: list[Prompt] = []
    for prompt in prompts:
        name = prompt.category or ""
        place = start[name] + seen[name]
        seen[name] += 1
        if int((place + 1) * share) > int(place * share):
            attack = get_attack(families[(start[name] // 2 + used[name]) % len(families)])
            found.append(attack.apply(prompt, side="train", seed=seed))
            used[name] += 1
        else:
            found.append(prompt)
    return found
