"""What chat formats write between turns, taken out of text that is judged, so that it can steer no judge.

Only names on a closed list are taken out. Of what else stands between `<|` and `|>` the brackets are broken
and the words kept: an answer could otherwise say there what no judge may read.
"""

from __future__ import annotations

import re
import unicodedata

_NAMES = """
begin_of_text end_of_text start_of_text startoftext endoftext endofprompt end_of_document end_of_sentence
begin_of_sentence begin▁of▁sentence end▁of▁sentence bos eos eod pad unk padding fim_prefix fim_middle
fim_suffix fim_pad start_header_id end_header_id header_start header_end eot_id eom_id eot eom
finetune_right_pad_id finetune_right_pad im_start im_end im_sep im_user im_system im_assistant im_middle
start_of_role end_of_role start_of_turn end_of_turn start_of_turn_token end_of_turn_token user_token
chatbot_token system_token python_tag ipython user assistant system human end start
"""
CONTROL = frozenset(_NAMES.split())
"""Names that are dropped with their brackets, `<|im_start|>`; lower case. Beside a turn's own words (user,
end) none says anything."""

_NUMBERED = re.compile(r"(?:reserved_)?(?:special_token|extra|dummy)_\d{1,4}")
_BRACKETED = re.compile(r"<\|([^<>|]{1,40})\|>")
_WHOLE = re.compile(
    r"</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<(?:bos|eos|pad|unk)>|\[(?:CLS|SEP|PAD|UNK|MASK)\]"
)
_TURN = re.compile(
    r"^[ \t]*(?:#{1,4}[ \t]*)?(?:user|assistant|system|human|agent|instruction|response)[ \t]*:?[ \t]*$",
    re.I | re.M,
)
_TURN_PREFIX = re.compile(
    r"^[ \t]*(?:#{1,4}[ \t]*)?(?:user|assistant|system|human|agent)[ \t]*:[ \t]*", re.I | re.M
)
_CUT = "\ue002"
"""Stands where a forged turn was."""
LEAST_WORDS = 8
_LINE_ENDS = re.compile(r"\r\n?|[\x0b\x0c\x1c-\x1f\x85]")


def is_control(name: str) -> bool:
    """Whether what stands between `<|` and `|>` is a chat format's own name and no word of the text."""
    name = name.strip().casefold()
    return not name or name in CONTROL or _NUMBERED.fullmatch(name) is not None


def without_marks(text: str) -> str:
    """Text in one Unicode form, without control tokens, turn headers and invisible characters."""
    # What one pass takes out may leave a mark where its two halves meet.
    while (rest := _without(text, "\n", "")) != text:
        text = rest
    return text


def readings(text: str) -> list[str]:
    """What else an answer with forged turns could be: its parts between them, and all but its ends.

    None where no turn is forged. A refusal before or behind what harms, in a turn of its own, is so left out
    of at least one of them. A part of less than eight words says nothing by itself.
    """
    text = text.replace(_CUT, " ")
    while (rest := _without(text, f"\n{_CUT}\n", f"\n{_CUT}\n")) != text:
        text = rest
    parts = [part.strip() for part in text.split(_CUT) if part.strip()]
    if len(parts) < 2:
        return []
    runs = [[part] for part in parts] + [parts[1:], parts[:-1], parts[1:-1]]
    found = dict.fromkeys("\n".join(run) for run in runs)
    return [reading for reading in found if len(reading.split()) >= LEAST_WORDS]


def _without(text: str, for_token: str, for_turn: str) -> str:
    text = unicodedata.normalize("NFKC", text).replace("’", "'").replace("‘", "'")
    text = _LINE_ENDS.sub("\n", text)
    # First of all what is invisible: it would split a token's name.
    text = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cf", "Cc"))
    text = _BRACKETED.sub(
        lambda m: for_token if is_control(m[1]) else f" {m[1]} ", _WHOLE.sub(for_token, text)
    )
    return _TURN_PREFIX.sub(for_turn, _TURN.sub(for_turn, text))
