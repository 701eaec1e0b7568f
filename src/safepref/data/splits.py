"""Splits disjoint by template and balanced over categories, and samples even over them.

All choices follow a hash of the seed and the record's id, so that a row added or taken away moves no other
row's place in an order, and equal input gives equal splits on every machine.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, TypeVar

from safepref.data.near import near_duplicates, normalised, template_keys
from safepref.data.records import SPLITS, Pair, Prompt, Split
from safepref.errors import InputError

Record = TypeVar("Record", Prompt, Pair)
Stratum: TypeAlias = tuple[str, str | None]
"""Kind and category: what a deal keeps in balance."""

FRACTIONS: Mapping[Split, float] = {"train": 0.6, "choose": 0.15, "report": 0.25}
"""Shares of a set that serves training, choosing and reporting."""

_DEALS = 24


def with_templates(records: Sequence[Record]) -> list[Record]:
    """The records with `template` set to the key of their family (`near.template_keys`).

    Keys depend on the whole set: give everything that must be kept apart in one call.
    """
    keys = template_keys([request(record) for record in records], [record.template for record in records])
    return [replace(record, template=key) for record, key in zip(records, keys, strict=True)]


def split_by_template(
    prompts: Sequence[Prompt], fractions: Mapping[Split, float] = FRACTIONS, seed: int = 0
) -> dict[Split, list[Prompt]]:
    """Prompts dealt into splits so that no template stands in two, with every category's shares kept close.

    Templates are dealt whole, the larger first, each to the split that its categories are furthest behind in,
    several times over, and the deal nearest to the shares is taken. Prompts that differ only in case, spacing
    or punctuation are kept once. A category of fewer families than splits (ALERT's weapon_biological has two
    and one odd prompt) cannot stand in all of them.

    Args:
        prompts: any prompts; a `template` that they carry keeps its members together.
        fractions: share of each split, above 0, summing to 1.
        seed: changes which templates go where.

    Returns:
        For each split of `fractions`, its prompts in the order given, with `template` and `split` set.

    Raises:
        InputError: fractions that do not sum to 1.
    """
    if not fractions or min(fractions.values()) <= 0 or not math.isclose(sum(fractions.values()), 1):
        raise InputError(f"split fractions {dict(fractions)}: must be above 0 and sum to 1")
    once: dict[tuple[str, ...], Prompt] = {}
    for prompt in prompts:
        once.setdefault(tuple(normalised(message["content"]) for message in prompt.messages), prompt)
    keyed = with_templates(list(once.values()))
    groups: dict[str, Counter[Stratum]] = defaultdict(Counter)
    for prompt in keyed:
        groups[prompt.template][prompt.kind, prompt.category] += 1
    deals = (_deal(groups, fractions, f"{seed}.{attempt}") for attempt in range(_DEALS))
    home = min(deals, key=lambda deal: deal[1])[0]
    return {
        name: [replace(p, split=name) for p in keyed if home[p.template] == name]
        for name in SPLITS
        if name in fractions
    }


def _deal(
    groups: Mapping[str, Counter[Stratum]], fractions: Mapping[Split, float], seed: str
) -> tuple[dict[str, Split], float]:
    """One way of dealing templates into splits, and how far it is from the wanted shares.

    The distance is the sum over splits and categories of (have / wanted - 1)^2: a category that a split lacks
    costs 1, however small it is.
    """
    totals: Counter[Stratum] = Counter()
    for counts in groups.values():
        totals.update(counts)
    wanted = {name: {c: fractions[name] * n for c, n in totals.items()} for name in fractions}
    have: dict[Split, Counter[Stratum]] = {name: Counter() for name in fractions}
    home: dict[str, Split] = {}
    # A size changed by up to a half at random deals the large families in another order each time.
    chance = {key: int(_rank(seed, key)[:8], 16) / 2**32 for key in groups}
    for key in sorted(groups, key=lambda k: (-groups[k].total() * (0.5 + chance[k]), k)):
        counts = groups[key]
        behind = {
            name: sum(n * (1 - have[name][c] / wanted[name][c]) for c, n in counts.items())
            for name in fractions
        }
        home[key] = max(fractions, key=lambda name: behind[name])
        have[home[key]].update(counts)
    distance = sum((have[name][c] / wanted[name][c] - 1) ** 2 for name in fractions for c in totals)
    return home, distance


def without_templates_of(
    records: Sequence[Record], evaluation: Sequence[Prompt]
) -> tuple[list[Record], list[Record]]:
    """Training records whose template does not stand in evaluation, and those that had to be dropped.

    Templates are found over both sets together, so a near-duplicate of an evaluation prompt is dropped too.
    """
    texts = [request(record) for record in records] + [prompt.text for prompt in evaluation]
    known = [record.template for record in records] + [prompt.template for prompt in evaluation]
    keys = template_keys(texts, known)
    held_out = set(keys[len(records) :])
    kept: list[Record] = []
    dropped: list[Record] = []
    for record, key in zip(records, keys, strict=False):
        (dropped if key in held_out else kept).append(replace(record, template=key))
    return kept, dropped


def without_questions(
    records: Sequence[Record], questions: Sequence[str], threshold: float = 0.9
) -> tuple[list[Record], list[Record]]:
    """Training records that are no benchmark question nor nearly one (word cosine), and those that are."""
    asked = [request(record) for record in records]
    exact = {normalised(question) for question in questions}
    held_out = {i for i, text in enumerate(asked) if normalised(text) in exact}
    if questions:
        held_out |= {i for i, _, _ in near_duplicates(asked, questions, threshold)}
    kept = [record for i, record in enumerate(records) if i not in held_out]
    return kept, [records[i] for i in sorted(held_out)]


def balanced_sample(
    records: Sequence[Record], total: int, by: str = "category", seed: int = 0
) -> list[Record]:
    """At most `total` records, as evenly over the values of `by` as they allow, in the order given."""
    groups = _strata(records, by, seed)
    # A group's k-th record stands in round k: taking rounds in turn is even until a group runs dry.
    rounds = [
        (k, _rank(seed, str(name)), record)
        for name, group in groups.items()
        for k, record in enumerate(group)
    ]
    rounds.sort(key=lambda item: item[:2])
    chosen = {id(record) for *_, record in rounds[:total]}
    return [record for record in records if id(record) in chosen]


def request(record: Prompt | Pair) -> str:
    """The last user turn of a record."""
    return next((m["content"] for m in reversed(record.messages) if m["role"] == "user"), "")


def _strata(records: Sequence[Record], by: str, seed: int) -> dict[Hashable, list[Record]]:
    groups: dict[Hashable, list[Record]] = defaultdict(list)
    for record in records:
        groups[_field(record, by)].append(record)
    for group in groups.values():
        group.sort(key=lambda record: _rank(seed, record.id))
    return groups


def _field(record: Any, by: str) -> Hashable:
    try:
        value: Hashable = getattr(record, by)
    except AttributeError:
        fields = ", ".join(type(record).__dataclass_fields__)
        raise InputError(f"cannot sample by {by!r}: a {type(record).__name__} has {fields}") from None
    return value


def _rank(seed: int | str, key: str) -> str:
    return hashlib.sha256(f"{seed}\x1f{key}".encode()).hexdigest()
