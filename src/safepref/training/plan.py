"""Which rows are trained on together, in which order: the whole run's micro-batches, planned at the start.

The plan depends on counts, settings and seed alone, so a killed run that is started again meets the same
micro-batches, and any world size or accumulation walks the same sequence of pairs.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import TypeVar

from safepref.errors import InputError
from safepref.methods import Method
from safepref.training.settings import TrainingSettings

T = TypeVar("T")

CHOSEN, REJECTED = 0, 1


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Numbers of the pairs and general examples of one forward and backward pass."""

    pairs: tuple[int, ...]
    examples: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """All micro-batches of a run."""

    batches: tuple[MicroBatch, ...]
    accumulation: int
    anchor_ratio: float
    """General examples to each pair, on average."""
    mismatched: tuple[tuple[int, int], ...] | None
    """For each pair, (pair, side) whose completion is put behind its prompt for KTO's z0; else None."""

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return math.ceil(len(self.batches) / self.accumulation)


def make_plan(pairs: int, examples: int, method: Method, settings: TrainingSettings) -> Plan:
    """Plan a run over `pairs` pairs and `examples` general examples.

    Pairs are shuffled anew each epoch, and batches run on over the epochs' ends. Where the loss needs
    mismatched pairs they are shuffled once into fixed micro-batches, so that who is mismatched with whom
    never changes and can be scored by the reference beforehand; then the order of the batches is shuffled.

    Raises:
        InputError: no pairs, or too few in a micro-batch for a method that compares them.
    """
    if pairs < 1:
        raise InputError("training: there are no pairs; check data.harmful, data.harmless and data.pairs")
    method.check_batch_size(min(settings.batch_size, pairs))
    mismatched = None
    if method.needs_mismatched:
        groups = _fixed_groups(pairs, settings)
        mismatched = _rotate(groups)
        groups = list(islice(_epochs(groups, settings.seed), math.ceil(settings.epochs * len(groups))))
    else:
        stream = _epochs(range(pairs), settings.seed)
        order = list(islice(stream, max(1, round(settings.epochs * pairs))))
        groups = [order[i : i + settings.batch_size] for i in range(0, len(order), settings.batch_size)]
        if method.batch_coupled and len(groups) > 1 and len(groups[-1]) == 1:
            groups[-2:] = [groups[-2] + groups[-1]]  # the last pair has nobody to be compared with
    ratio = _anchor_ratio(pairs, examples, settings)
    kept = _epochs(range(examples), settings.seed + 1) if ratio else iter(())
    batches, seen, drawn = [], 0, 0
    for group in groups:
        seen += len(group)
        # Cumulative rounding: the same examples fall due after the same pairs, however these are batched.
        due = math.floor(ratio * seen + 1e-9) - drawn
        drawn += due
        batches.append(MicroBatch(tuple(group), tuple(islice(kept, due))))
    return Plan(tuple(batches), settings.accumulation, ratio, mismatched)


def _anchor_ratio(pairs: int, examples: int, settings: TrainingSettings) -> float:
    if not examples or not settings.anchor:
        return 0.0
    return examples / pairs if settings.anchor_ratio is None else settings.anchor_ratio


def _epochs(items: Sequence[T], seed: int) -> Iterator[T]:
    """Every item once an epoch, in a new order each time, for ever."""
    epoch = 0
    while True:
        order = list(items)
        random.Random(f"{seed}/{epoch}").shuffle(order)
        yield from order
        epoch += 1


def _fixed_groups(pairs: int, settings: TrainingSettings) -> list[list[int]]:
    """All pairs, shuffled once, in groups of nearly equal size, none of one pair."""
    order = list(range(pairs))
    random.Random(f"{settings.seed}/groups").shuffle(order)
    count = max(1, min(math.ceil(pairs / settings.batch_size), pairs // 2))
    ends = [round(i * pairs / count) for i in range(count + 1)]
    return [order[start:end] for start, end in pairwise(ends)]


def _rotate(groups: Sequence[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    """Each pair gets a completion of the pair before it in its group, chosen and rejected by turns."""
    found: dict[int, tuple[int, int]] = {}
    for group in groups:
        for place, pair in enumerate(group):
            found[pair] = (group[place - 1], REJECTED if len(found) % 2 else CHOSEN)
    return tuple(found[pair] for pair in range(len(found)))
