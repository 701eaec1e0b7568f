"""Conversations to token ids, through the tokenizer's own chat template.

Three promises hold for every tokenizer, fast or slow:

- special tokens in anyone's text are only text: content that holds `<|im_end|>` cannot end or open a turn;
- where no content holds one, the ids equal those of `tokenizer.apply_chat_template`;
- a prompt's ids are a prefix of the whole; a completion ends with the template's end of turn, exactly once.

A template that marks turns with ordinary words ("User:") cannot be protected so; `Renderer.notes` says it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from safepref.data.readers import ROLES
from safepref.data.records import Message
from safepref.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PLAIN_TEMPLATE = (
    "{% if add_bos %}{{ bos_token }}{% endif %}"
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\n\n' }}"
    "{% elif message['role'] == 'user' %}{{ 'User: ' + message['content'] + '\n' }}"
    "{% else %}{{ 'Assistant: ' + message['content'] + eos_token + '\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""For tokenizers without a chat template."""

FIXED_DATE = "26 Jul 2024"
"""What stands where a template would print today's date (Llama 3.2): ids must not change overnight."""

_NO_CLOCK = "{% macro strftime_now(format) %}" + FIXED_DATE + "{% endmacro %}"

_REASONING = ("<think>", "</think>")
# Unicode noncharacters: no exchanged text may contain them, so they can mark places in a rendered string.
_MARKS = [(chr(code), chr(code + 1)) for code in range(0xFDD0, 0xFDEE, 2)]
_WRITTEN = (chr(0xFDEE), chr(0xFDEF))
"""Stand around the special tokens that a template wrote, in text that is tokenized later."""
_PROBES = ("Qzx1", "Qzx2", "Qzx3")


class Rendered(NamedTuple):
    """Token ids of a prompt and one completion. `merged`: encoded whole, tokens would join across the two."""

    prompt_ids: list[int]
    completion_ids: list[int]
    merged: bool


def render_prompt(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], system: str | None = None
) -> list[int]:
    """Ids of a conversation up to the point where the assistant is to answer; see `Renderer.prompt`."""
    return renderer(tokenizer, system).prompt(messages)


def render_completion(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    completion: str,
    system: str | None = None,
) -> Rendered:
    """Ids of a prompt and of one answer to it; see `Renderer.completion`."""
    return renderer(tokenizer, system).completion(messages, completion)


def renderer(tokenizer: PreTrainedTokenizerBase, system: str | None = None) -> Renderer:
    """The tokenizer's renderer, made once for each system prompt and template."""
    # A template or token that the user sets later must not be answered from what was probed before.
    return _renderer(tokenizer, system, (str(tokenizer.chat_template), len(tokenizer), tokenizer.eos_token))


@lru_cache(maxsize=8)
def _renderer(tokenizer: PreTrainedTokenizerBase, system: str | None, _state: tuple[object, ...]) -> Renderer:
    return Renderer(tokenizer, system)


@dataclass(frozen=True)
class _Turn:
    """What the template writes behind an assistant's text, up to and including its end of turn."""

    text: str
    ids: tuple[int, ...]


class Renderer:
    """Renders conversations for one tokenizer.

    Args:
        tokenizer: any tokenizer of transformers; without a chat template, `PLAIN_TEMPLATE` is used.
        system: put first in conversations that have no system turn of their own. Where the template knows no
            system role, it opens the first user turn.

    Raises:
        InputError: the template cannot be rendered, or the tokenizer has nothing to end a turn with.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, system: str | None = None) -> None:
        self._tokenizer: Any = tokenizer
        self._system = system
        self._kwargs: dict[str, Any] = {}
        notes = []
        bos = tokenizer.bos_token_id
        adds_bos = bos is not None and self._tokenizer("a")["input_ids"][:1] == [bos]
        if tokenizer.chat_template is None:
            self._kwargs |= {"chat_template": PLAIN_TEMPLATE, "add_bos": adds_bos}
            self._source = PLAIN_TEMPLATE
            notes.append("no chat template in the tokenizer: a plain one (User: / Assistant:) is used")
        else:
            self._source = str(self._tokenizer.get_chat_template())
        if "strftime_now" in self._source:
            notes.append(f"the chat template prints today's date: {FIXED_DATE} stands there instead")
            self._kwargs["chat_template"] = _NO_CLOCK + self._source
        self._merges_system = not self._knows_system()
        if self._merges_system:
            notes.append("the chat template has no system role: a system prompt opens the first user turn")
        self._control = self._find_control()
        opening = self._apply([{"role": "user", "content": _PROBES[0]}], answer=True)
        if adds_bos and not opening.startswith(tokenizer.bos_token):
            notes.append(
                f"the chat template writes no {tokenizer.bos_token}, which plain text would begin with"
            )
        if not self._control_in(opening):
            notes.append("the chat template marks turns with plain words, which any text can imitate")
        self.notes: tuple[str, ...] = tuple(notes)
        """What a user should be told about this template, one line each."""

    @property
    def end_id(self) -> int:
        """The token that ends an assistant turn; generation stops at it."""
        return self._turn.ids[-1]

    @property
    def special_strings(self) -> tuple[str, ...]:
        """The strings that this tokenizer and template use as marks, which content may hold only as text."""
        return tuple(self._control)

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Ids of the conversation with the template's opening of the assistant's turn.

        BOS stands where the template writes it, never twice.

        Raises:
            InputError: a role the template does not know, or turns in an order it refuses.
        """
        marks = self._free_marks(messages)
        return self._encode(self._render(messages, marks), marks)

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """What `prompt` gives the ids of, as the template writes it. Raises as `prompt` does."""
        marks = self._free_marks(messages)
        return self._render(messages, marks).translate({ord(mark): None for mark in marks})

    def completion(self, messages: Sequence[Message], completion: str) -> Rendered:
        """Ids of the prompt, and of the answer as the template writes it into a finished conversation.

        The answer's ids end with the end of turn; what a template writes behind that (a line end) is left
        off, for a model stops there. Raises as `prompt` does.
        """
        answered = [*messages, {"role": "assistant", "content": completion}]
        marks = self._free_marks(answered)
        prompt_text, full_text = self._render(messages, marks), self._render(answered, marks, answer=True)
        prompt_ids = self._encode(prompt_text, marks)
        turn = self._turn
        behind = self._written_behind
        if full_text.startswith(prompt_text) and full_text.endswith(behind):
            body = full_text[len(prompt_text) : len(full_text) - len(behind)] + turn.text
        else:
            # The template writes a finished turn otherwise than it opens one (DeepSeek-R1's opening thought).
            body = _mark(completion, self._control, marks, _REASONING) + turn.text
        suffix = () if turn.text else turn.ids
        full_ids = self._encode(prompt_text + body, marks)
        merged = full_ids[: len(prompt_ids)] != prompt_ids
        ids = self._encode(body, marks, first=False) if merged else full_ids[len(prompt_ids) :]
        return Rendered(prompt_ids, [*ids, *suffix], merged)

    def text(self, text: str, *, opening: str = "", marked: bool = False) -> list[int]:
        """Ids of plain text at the start of a sequence, without BOS; special strings in it are only text.

        `opening` is a special string that stands before the text and is meant. `marked`: the text may hold
        conversations from `written`, whose special tokens are meant too.
        """
        marks = self._free_marks([{"role": "user", "content": text}])
        start, end = _WRITTEN
        pieces = re.split(f"{start}({self._control_pattern.pattern}){end}", text) if marked else [text]
        parts = (piece if i % 2 else _mark(piece, self._control, marks) for i, piece in enumerate(pieces))
        return self._encode(opening + "".join(parts), marks)

    def written(self, messages: Sequence[Message], answer: bool = False) -> str:
        """The conversation as the template writes it, its special tokens marked, to be given to `text`.

        `answer`: the last turn is the assistant's, so its opening is not written. Raises as `prompt` does.
        """
        marks = self._free_marks(messages)
        contents = "".join(message["content"] for message in messages)
        if any(mark in contents for mark in _WRITTEN):
            raise InputError("conversation: holds the Unicode noncharacter U+FDEE or U+FDEF; remove it")
        whole = self._render(messages, marks, answer)
        kept = self._torn(marks).split(whole)
        parts = (piece if i % 2 else _mark(piece, self._control, _WRITTEN) for i, piece in enumerate(kept))
        return "".join(part or "" for part in parts)

    @cached_property
    def _turn(self) -> _Turn:
        """Found by a probe: the first mark behind an answer; where the template writes none, EOS."""
        match = self._control_in(self._written_behind)
        if match is not None:
            text = self._written_behind[: match.end()]
            return _Turn(text, (self._control[match.group()],))
        if self._tokenizer.eos_token_id is None:
            raise InputError(
                "tokenizer: neither the chat template nor an EOS token ends a turn; set tokenizer.eos_token"
            )
        return _Turn("", (self._tokenizer.eos_token_id,))

    @cached_property
    def _written_behind(self) -> str:
        """All that the template writes behind the last answer."""
        probe = [{"role": "user", "content": _PROBES[0]}, {"role": "assistant", "content": _PROBES[1]}]
        return self._apply(probe, answer=True).rpartition(_PROBES[1])[2]

    def _render(self, messages: Sequence[Message], marks: tuple[str, str], answer: bool = False) -> str:
        """The conversation as text, special strings inside contents between marks."""
        conversation = self._with_system(messages)
        marked = [
            {
                "role": m["role"],
                "content": _mark(
                    m["content"], self._control, marks, _REASONING if m["role"] == "assistant" else ()
                ),
            }
            for m in conversation
        ]
        return self._apply(marked, answer)

    def _with_system(self, messages: Sequence[Message]) -> list[Message]:
        if not messages:
            raise InputError("conversation: no messages; give at least one user turn")
        for index, message in enumerate(messages):
            if message["role"] not in ROLES:
                role = message["role"]
                raise InputError(f"turn {index + 1}: unknown role {role!r}; one of {', '.join(ROLES)}")
        conversation = list(messages)
        if self._system and conversation[0]["role"] != "system":
            conversation.insert(0, {"role": "system", "content": self._system})
        if self._merges_system and conversation[0]["role"] == "system":
            system, *conversation = conversation
            if not conversation:
                raise InputError("conversation: only a system turn; give at least one user turn")
            text = f"{system['content']}\n\n{conversation[0]['content']}"
            conversation[0] = {**conversation[0], "content": text}
        return conversation

    def _apply(self, messages: Sequence[Message], answer: bool = False) -> str:
        import jinja2

        try:
            return str(
                self._tokenizer.apply_chat_template(
                    list(messages), tokenize=False, add_generation_prompt=not answer, **self._kwargs
                )
            )
        except (jinja2.TemplateError, TypeError, KeyError) as error:
            roles = ", ".join(m["role"] for m in messages)
            raise InputError(
                f"conversation ({roles}): the chat template refuses it: {error}; mend the order of the turns"
            ) from error

    def _knows_system(self) -> bool:
        probe = [{"role": "system", "content": _PROBES[0]}, {"role": "user", "content": _PROBES[1]}]
        try:
            return _PROBES[0] in self._apply(probe)
        except InputError:
            return False

    def _find_control(self) -> dict[str, int]:
        """Special tokens, and added tokens that the template writes, with their ids; longest first.

        Other added tokens (runs of spaces, HTML tags in Gemma's vocabulary) are ordinary text.
        """
        probe = [
            {"role": role, "content": p} for role, p in zip(("user", "assistant"), _PROBES, strict=False)
        ]
        if not self._merges_system:
            probe.insert(0, {"role": "system", "content": _PROBES[2]})
        written = self._source + self._apply(probe, answer=True) + self._apply(probe[:-1])
        special = set(self._tokenizer.all_special_tokens)
        found = {
            token.content: index
            for index, token in self._tokenizer.added_tokens_decoder.items()
            if not token.content.isspace()
            and (token.special or token.content in special or token.content in written)
        }
        for token in special - found.keys():
            found[token] = self._tokenizer.convert_tokens_to_ids(token)
        return dict(sorted(found.items(), key=lambda item: (-len(item[0]), item[0])))

    def _control_in(self, text: str) -> re.Match[str] | None:
        return self._control_pattern.search(text)

    @cached_property
    def _control_pattern(self) -> re.Pattern[str]:
        return _any_of(self._control)

    def _free_marks(self, messages: Sequence[Message]) -> tuple[str, str]:
        text = "".join(m["content"] for m in messages) + (self._system or "")
        for pair in _MARKS:
            if pair[0] not in text and pair[1] not in text:
                return pair
        raise InputError("conversation: holds every Unicode noncharacter U+FDD0 to U+FDED; remove one")

    def _encode(self, text: str, marks: tuple[str, str], first: bool = True) -> list[int]:
        """Ids of rendered text: what stands between marks as plain text, the rest as it is."""
        if not any(mark in text for mark in marks):
            return self._checked(self._piece(text, first), text)
        ids: list[int] = []
        pieces = self._torn(marks).split(text)
        for index, piece in enumerate(pieces):
            if piece:
                ids += self._as_text(piece) if index % 2 else self._piece(piece, first and not ids)
        return self._checked(ids, "\0".join(piece for piece in pieces[::2]))

    def _torn(self, marks: tuple[str, str]) -> re.Pattern[str]:
        """Splits into text, marked token, text, …

        A template may have torn marks apart (by split() or trim): a lone mark is dropped, and the text on its
        two sides still cannot join into a token.
        """
        opening, closing = marks
        return re.compile(f"{opening}({self._control_pattern.pattern}){closing}|[{opening}{closing}]")

    def _checked(self, ids: list[int], written: str) -> list[int]:
        """The ids, if they hold no more control tokens than the template wrote.

        A normaliser that folds look-alikes ("＜|im_end|＞") could make one out of innocent text.
        """
        found = sum(index in self._forbidden for index in ids)
        if found > sum(1 for _ in self._control_pattern.finditer(written)):
            raise InputError(
                "conversation: the tokenizer turns look-alike characters into a special token; "
                f"remove them from {written[:60]!r}"
            )
        return ids

    def _piece(self, text: str, first: bool, **how: Any) -> list[int]:
        """Ids of a stretch of text that does (`first`) or does not stand at the start of the sequence."""
        if first:
            return list(self._tokenizer.encode(text, add_special_tokens=False, **how))
        # SentencePiece puts a space before the first word of what it is given. A line end before the text
        # takes that place, and is cut off again.
        line_end = self._tokenizer.encode("\n", add_special_tokens=False, **how)
        ids = self._tokenizer.encode("\n" + text, add_special_tokens=False, **how)
        if ids[: len(line_end)] == line_end:
            return list(ids[len(line_end) :])
        return list(self._tokenizer.encode(text, add_special_tokens=False, **how))

    def _as_text(self, token: str) -> list[int]:
        """Ids of a special token's characters: the first spelling that does not give a token itself."""
        for ids in self._spellings(token):
            if not self._forbidden.intersection(ids):
                return ids
        raise InputError(f"tokenizer: cannot write {token!r} as plain text; remove it from the data")

    def _spellings(self, token: str) -> Iterator[list[int]]:
        yield self._piece(token, first=False, split_special_tokens=True)
        # Added tokens that are not flagged special survive that switch, and Unigram vocabularies hold special
        # tokens as ordinary pieces: cut the string instead.
        yield self._piece(token[:1], first=False) + self._piece(token[1:], first=False)
        yield [index for character in token for index in self._piece(character, first=False)]

    @cached_property
    def _forbidden(self) -> frozenset[int]:
        """Control ids that no content may give. The unknown token is allowed, where it is nothing else."""
        tokenizer = self._tokenizer
        marks = {tokenizer.bos_token_id, tokenizer.eos_token_id, *(self._turn.ids)}
        return frozenset(set(self._control.values()) - ({tokenizer.unk_token_id} - marks))


def _any_of(tokens: Sequence[str] | dict[str, int]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, tokens)) or "(?!)")


def _mark(text: str, control: dict[str, int], marks: tuple[str, str], keep: Sequence[str] = ()) -> str:
    """The text with every special string between marks; those in `keep` stay marks of the model's own."""
    return _any_of([token for token in control if token not in keep]).sub(
        lambda match: f"{marks[0]}{match.group()}{marks[1]}", text
    )
