"""The user's own prompts and preference pairs, out of files in the formats that the field uses.

Pairs: TRL's preference formats, standard (`prompt`, `chosen`, `rejected` as text) and conversational (lists
of messages), each with an explicit prompt or with one implied by what chosen and rejected begin with in
common; and HH-RLHF's dialogues (`\\n\\nHuman:` and `\\n\\nAssistant:` turns, arXiv 2204.05862).
Prompts: a row with `prompt`, `text`, `question`, `instruction`, `goal`, `behavior` or `messages`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from safepref.data.records import Message, Pair, PairKind, Prompt, PromptKind, content_id
from safepref.data.rows import Row, RowError, Where, iter_rows
from safepref.errors import InputError
from safepref.taxonomy import load_taxonomy

ROLES = ("system", "user", "assistant")
PROMPT_FIELDS = ("prompt", "messages", "text", "question", "instruction", "goal", "behavior")
CATEGORY_FIELDS = ("category", "micro_category", "harm_category", "topic")

_HH_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")
_HH_ROLES = {"Human": "user", "Assistant": "assistant"}
_ALERT_WRAPPER = re.compile(r"^### Instruction:\n(.*?)\n### Response:\s*$", re.DOTALL)

Record = TypeVar("Record", Pair, Prompt)


def read_pairs(path: Path | str) -> list[Pair]:
    """Every pair of a file.

    Raises:
        InputError: the first bad row, as one line with file, row, field, value and mend.
    """
    return _all(iter_pairs(Path(path)))


def read_prompts(path: Path | str, kind: PromptKind = "harmful", source: str | None = None) -> list[Prompt]:
    """Every prompt of a file, as prompts of `kind`.

    A row whose own `label` says the opposite (`safe` where harmful prompts are wanted, `unsafe` where
    harmless ones are: XSTest's column) is left out, so that one file can serve both sides.

    Raises:
        InputError: the first bad row, or no row of that kind.
    """
    prompts = _all(iter_prompts(Path(path), kind))
    unwanted = {"harmful": "safe", "harmless": "unsafe"}.get(kind)
    kept = [prompt for prompt, label in prompts if unwanted is None or label != unwanted]
    if not kept:
        raise InputError(f"{path}: no {kind} prompt (every row has label {unwanted!r}); give another file")
    return kept if source is None else [replace(prompt, source=source) for prompt in kept]


def iter_pairs(path: Path) -> Iterator[tuple[Where, Pair | RowError]]:
    """Each row of a file as a pair, or as the error that it is; for the data doctor, which wants them all."""
    return ((where, _parsed(parse_pair, row, where)) for where, row in iter_rows(path))


def iter_prompts(path: Path, kind: PromptKind) -> Iterator[tuple[Where, tuple[Prompt, str] | RowError]]:
    """Each row of a file as (prompt, its own label or ""), or as the error that it is."""

    def parse(row: Row, where: Where) -> tuple[Prompt, str]:
        return parse_prompt(row, where, kind), str(row.get("label", "")).strip().casefold()

    return ((where, _parsed(parse, row, where)) for where, row in iter_rows(path))


def parse_pair(row: Row, where: Where) -> Pair:
    """One row in any of the formats above.

    Optional fields: `category`, `kind` (harmful, harmless, ordinary, preference), `weight` (above 0),
    `attack`, `meta`.

    Raises:
        RowError: what is wrong with the row.
    """
    for name in ("chosen", "rejected"):
        if row.get(name) is None:
            raise RowError(where, name, "missing", _pair_mend(row, name))
    field = _prompt_field(row)
    if field is None:
        prompt, chosen, rejected = _implied(row, where)
    else:
        prompt = _conversation(row[field], where, field, ends_with="user")
        chosen, rejected = (_completion(row[name], prompt, where, name) for name in ("chosen", "rejected"))
    for name, text in (("chosen", chosen), ("rejected", rejected)):
        if not text.strip():
            raise RowError(where, name, "empty", "give an answer or remove the row", text)
    if chosen == rejected:
        raise RowError(where, "rejected", "equal to chosen", "give two different answers", rejected)
    kind = row.get("kind", "preference")
    if kind not in get_args(PairKind):
        raise RowError(where, "kind", "unknown", f"one of {', '.join(get_args(PairKind))}", kind)
    return Pair(
        id=content_id(json.dumps(prompt, sort_keys=True), chosen, rejected),
        messages=prompt,
        chosen=chosen,
        rejected=rejected,
        kind=kind,
        category=_category(row, where),
        attack=_optional_text(row, "attack", where),
        template=_optional_text(row, "template", where) or "",
        source=_optional_text(row, "source", where) or Path(where.file).stem,
        weight=_weight(row, where),
        meta={**_meta(row), "file": where.file, "row": where.row},
    )


def _meta(row: Row) -> dict[str, Any]:
    found = row.get("meta")
    return found if isinstance(found, dict) else {}


def parse_prompt(row: Row, where: Where, kind: PromptKind) -> Prompt:
    """One row as a prompt; `instruction` may come with an `input`, and `prompt` as an object with `text`.

    Raises:
        RowError: what is wrong with the row.
    """
    field = _prompt_field(row)
    if field is None:
        mend = f"name the request one of {', '.join(PROMPT_FIELDS)}"
        raise RowError(where, "prompt", "missing", mend, sorted(map(str, row)))
    value = row[field]
    if field == "prompt" and isinstance(value, dict) and "text" in value:
        field, value = "prompt.text", value["text"]
    messages = _conversation(value, where, field, ends_with="user")
    if field == "instruction" and row.get("input"):
        extra = _text(row["input"], where, "input")
        messages = (*messages[:-1], {"role": "user", "content": f"{messages[-1]['content']}\n\n{extra}"})
    identity = content_id(kind, json.dumps(messages, sort_keys=True))
    return Prompt(
        id=identity,
        messages=messages,
        kind=kind,
        category=_category(row, where),
        base_id=identity,
        template=_optional_text(row, "template", where) or "",
        source=_optional_text(row, "source", where) or Path(where.file).stem,
    )


def parse_dialogue(text: str) -> tuple[Message, ...] | None:
    """An HH-RLHF dialogue as messages, or None where the text is none."""
    first = _HH_TURN.search(text)
    if first is None or text[: first.start()].strip():
        return None
    parts = _HH_TURN.split(text)[1:]
    return tuple(
        {"role": _HH_ROLES[who], "content": said.strip()}
        for who, said in zip(parts[::2], parts[1::2], strict=True)
    )


def strip_wrapper(text: str) -> str:
    """A request without the `### Instruction:` and `### Response:` lines that ALERT puts round it."""
    match = _ALERT_WRAPPER.match(text)
    return match.group(1) if match else text


def check_messages(
    messages: Any, where: Where, field: str, ends_with: Literal["user", "assistant"]
) -> tuple[Message, ...]:
    """Messages in the one shape that is allowed: an optional system turn, then user and assistant in turns.

    Raises:
        RowError: a wrong role, an order that is none, an empty or non-text content.
    """
    if not messages:
        raise RowError(where, field, "no messages", 'give [{"role": "user", "content": "…"}]', messages)
    out: list[Message] = []
    for index, message in enumerate(messages):
        name = f"{field}[{index}]"
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise RowError(where, name, "not a message", 'write {"role": …, "content": …}', message)
        role = message["role"]
        if role not in ROLES:
            raise RowError(where, f"{name}.role", "wrong role", f"one of {', '.join(ROLES)}", role)
        before = out[-1]["role"] if out else None
        if role == "system" and before is not None:
            raise RowError(where, f"{name}.role", "system turn after the start", "put it first", role)
        if role == before or (role == "assistant" and before in (None, "system")):
            mend = "let user and assistant take turns, the user first"
            raise RowError(where, f"{name}.role", f"{role} turn after {before or 'nothing'}", mend, role)
        content = _text(message["content"], where, f"{name}.content")
        if role != "system" and not content.strip():
            raise RowError(where, f"{name}.content", "empty", "write the turn or remove the row", content)
        out.append({"role": role, "content": content})
    if out[-1]["role"] != ends_with:
        raise RowError(
            where, field, f"ends with the {out[-1]['role']} turn", f"end with the {ends_with} turn"
        )
    return tuple(out)


def _all(rows: Iterator[tuple[Where, Any]]) -> list[Any]:
    out = []
    for _, found in rows:
        if isinstance(found, RowError):
            raise found
        out.append(found)
    return out


def _parsed(parse: Any, row: Row | RowError, where: Where) -> Any:
    if isinstance(row, RowError):
        return row
    try:
        return parse(row, where)
    except RowError as error:
        return error


def _pair_mend(row: Row, name: str) -> str:
    if "completion" in row and "label" in row:
        return "unpaired rows (completion, label) cannot be used; give chosen and rejected for each prompt"
    return f'add "{name}", or remove the row (fields found: {", ".join(map(str, row)) or "none"})'


def _prompt_field(row: Row) -> str | None:
    return next((name for name in PROMPT_FIELDS if row.get(name) is not None), None)


def _text(value: Any, where: Where, field: str) -> str:
    if not isinstance(value, str):
        kind = "null" if value is None else type(value).__name__
        raise RowError(where, field, f"expected text, got {kind}", "write it as a string", value)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        mend = "save the file again as UTF-8"
        raise RowError(
            where, field, "half of a surrogate pair, which no tokenizer reads", mend, value
        ) from None
    return value


def _conversation(
    value: Any, where: Where, field: str, ends_with: Literal["user", "assistant"]
) -> tuple[Message, ...]:
    """Text (one user turn, or an HH dialogue) or a list of messages."""
    if isinstance(value, list | tuple):
        return check_messages(value, where, field, ends_with)
    text = strip_wrapper(_text(value, where, field))
    if not text.strip():
        raise RowError(where, field, "empty", "write the request or remove the row", text)
    dialogue = parse_dialogue(text)
    if dialogue is None:
        return ({"role": "user", "content": text},)
    if ends_with == "user" and dialogue[-1] == {"role": "assistant", "content": ""}:
        dialogue = dialogue[:-1]
    return check_messages(dialogue, where, field, ends_with)


def _completion(value: Any, prompt: Sequence[Message], where: Where, field: str) -> str:
    """The answer: text, one assistant message, or a whole dialogue that begins with the prompt."""
    if isinstance(value, str):
        dialogue = parse_dialogue(_text(value, where, field))
        if dialogue is None:
            return value
        value = list(dialogue)
    if not isinstance(value, list | tuple):
        return _text(value, where, field)
    rest = list(value)
    if rest[: len(prompt)] == list(prompt):
        rest = rest[len(prompt) :]
    if len(rest) != 1:
        problem = f"{len(rest)} turns after the prompt"
        raise RowError(where, field, problem, "give exactly one assistant turn", value)
    message = rest[0]
    if not isinstance(message, dict) or message.get("role") != "assistant":
        role = message.get("role") if isinstance(message, dict) else message
        raise RowError(where, f"{field}[-1].role", "wrong role", "the answer's role is assistant", role)
    return _text(message.get("content"), where, f"{field}[-1].content")


def _implied(row: Row, where: Where) -> tuple[tuple[Message, ...], str, str]:
    """Prompt and answers where the prompt is only what chosen and rejected begin with in common."""
    sides: list[Any] = []
    for name in ("chosen", "rejected"):
        value = row[name]
        if isinstance(value, str):
            value = parse_dialogue(_text(value, where, name)) or value
        if isinstance(value, list | tuple):
            value = check_messages(value, where, name, "assistant")
        elif not isinstance(value, str):
            _text(value, where, name)
        sides.append(value)
    chosen, rejected = sides
    if isinstance(chosen, str) and isinstance(rejected, str):
        return _implied_text(chosen, rejected, where)
    if isinstance(chosen, str) or isinstance(rejected, str):
        mend = "write both as text or both as messages"
        raise RowError(where, "rejected", "chosen and rejected differ in kind", mend)
    # All but the last turns must be the prompt: what differs earlier is a different conversation.
    if chosen[:-1] != rejected[:-1]:
        shared = next(
            (i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b),
            min(len(chosen), len(rejected)),
        )
        problem = f"the conversations part at turn {shared + 1} of {len(chosen)} and {len(rejected)}"
        raise RowError(where, "rejected", problem, "let only the last assistant turn differ")
    return chosen[:-1], chosen[-1]["content"], rejected[-1]["content"]


def _implied_text(chosen: str, rejected: str, where: Where) -> tuple[tuple[Message, ...], str, str]:
    """TRL's rule for text without a prompt: the common beginning, cut back to a whole word."""
    pairs = zip(chosen, rejected, strict=False)
    end = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(chosen), len(rejected)))
    while 0 < end < max(len(chosen), len(rejected)) and not chosen[end - 1].isspace():
        end -= 1
    prompt = chosen[:end].strip()
    if not prompt:
        raise RowError(where, "prompt", "missing", "add the request that both answer")
    return ({"role": "user", "content": prompt},), chosen[end:].strip(), rejected[end:].strip()


def _category(row: Row, where: Where) -> str | None:
    found = next((text for name in CATEGORY_FIELDS if (text := _optional_text(row, name, where))), None)
    return None if found is None else _spelled(found)


@cache
def _spelled(category: str) -> str:
    """A category in the taxonomy's spelling where it is one of ALERT's, else as it stands."""
    try:
        return load_taxonomy().normalise(category)
    except InputError:
        return category


def _optional_text(row: Row, name: str, where: Where) -> str | None:
    value = row.get(name)
    return None if value is None else _text(value, where, name)


def _weight(row: Row, where: Where) -> float:
    value = row.get("weight", 1.0)
    try:
        weight = float(value)
    except (TypeError, ValueError):
        weight = math.nan
    if isinstance(value, bool) or not (0 < weight < math.inf):
        raise RowError(where, "weight", "not a number above 0", "give for example 1.0", value)
    return weight
