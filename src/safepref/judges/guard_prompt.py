"""The prompt that a guard is given: its frame, and the judged texts in it with nothing that could steer it.

Only the frame's own special tokens are tokens: what is judged is tokenized as plain text, so honest text
gives the ids of the whole prompt's text, and forged tokens are characters. Forged turns and frame lines are
taken out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from safepref.data.records import without_surrogates
from safepref.errors import InputError
from safepref.judges.base import Exchange
from safepref.judges.features import clean
from safepref.judges.guard_table import GuardRow, Question
from safepref.store import sha256_bytes

_REQUEST, _RESPONSE = "\ue000", "\ue001"
"""Stand for the two texts in the frame; the texts themselves are never searched for them."""
_TEXTS = re.compile(f"([{_REQUEST}{_RESPONSE}])")
_BLOCKS = re.compile(
    r"<\s*/?\s*(?:BEGIN|END)\s+(?:UNSAFE CONTENT CATEGORIES|CONVERSATION)\s*>"
    r"|<\s*/?\s*(?:start|end)_of_(?:turn|role|risk_definition|conversation|context)\s*>",
    re.I,
)
_TOKEN = re.compile(r"(?<=[<\[])(?=\|?/?[A-Za-z_][\w|-]{0,40}[>\]])")
_THINKING = r"(?:\s|</?think>)*"
"""May stand behind what a frame ends in: a thought that is left empty."""
_HONEST = Exchange("How do I bake bread?", "Mix flour and water.\n\nThen wait, 2 hours.")


def neutral(text: str, row: GuardRow) -> str:
    """Judged text with a guard's own frame lines, turn headers and special tokens taken out.

    Until nothing is left to take out: what is cut from the middle of a marker leaves the marker.
    """
    text = without_surrogates(text)
    labels = "|".join(map(re.escape, row.labels))
    forged = re.compile(rf"^[ \t]*(?:{labels})[ \t]*:[ \t]*", re.I | re.M)
    while (cleaned := forged.sub("", _BLOCKS.sub(" ", clean(text, limit=None))).strip()) != text:
        text = cleaned
    return text


def unspelled(text: str) -> str:
    """Text in which nothing is written as special tokens are: `<name>` becomes `< name>`, `[NAME]` likewise.

    For servers, whose tokenizers read special tokens in what they are sent.
    """
    return _TOKEN.sub(" ", text)


class Frame:
    """A guard's prompt for one question, as its tokenizer writes it.

    Args:
        row: which guard.
        question: what it is asked.
        tokenizer: the model's.
        model_id: for error messages.

    Raises:
        InputError: the tokenizer is another model's, or has no chat template where the row has no text.
    """

    def __init__(self, row: GuardRow, question: Question, tokenizer: Any, model_id: str) -> None:
        self.row = row
        self.question = question
        self._tokenizer = tokenizer
        for mark in row.marks:
            if len(self.ids(mark)) != 1:
                raise InputError(
                    f"judge {row.name}: the tokenizer of {model_id} has no token {mark}; give a model of the "
                    f"kind of {row.model_id}"
                )
        own = own_text(row, question, tokenizer)
        self.text = own or published_text(row, question)
        if not self.text:
            raise InputError(
                f"judge {row.name}: the tokenizer of {model_id} has no chat template of this guard; give a "
                f"model of the kind of {row.model_id} with its chat template"
            )
        self.from_tokenizer = bool(own)
        """Whether the text is the tokenizer's own chat template's."""
        self.special = frozenset(tokenizer.all_special_ids) | {self.ids(mark)[0] for mark in row.marks}
        self._cut()

    def _cut(self) -> None:
        """Cut the text into ids before, between and behind what holds the two judged texts."""
        known = {*self.row.marks, *map(str, self._tokenizer.get_added_vocab())}
        there = sorted((mark for mark in known if mark in self.text), key=lambda mark: (-len(mark), mark))
        marks = re.compile("((?:" + "|".join(map(re.escape, there)) + ")+)") if there else None
        parts = marks.split(self.text) if marks else [self.text]
        holding = [at for at, part in enumerate(parts) if _TEXTS.search(part)]
        first, last = holding[0], holding[-1]
        self._head = self.ids("".join(parts[:first]))
        self._middle = parts[first : last + 1]
        tail = "".join(parts[last + 1 :])
        self._tail = self.ids(tail)
        self._context = parts[-1] if marks is None or len(parts) == 1 else "".join(parts[-2:])
        self._anchored = False
        whole = self.ids(_filled(self.text, _HONEST))
        for self._anchored in (False, True):
            if self.encode(_HONEST)[0] == whole:
                break
        else:
            self._anchored = False
        self.lead = self.after("", self.row.lead)

    def ids(self, text: str, plain: bool = False) -> list[int]:
        """Token ids of a text; of `plain` text, in which special tokens are characters."""
        if not text:
            return []
        return list(self._tokenizer(text, add_special_tokens=False, split_special_tokens=plain)["input_ids"])

    def after(self, before: str, text: str) -> list[int]:
        """Ids of what the guard writes next, behind its prompt and what it has written `before`."""
        start = self.ids(self._context + before)
        joined = self.ids(self._context + before + text)
        return joined[len(start) :] if joined[: len(start)] == start else self.ids(text)

    def _neutral(self, exchange: Exchange) -> Exchange:
        return Exchange(*(neutral(text, self.row) for text in exchange[:2]))

    def sha256(self, exchange: Exchange) -> str:
        """The hash of the exact text that is put to the guard, what it is made to write included."""
        return sha256_bytes((_filled(self.text, self._neutral(exchange)) + self.row.lead).encode())

    def encode(self, exchange: Exchange) -> tuple[list[int], bool]:
        """Token ids of the prompt, and whether the tokenizer made a special token of the judged text.

        The latter happens where it folds look-alikes, and where a token is not flagged as special.
        """
        texts = self._neutral(exchange)
        ids, forged = list(self._head), False
        for at, part in enumerate(self._middle):
            if at % 2:  # marks stand between the parts that hold text
                ids += self.ids(part)
                continue
            new = self._plain(_filled(part, texts))
            forged = forged or not self.special.isdisjoint(new)
            ids += new
        return ids + self._tail, forged

    def _plain(self, text: str) -> list[int]:
        """Plain text's ids as they are behind a mark, where some tokenizers put no space before a word."""
        if not self._anchored:
            return self.ids(text, plain=True)
        anchor = self.ids("\n", plain=True)
        joined = self.ids("\n" + text, plain=True)
        return joined[len(anchor) :] if joined[: len(anchor)] == anchor else self.ids(text, plain=True)


def _filled(text: str, exchange: Exchange) -> str:
    texts = dict(zip((_REQUEST, _RESPONSE), exchange[:2], strict=True))
    return "".join(texts.get(part, part) for part in _TEXTS.split(text))


def published_text(row: GuardRow, question: Question) -> str:
    """The row's own text of the frame ("" where it has none)."""
    return (row.template or "").format(policy=question.policy, request=_REQUEST, response=_RESPONSE)


def prompt_text(row: GuardRow, exchange: Exchange, question: Question | None = None) -> str:
    """The whole prompt in the row's own text, for texts that are taken as they are."""
    return _filled(published_text(row, question or row.questions[0]), exchange)


def own_text(row: GuardRow, question: Question, tokenizer: Any) -> str:
    """The frame as the tokenizer's own chat template writes it ("" where that is no guard's of this row)."""
    import jinja2

    if row.sign not in str(getattr(tokenizer, "chat_template", None)):
        return ""
    # Some templates read only contents that are lists of parts, others only strings.
    for parts in (False, True):
        turns = [
            {"role": role, "content": [{"type": "text", "text": mark}] if parts else mark}
            for role, mark in (("user", _REQUEST), ("assistant", _RESPONSE))
        ]
        try:
            text = str(
                tokenizer.apply_chat_template(
                    turns,
                    tokenize=False,
                    add_generation_prompt=row.generation_prompt,
                    **row.options(question),
                )
            )
        except (jinja2.TemplateError, TypeError, KeyError, ValueError):
            continue
        if row.lead.startswith("\n"):
            text = text.rstrip("\n")  # the guard writes them itself
        frame = f"[^{_REQUEST}{_RESPONSE}]*"
        if re.fullmatch(f"{frame}{_REQUEST}{frame}{_RESPONSE}{frame}{re.escape(row.ends)}{_THINKING}", text):
            return text
    return ""


def messages(row: GuardRow, exchange: Exchange, question: Question) -> list[dict[str, str]]:
    """The turns that a server is sent, which puts its own chat template around them."""
    shown = Exchange(*(unspelled(neutral(text, row)) for text in exchange[:2]))
    if row.user_turn is None:
        return [{"role": "user", "content": shown.prompt}, {"role": "assistant", "content": shown.response}]
    opening, closing = row.user_turn
    text = published_text(row, question).partition(opening)[2].rpartition(closing.strip())[0].strip()
    return [{"role": "user", "content": _filled(text, shown)}]


def shared_start(frame: Frame) -> Sequence[int]:
    """The ids that all of a frame's prompts begin with, but for texts that melt into them."""
    first, second = (frame.encode(Exchange(text, text))[0] for text in ("Why not?", "2 or 3: go."))
    shared = next((at for at, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), 0)
    return first[:shared]
