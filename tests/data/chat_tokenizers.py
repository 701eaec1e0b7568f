"""Small tokenizers, trained on the spot, with chat templates of the kinds that models have."""

from __future__ import annotations

from functools import cache
from typing import Any

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

_TEXT = [
    "How do I bake bread? Mix flour, water, salt and yeast, then wait.",
    "I can't help with that, but I can tell you where to find help.",
    "You are a helpful assistant. Answer the user's questions briefly.",
    "User: Falcon: assistant model system user <| im_ start end header id eot |> [ / ] INST of turn",
] * 3

CHATML = (
    "{% for m in messages %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{% set loop_messages = messages %}{% for m in loop_messages %}"
    "{% set content = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim"
    " + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    "{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
FALCON = (
    "{% for m in messages %}{% if not loop.first %}{{ '\n' }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ 'User: ' + m['content'] }}"
    "{% elif m['role'] == 'assistant' %}{{ 'Falcon: ' + m['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\nFalcon:' }}{% endif %}"
)
LLAMA2 = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'system' %}{{ raise_exception('Only user and assistant roles are supported!') }}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
PHI = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
DATED = (
    "{{ bos_token }}{% if strftime_now is defined %}"
    "{{ 'Today: ' + strftime_now('%d %b %Y') + '\n' }}{% endif %}" + CHATML
)


def _byte_level(special: list[str], plain: tuple[str, ...] = (), bos: str | None = None) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXT, trainer)
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in plain])
    if bos is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return tokenizer


def _sentencepiece(special: list[str], bos: str, *, unigram: bool = False) -> Tokenizer:
    """Words begin with ▁, and the text does too, as Llama 2's and T5's tokenizers have it."""
    tokenizer = Tokenizer(models.Unigram() if unigram else models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.NFKC() if unigram else None
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    alphabet = [chr(code) for code in range(33, 127)] + ["▁", "\n", "é"]
    trainer: Any
    if unigram:
        trainer = trainers.UnigramTrainer(
            vocab_size=240,
            special_tokens=special,
            initial_alphabet=alphabet,
            unk_token="<unk>",
            show_progress=False,
        )
    else:
        trainer = trainers.BpeTrainer(
            vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
    tokenizer.train_from_iterator(_TEXT, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    return tokenizer


def _wrap(tokenizer: Tokenizer, template: str | None, **special: str) -> PreTrainedTokenizerFast:
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    wrapped.chat_template = template
    return wrapped


@cache
def make(name: str) -> Any:
    """The tokenizer of that family; the same object each time."""
    if name == "chatml":
        return _wrap(
            _byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]),
            CHATML,
            eos_token="<|im_end|>",
            pad_token="<|endoftext|>",
        )
    if name in ("llama3", "dated"):
        special = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
        special += ["<|im_start|>", "<|im_end|>"]
        return _wrap(
            _byte_level(special, bos="<|begin_of_text|>"),
            LLAMA3 if name == "llama3" else DATED,
            bos_token="<|begin_of_text|>",
            eos_token="<|eot_id|>",
        )
    if name == "gemma":
        special = ["<bos>", "<eos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
        return _wrap(
            _byte_level(special, plain=("\n\n", "<table>"), bos="<bos>"),
            GEMMA,
            bos_token="<bos>",
            eos_token="<eos>",
            unk_token="<unk>",
        )
    if name == "falcon":
        return _wrap(_byte_level(["<|endoftext|>"]), FALCON, eos_token="<|endoftext|>")
    if name == "llama2":
        return _wrap(
            _sentencepiece(["<unk>", "<s>", "</s>"], "<s>"),
            LLAMA2,
            bos_token="<s>",
            eos_token="</s>",
            unk_token="<unk>",
        )
    if name == "unigram":
        special = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
        return _wrap(
            _sentencepiece(special, "<s>", unigram=True),
            CHATML,
            bos_token="<s>",
            eos_token="</s>",
            unk_token="<unk>",
        )
    if name == "phi":
        # Marks that are added tokens but not flagged special, and that the template builds out of pieces.
        marks = ("<|user|>", "<|assistant|>", "<|system|>")
        return _wrap(_byte_level(["<|endoftext|>", "<|end|>"], plain=marks), PHI, eos_token="<|endoftext|>")
    if name == "plain":
        return _wrap(_byte_level(["<s>", "</s>"], bos="<s>"), None, bos_token="<s>", eos_token="</s>")
    if name == "slow":
        slow = ByT5Tokenizer(extra_ids=0)
        slow.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
        slow.chat_template = CHATML
        return slow
    raise ValueError(name)


FAMILIES = ("chatml", "llama3", "gemma", "falcon", "llama2", "unigram", "phi", "slow")
MARKED = tuple(name for name in FAMILIES if name != "falcon")
"""Families whose templates mark turns with tokens."""
