"""The single checks of the data doctor; each takes records with their places and returns findings."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from safepref.data.findings import Finding, bad_row, error, warning
from safepref.data.limits import Limits
from safepref.data.near import near_duplicates, normalised, template_keys
from safepref.data.readers import check_messages
from safepref.data.records import Message, Pair, Prompt
from safepref.data.render import renderer
from safepref.data.rows import RowError, Where, show
from safepref.data.splits import request

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# What models of several families use as marks: without a tokenizer, its own are not known.
_SPECIAL = re.compile(
    r"<\|[\w -]{1,40}\|>|<｜[^<>｜]{1,40}｜>|</?s>|<(?:start|end)_of_turn>|<(?:bos|eos|pad|unk)>"
    r"|\[/?INST\]|<</?SYS>>"
)
_HARMLESS_SHARE = 1 / 3
_ONE_CATEGORY_SHARE = 0.5
_BALANCE_FROM = 20
_NEAR_EVALUATION = 0.9


def messages(conversation: Sequence[Message], where: Where) -> list[Finding]:
    """Wrong roles, an order of turns that is none, empty turns, text that is no string."""
    try:
        check_messages(list(conversation), where, "messages", "user")
    except RowError as problem:
        return [bad_row(problem)]
    return []


def completions(named: Sequence[tuple[str, object]], where: Where) -> list[Finding]:
    """Empty answers, and answers with white space round them."""
    findings = []
    for name, text in named:
        if not isinstance(text, str) or not text.strip():
            mend = "give an answer or remove the row"
            findings.append(error(where, name, "empty or not text", mend, text))
        elif text != text.strip():
            mend = "strip it, unless the space is meant to be learned"
            findings.append(warning(where, name, "begins or ends with white space", mend, text))
    return findings


def answers(pair: Pair, where: Where) -> list[Finding]:
    """Both answers of a pair, which must differ."""
    findings = completions((("chosen", pair.chosen), ("rejected", pair.rejected)), where)
    if not all(isinstance(text, str) for text in (pair.chosen, pair.rejected)):
        return findings
    mend = "give two different answers"
    if pair.chosen == pair.rejected:
        findings.append(error(where, "rejected", "equal to chosen", mend, pair.rejected))
    elif normalised(pair.chosen) == normalised(pair.rejected):
        problem = "equal to chosen but for case, punctuation or spacing"
        findings.append(warning(where, "rejected", problem, mend, pair.rejected))
    return findings


def texts(
    named: Sequence[tuple[str, object]], where: Where, tokenizer: PreTrainedTokenizerBase | None
) -> list[Finding]:
    """Special-token strings, control characters, and text that cannot be encoded."""
    findings = []
    own = renderer(tokenizer).special_strings if tokenizer is not None else ()
    for name, text in named:
        if not isinstance(text, str):
            continue
        match = _SPECIAL.search(text)
        special = next((token for token in own if token in text), match and match.group())
        if special:
            mend = "it is kept as plain text; remove it if it is left over from a chat log"
            findings.append(warning(where, name, f"holds the special token {special}", mend, text))
        control = next((c for c in text if unicodedata.category(c) == "Cc" and c not in "\n\t\r"), None)
        if control is not None:
            problem = f"holds the control character U+{ord(control):04X}"
            findings.append(warning(where, name, problem, "remove it", text))
        if "\ufffd" in text:
            problem = "holds U+FFFD, the mark of bytes that were not UTF-8"
            findings.append(warning(where, name, problem, "read the source in its right encoding", text))
        if any(0xD800 <= ord(c) < 0xE000 for c in text):
            problem = "half of a surrogate pair, which no tokenizer reads"
            findings.append(error(where, name, problem, "save the file again as UTF-8"))
    return findings


def repeated_pairs(pairs: Sequence[Pair], places: Sequence[Where]) -> list[Finding]:
    """Pairs that stand twice, and pairs that prefer the opposite of another."""
    findings = []
    seen: dict[tuple[str, str, str], Where] = {}
    for pair, where in zip(pairs, places, strict=True):
        conversation = _conversation(pair.messages)
        key = (conversation, pair.chosen, pair.rejected)
        opposite = seen.get((conversation, pair.rejected, pair.chosen))
        if key in seen:
            findings.append(
                warning(where, "", f"repeats {_place(seen[key], where)}", "remove one", request(pair))
            )
        elif opposite is not None and pair.chosen != pair.rejected:
            problem = f"prefers the opposite of {_place(opposite, where)}"
            findings.append(error(where, "chosen", problem, "keep the one that is right", request(pair)))
        seen.setdefault(key, where)
    return findings


def balance(pairs: Sequence[Pair], file: str) -> list[Finding]:
    """Weighted shares of the kinds of pairs and of the harmful ones' categories."""
    where = Where(file, 0)
    findings: list[Finding] = []
    kinds: defaultdict[str, float] = defaultdict(float)
    categories: defaultdict[str, float] = defaultdict(float)
    for pair in pairs:
        kinds[pair.kind] += pair.weight
        if pair.kind == "harmful" and pair.category:
            categories[pair.category] += pair.weight
    share = kinds["harmless"] / (sum(kinds.values()) or 1.0)
    if share > _HARMLESS_SHARE + 1e-9:
        mend = "at most a third: refusals are their rejected side, and too many unlearn refusing"
        findings.append(warning(where, "kind", f"{share:.0%} of the pairs are harmless", mend))
    if kinds["harmful"] and not kinds["harmless"]:
        mend = "add harmless look-alikes, or the model learns to refuse everything"
        findings.append(warning(where, "kind", "no harmless pair beside the harmful ones", mend))
    if len(pairs) >= _BALANCE_FROM and len(categories) > 1:
        name = max(categories, key=categories.__getitem__)
        share = categories[name] / sum(categories.values())
        if share > _ONE_CATEGORY_SHARE:
            mend = "sample evenly over categories"
            findings.append(warning(where, "category", f"{share:.0%} of the harmful pairs are {name}", mend))
    return findings


def against(
    records: Sequence[Pair] | Sequence[Prompt],
    evaluation: Sequence[Prompt],
    places: Sequence[Where],
    *,
    templates: bool = True,
) -> list[Finding]:
    """Training against evaluation: the same request, a near-duplicate, the same template.

    `templates` is False for records that no longer carry theirs: found anew, they would be too wide.
    """
    if not records or not evaluation:
        return []
    requests, held_out = [request(r) for r in records], [p.text for p in evaluation]
    exact = {normalised(text) for text in held_out}
    near: dict[int, tuple[float, str]] = {}
    for i, j, cosine in near_duplicates(requests, held_out, _NEAR_EVALUATION):
        near[i] = max(near.get(i, (0.0, "")), (cosine, held_out[j]))
    keys = _templates([*records, *evaluation]) if templates else []
    evaluated = set(keys[len(requests) :])
    findings = []
    mend = "remove it from training: evaluation would measure memory"
    for index, (text, where) in enumerate(zip(requests, places, strict=True)):
        if normalised(text) in exact:
            findings.append(error(where, "prompt", "also stands in evaluation", mend, text))
        elif index in near:
            cosine, other = near[index]
            problem = f"nearly an evaluation prompt (word cosine {cosine:.2f}: {show(other)})"
            findings.append(error(where, "prompt", problem, mend, text))
        elif templates and keys[index] in evaluated:
            problem = f'its template "{keys[index]}" also stands in evaluation'
            findings.append(error(where, "prompt", problem, "remove it, or split by template", text))
    return findings


def repeated_prompts(prompts: Sequence[tuple[Prompt, Where]]) -> list[Finding]:
    """Prompts that stand twice; in two splits, that is an error."""
    findings = []
    seen: dict[str, tuple[Prompt, Where]] = {}
    for prompt, where in prompts:
        key = _conversation(prompt.messages, by_words=True)
        if key not in seen:
            seen[key] = (prompt, where)
            continue
        first, place = seen[key]
        if first.split != prompt.split:
            problem = f"stands in {prompt.split} and, at {_place(place, where)}, in {first.split}"
            findings.append(error(where, "prompt", problem, "keep it in one split", prompt.text))
        else:
            findings.append(
                warning(where, "prompt", f"repeats {_place(place, where)}", "remove one", prompt.text)
            )
    return findings


def shared_templates(prompts: Sequence[tuple[Prompt, Where]]) -> list[Finding]:
    """Training prompts whose template also stands in another split."""
    keys = _templates([prompt for prompt, _ in prompts])
    splits: dict[str, set[str]] = defaultdict(set)
    for (prompt, _), key in zip(prompts, keys, strict=True):
        splits[key].add(prompt.split)
    findings = []
    for (prompt, where), key in zip(prompts, keys, strict=True):
        others = sorted(splits[key] - {"train"})
        if prompt.split == "train" and others:
            problem = f'its template "{key}" also stands in {", ".join(others)}'
            findings.append(error(where, "prompt", problem, "split by template", prompt.text))
    return findings


def tokens(
    rows: Sequence[tuple[tuple[Sequence[Message], Mapping[str, str]], Where]],
    tokenizer: PreTrainedTokenizerBase,
    limits: Limits | None,
    system: str | None,
    file: str,
) -> list[Finding]:
    """BOS and end-of-turn counts, the boundary of prompt and completion, and what the limits cut.

    A row is a conversation with its answers by the names of their fields, and its place.
    """
    render = renderer(tokenizer, system)
    mend = "nothing to do if this is meant; otherwise set tokenizer.chat_template"
    findings = [warning(Where(file, 0), "", note, mend) for note in render.notes]
    bos, end = tokenizer.bos_token_id, render.end_id
    for (conversation, named), where in rows:
        for name, text in named.items():
            ids = render.completion(conversation, text)
            ends = ids.completion_ids.count(end)
            if ends != 1 or ids.completion_ids[-1] != end:
                problem = f"{ends} ends of turn, where one belongs at the end"
                findings.append(error(where, name, problem, "mend the chat template", text))
            if ids.merged:
                problem = "its first token would merge with the prompt's last; they are encoded apart"
                findings.append(warning(where, name, problem, "strip white space at its start", text))
            if limits is not None and len(ids.completion_ids) > limits.max_completion:
                findings.append(_cut(where, name, len(ids.completion_ids), limits.max_completion))
        if bos is not None and ids.prompt_ids[:2] == [bos, bos]:
            findings.append(
                error(where, "prompt", "begins with BOS twice", "remove one from the chat template")
            )
        if limits is not None and len(ids.prompt_ids) > limits.max_prompt:
            findings.append(_cut(where, "prompt", len(ids.prompt_ids), limits.max_prompt))
    return findings


def long_prompts(
    prompts: Sequence[tuple[Prompt, Where]],
    tokenizer: PreTrainedTokenizerBase,
    limits: Limits,
    system: str | None,
) -> list[Finding]:
    """Prompts that the limit cuts."""
    render = renderer(tokenizer, system)
    lengths = ((len(render.prompt(prompt.messages)), where) for prompt, where in prompts)
    return [_cut(where, "prompt", n, limits.max_prompt) for n, where in lengths if n > limits.max_prompt]


def _place(first: Where, where: Where) -> str:
    """Where a row's twin stands, seen from that row."""
    if first.row and first.file == where.file:
        return f"row {first.row}"
    return f"{first.file}:{first.row}" if first.row else first.file


def _templates(records: Sequence[Pair | Prompt]) -> list[str]:
    """The templates that the records carry; where one carries none, keys found over all of them.

    Carried keys are trusted: found anew over a sample, a family may come out larger than over the whole set.
    """
    known = [record.template for record in records]
    return known if all(known) else template_keys([request(record) for record in records], known)


def _conversation(conversation: Sequence[Message], by_words: bool = False) -> str:
    return "\x1e".join(
        f"{m['role']}\x1f{normalised(m['content']) if by_words else m['content']}" for m in conversation
    )


def _cut(where: Where, field: str, length: int, limit: int) -> Finding:
    problem = f"{length} tokens, more than the limit of {limit}"
    return warning(where, field, problem, "shorten it, or raise the limit")
