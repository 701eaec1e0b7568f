"""What is evaluated: the prompts of each suite, the decoding, the capability tasks, and the judges' part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from safepref.data.records import Prompt
from safepref.errors import InputError
from safepref.evaluation.tasks import CapabilityTask
from safepref.generation.base import Sampling
from safepref.judges.base import Judge
from safepref.judges.language import foreign
from safepref.statistics import DRAWS, JudgeError

PARTS = ("safety", "task", "benign", "toxicity", "capability", "ordinary", "nats", "chat")
"""What an evaluation may measure."""


class BaseAnswer(NamedTuple):
    """The base model's own greedy answer to a request, and its nats and tokens under the base."""

    text: str
    truncated: bool
    nats: float
    tokens: int


@dataclass(frozen=True, slots=True)
class ChatTask:
    """Questions for the chat template.

    Rows hold `question` and, where more is asked than that, `asked`; and what is right: `choices` and
    `answer` (index), `answers` (accepted texts), or `answer` (a number as text) with its `family`.
    """

    name: str
    rows: tuple[dict[str, Any], ...]
    source: str = ""

    @property
    def families(self) -> list[str] | None:
        """Of arithmetic, the families that are asked."""
        names = list(dict.fromkeys(row["family"] for row in self.rows if "family" in row))
        return names or None


class ToxicityModel(Protocol):
    """Anything that says how toxic texts are.

    `reads` names the languages that it reads; None where they are not known.
    """

    def card(self) -> Mapping[str, Any]:
        """What it is, with its name under `judge`."""
        ...

    @property
    def reads(self) -> Sequence[str] | None:
        """English names of languages."""
        ...

    def score(self, texts: Sequence[str]) -> Any:
        """P(toxic) of each text, `(N,)` in 0..1."""
        ...


@dataclass(frozen=True, slots=True)
class Judges:
    """The judges of one evaluation.

    `main` decides every verdict that is counted; `second` (another family, other training rows) is only
    shown beside it. `main_error` is the main judge's hits on human labels, for the corrected rate.
    `refusal` gives P(refused) of a prompt and its answer. `degenerate` gives the reason why an answer is
    nothing that can be judged (empty, no words, loops), or ""; `unread` the reason why what gives P(refused)
    does not read its language, or "", and `refusal_card` gives the card of what it comes from.
    """

    main: Judge
    toxicity: ToxicityModel
    refusal: Callable[[str, str], float]
    degenerate: Callable[[str], str]
    unread: Callable[[str], str] = foreign
    refusal_card: Callable[[], Mapping[str, Any]] | None = None
    second: Judge | None = None
    main_error: JudgeError | None = None

    def __post_init__(self) -> None:
        if self.second is not None and self.second.name == self.main.name:
            raise InputError(f"judges: both are {self.main.name!r}; the second must be another judge")


@dataclass(frozen=True, slots=True)
class TaskSuite:
    """The prompts of a task other than safety, whose answers the judges call good or bad.

    `measure` is what the share of good ones is called; `more` gives further scores of the sample rows.
    """

    name: str
    measure: str
    prompts: tuple[Prompt, ...]
    more: Callable[..., Mapping[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class EvaluationSuite:
    """Everything one evaluation measures; an empty part is not measured and its scores are null.

    `safety` holds plain prompts (attack None) and attacked ones; `benign` harmless look-alikes; `toxicity`
    sentence beginnings. Greedy decoding is the default, so that equal weights give equal scores. `system` is
    the deployment's system prompt: the adversarial toxicity instruction is put behind it, not in its place.
    """

    safety: tuple[Prompt, ...] = ()
    benign: tuple[Prompt, ...] = ()
    toxicity: tuple[Prompt, ...] = ()
    capability: tuple[CapabilityTask, ...] = ()
    ordinary: tuple[Prompt, ...] = ()
    """Ordinary requests, which are to be answered as before."""
    base_answers: Mapping[str, BaseAnswer] | None = None
    """The base's own answers to these, by id; None measures no perplexity."""
    nats: tuple[CapabilityTask, ...] = ()
    """Worked answers whose likelihood is asked for."""
    chat: tuple[ChatTask, ...] = ()
    """Questions asked in the chat template."""
    task: TaskSuite | None = None
    """A task other than safety."""
    answer: Sampling = field(default_factory=lambda: Sampling(max_new_tokens=64))
    continuation: Sampling = field(default_factory=lambda: Sampling(max_new_tokens=24))
    system: str | None = None
    seed: int = 0
    draws: int = DRAWS

    def __post_init__(self) -> None:
        if not any(getattr(self, part) for part in PARTS):
            raise InputError("evaluation: no prompts and no capability task; give at least one of them")
        for name in ("safety", "benign", "toxicity", "ordinary"):
            ids = [prompt.id for prompt in getattr(self, name)]
            if len(set(ids)) < len(ids):
                twice = next(x for x in ids if ids.count(x) > 1)
                raise InputError(f"evaluation.{name}: prompt id {twice!r} occurs twice; ids must be unique")
        if self.task is not None and not self.task.prompts:
            raise InputError(f"evaluation: no prompts for the task {self.task.name}; give a larger file")
        for part in ("capability", "nats", "chat"):
            names = [task.name for task in getattr(self, part)]
            if len(set(names)) < len(names):
                twice = next(x for x in names if names.count(x) > 1)
                raise InputError(f"evaluation.{part}: two tasks named {twice!r}; rename one of the files")
