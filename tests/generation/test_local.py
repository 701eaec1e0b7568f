"""The local engine: equal to transformers' generate when greedy, independent of the batch when sampled."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from safepref.data.render import render_prompt
from safepref.errors import InputError
from safepref.generation import local
from safepref.generation.base import Sampling, evenly
from safepref.generation.local import LocalEngine
from safepref.models import LoadedModel

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    """A random two-layer Llama with a byte-level tokenizer and a ChatML template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    from tokenizers import decoders

    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", bos_token="<|im_start|>", pad_token="<|im_end|>"
    )
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.3,
    )
    model = LlamaForCausalLM(config).eval()
    return LoadedModel(model, tokenizer, "tiny", "tiny", torch.float32, torch.device("cpu"))


def base_model(loaded: LoadedModel) -> LoadedModel:
    """The same model as a base: EOS ends documents, ChatML turns end in <|im_end|>; it says only that."""
    tokenizer = copy.deepcopy(loaded.tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    tokenizer.eos_token = "!"
    model = copy.deepcopy(loaded.model)
    model.config.eos_token_id = model.generation_config.eos_token_id = tokenizer.eos_token_id
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")

    def say_the_end(module: object, inputs: object, out: Any) -> Any:
        out.logits[..., end] += 1e4
        return out

    model.register_forward_hook(say_the_end)
    return LoadedModel(model, tokenizer, "base", "base", torch.float32, torch.device("cpu"))


def asks(*texts: str) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": text}] for text in texts]


PROMPTS = asks("a", "what is this, then?", "a longer question that needs more room", "zz", "a")


GROUPS = pytest.mark.parametrize("read_tokens", [1, 60, 2048])
"""Prompts read one by one, some together, and all at once."""


@GROUPS
def test_greedy_equals_transformers_generate(
    loaded: LoadedModel, read_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "READ_TOKENS", read_tokens)
    got = LocalEngine(loaded, batch_size=3).generate(PROMPTS, Sampling(12))
    for messages, answer in zip(PROMPTS, got, strict=True):
        ids = torch.tensor([render_prompt(loaded.tokenizer, messages)])
        out = loaded.model.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=0)[
            0, ids.shape[1] :
        ]
        text = loaded.tokenizer.decode(out, skip_special_tokens=True).strip()
        assert answer.text == text
        assert answer.tokens == len(out)
        assert answer.truncated == (int(out[-1]) != loaded.tokenizer.eos_token_id)


@GROUPS
def test_sampling_does_not_depend_on_the_batch(
    loaded: LoadedModel, read_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "READ_TOKENS", read_tokens)
    sampling = Sampling(10, temperature=1.0, seed=3)
    together = LocalEngine(loaded, batch_size=8).generate(PROMPTS, sampling)
    alone = [LocalEngine(loaded, batch_size=1).generate([p], sampling)[0] for p in PROMPTS]
    assert together == alone
    assert together[0] == together[4]


def test_seeds_differ_and_top_p_zero_mass_is_greedy(loaded: LoadedModel) -> None:
    engine = LocalEngine(loaded)
    first, second = (engine.generate(PROMPTS, Sampling(10, 1.0, seed=s)) for s in (0, 1))
    assert first != second
    nearly_greedy = engine.generate(PROMPTS, Sampling(10, temperature=1.0, top_p=1e-9))
    assert [a.text for a in nearly_greedy] == [a.text for a in engine.generate(PROMPTS, Sampling(10))]


def test_progress_counts_every_conversation_once(loaded: LoadedModel) -> None:
    seen: list[int] = []
    LocalEngine(loaded, batch_size=2).generate(PROMPTS, Sampling(2), seen.append)
    assert sum(seen) == len(PROMPTS)


def test_sampled_frequencies_follow_the_distribution(loaded: LoadedModel) -> None:
    """The first token over many seeds against the model's own probabilities (chi-square at 0.1 %)."""
    from scipy.stats import chisquare

    messages = asks("a")
    ids = torch.tensor([render_prompt(loaded.tokenizer, messages[0])])
    with torch.no_grad():
        chances = loaded.model(ids).logits[0, -1].softmax(-1)
    top = chances.topk(5)
    engine = LocalEngine(loaded, batch_size=64)
    draws = 600
    from safepref.generation.local import _chooser

    logits = chances.log()[None].repeat(draws, 1)
    prompts = [tuple(ids[0].tolist())] * draws
    tokens = [_chooser([p], Sampling(1, 1.0, seed=s))(logits[:1], [0])[0] for s, p in enumerate(prompts)]
    counts = [tokens.count(int(i)) for i in top.indices]
    counts.append(draws - sum(counts))
    expected = [float(p) * draws for p in top.values]
    expected.append(draws - sum(expected))
    assert engine.name == "local:tiny"
    assert chisquare(counts, expected).pvalue > 0.001


def test_decoding_stops_at_the_templates_end_of_turn(loaded: LoadedModel) -> None:
    base = base_model(loaded)
    assert base.tokenizer.eos_token_id != base.tokenizer.convert_tokens_to_ids("<|im_end|>")
    for answer in LocalEngine(base, batch_size=2).generate(PROMPTS, Sampling(6)):
        assert (answer.text, answer.tokens, answer.truncated) == ("", 1, False)


def test_long_prompts_leave_room_for_the_answer_and_are_told_once(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loaded.model.config, "max_position_embeddings", 80)
    engine = LocalEngine(loaded)
    widths: list[int] = []
    hook = loaded.model.register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(kwargs["attention_mask"].shape[1]), with_kwargs=True
    )
    long = asks("a", "b " * 100, "c " * 200)
    answers = engine.generate(long, Sampling(16))
    engine.generate(long, Sampling(16))
    hook.remove()
    assert max(widths) < 80
    lines = [line for line in capsys.readouterr().err.splitlines() if "longer than" in line]
    assert len(lines) == 1
    assert "2 of 3 prompts are longer than 64 tokens" in lines[0]
    # What is kept is the first token and the end.
    ids = render_prompt(loaded.tokenizer, long[1])
    kept = torch.tensor([[ids[0], *ids[-63:]]])
    out = loaded.model.generate(kept, max_new_tokens=16, do_sample=False, pad_token_id=0)[0, 64:]
    assert answers[1].text == loaded.tokenizer.decode(out, skip_special_tokens=True).strip()
    with pytest.raises(InputError, match="80 positions"):
        engine.generate(long, Sampling(79))


def test_the_limit_given_holds_where_the_model_has_more_room(
    loaded: LoadedModel, capsys: pytest.CaptureFixture[str]
) -> None:
    LocalEngine(loaded, prompt_limit=70).generate(asks("b " * 100), Sampling(2))
    assert "1 of 1 prompts are longer than 70 tokens" in capsys.readouterr().err
    LocalEngine(loaded).generate(PROMPTS, Sampling(2))
    assert "longer" not in capsys.readouterr().err


FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2, "intermediate_size": 48},
    "gpt2": {},
    "gpt_neox": {"intermediate_size": 48},
    "gemma3_text": {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 16, "intermediate_size": 48},
    "falcon": {"alibi": True, "new_decoder_architecture": False},
}


@GROUPS
@pytest.mark.parametrize("family", FAMILIES)
def test_a_shared_beginning_changes_no_answer(
    loaded: LoadedModel, family: str, read_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every family, with sliding windows and alibi among them, against plain `generate`."""
    monkeypatch.setattr(local, "READ_TOKENS", read_tokens)
    torch.manual_seed(1)
    config = AutoConfig.for_model(
        family,
        vocab_size=len(loaded.tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=loaded.tokenizer.eos_token_id,
        initializer_range=0.3,
        **FAMILIES[family],
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    other = LoadedModel(model, loaded.tokenizer, family, family, torch.float32, torch.device("cpu"))
    system = {"role": "system", "content": "Answer in one line."}
    asked = [[system, *messages] for messages in PROMPTS]
    got = LocalEngine(other, batch_size=3).generate(asked, Sampling(12))
    for messages, answer in zip(asked, got, strict=True):
        ids = torch.tensor([render_prompt(loaded.tokenizer, messages)])
        out = model.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=0)[0, ids.shape[1] :]
        assert answer.tokens == len(out)
        assert answer.text == loaded.tokenizer.decode(out, skip_special_tokens=True).strip()


def test_a_shared_beginning_is_run_in_one_row(loaded: LoadedModel) -> None:
    engine = LocalEngine(loaded)
    asked = asks("the same beginning, one", "the same beginning, two", "the same beginning, three")
    shapes = shapes_run(engine, asked)
    longest = max(len(render_prompt(loaded.tokenizer, messages)) for messages in asked)
    assert shapes[0][0] == 1 and shapes[1] == (3, longest - shapes[0][1])
    assert shapes[0][1] >= len("user\nthe same beginning, ")


def shapes_run(engine: LocalEngine, asked: list[list[dict[str, str]]]) -> list[tuple[int, ...]]:
    """Shapes of the token ids that the model is run on."""
    shapes: list[tuple[int, ...]] = []
    hook = engine.loaded.model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    engine.generate(asked, Sampling(2))
    hook.remove()
    return shapes


def test_prompts_are_read_in_groups_of_like_length_and_decoded_together(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "READ_TOKENS", 400)
    asked = asks(*(f"{n} " + "word " * (30 * (n > 3)) for n in range(8)))
    *read, decoded = shapes_run(LocalEngine(loaded), asked)
    assert [rows for rows, _ in read] == [2, 2, 4]
    assert all(rows * width <= 400 for rows, width in read)
    assert read[0][1] > 2 * read[-1][1]
    assert decoded == (8, 1)


def test_a_batch_is_as_large_as_memory_allows_and_batches_are_alike(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = LocalEngine(loaded, batch_size=64)
    asked = asks(*(f"number {n}" for n in range(10, 20)))
    length = len(render_prompt(loaded.tokenizer, asked[0])) + 2
    config = loaded.model.config
    token = 2 * 4 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    monkeypatch.setattr(local, "memory_bytes", lambda device: 8 * 4 * length * token)
    sizes = [rows for rows, width in shapes_run(engine, asked) if width == 1 and rows > 1]
    assert sizes == [4, 3, 3]  # ten prompts, four fit
    monkeypatch.setattr(local, "memory_bytes", lambda device: 0)
    assert engine.block == 1
    monkeypatch.setattr(local, "memory_bytes", lambda device: 2**40)
    assert engine.block == 64


@pytest.mark.parametrize(
    ("count", "most", "expected"), [(576, 256, 192), (288, 256, 144), (5, 8, 5), (7, 3, 3)]
)
def test_parts_are_as_few_and_as_like_as_can_be(count: int, most: int, expected: int) -> None:
    assert evenly(count, most) == expected


def test_progress_follows_the_tokens_and_ends_at_the_whole(loaded: LoadedModel) -> None:
    seen: list[int] = []
    asked = asks(*(f"number {n}" for n in range(40)))
    LocalEngine(loaded).generate(asked, Sampling(8), seen.append)
    assert sum(seen) == 40
    assert len(seen) > 4
