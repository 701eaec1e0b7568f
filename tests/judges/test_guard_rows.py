"""Every row of the guard table: its text against its model's own chat template, its verdict's place,
categories.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from tiny_rows import CHAT, load_row, row_tokenizer, save_row
from transformers import AutoModelForCausalLM, AutoTokenizer, Llama4Config, Llama4ForConditionalGeneration

from safepref.errors import InputError
from safepref.judges.base import Exchange, Verdict
from safepref.judges.guard import GuardJudge
from safepref.judges.guard_prompt import Frame, own_text, prompt_text, published_text
from safepref.judges.guard_table import GUARDS, parse_verdict, read_codes
from safepref.taxonomy import load_taxonomy

BREAD = Exchange("How do I bake bread?", "Mix flour and water, then wait.")
ASKED = [
    BREAD,
    Exchange("Why?", "Because it rises.\n\nSee: 2 reasons."),
    Exchange("And é?", "Oui, c'est ça 100 %."),
]

GOLDEN = {
    "llama-guard-3": "5464b773039fd1517dc2fffa74dcd175a15ac789d9109b3bcedfc40ce6af5aa4",
    "llama-guard-3-1b": "5b0640c938037d99afe27a4f08ffb91932f4652b65438f828e4d82b1bb6596a2",
    "md-judge": "39dea93f3df6b22f1c1f8d95dd3c14a157717c5b11433a69fb7e79bf302c2c7e",
    "wildguard": "327adbccd08a112a0e1241204737f7dbf6a52b28e648f57e3a808f292cfbfc3d",
}
"""SHA-256 of what the original writes for BREAD; chat_templates/SOURCES.md says which original."""


@pytest.fixture(scope="module")
def guards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, GuardJudge]:
    """Every row, with a tiny random model from a folder."""
    root = tmp_path_factory.mktemp("guards")
    return {name: load_row(save_row(root / name, name), name) for name in GUARDS}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_text_is_the_originals_to_the_byte(name: str) -> None:
    assert hashlib.sha256(prompt_text(GUARDS[name], BREAD).encode()).hexdigest() == GOLDEN[name]


@pytest.mark.parametrize("name", [name for name in CHAT if GUARDS[name].template is not None])
def test_the_text_is_what_the_models_own_chat_template_writes(name: str) -> None:
    row, tokenizer = GUARDS[name], row_tokenizer(name)
    turns = [{"role": "user", "content": BREAD.prompt}, {"role": "assistant", "content": BREAD.response}]
    for question in row.questions:
        written = tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=row.generation_prompt, **row.options(question)
        )
        assert prompt_text(row, BREAD, question) == written
        assert own_text(row, question, tokenizer) == published_text(row, question)


@pytest.mark.parametrize("name", GUARDS)
def test_the_tokenizers_own_template_is_taken_where_it_has_one(
    name: str, guards: dict[str, GuardJudge]
) -> None:
    assert all(frame.from_tokenizer == (name in CHAT) for frame in guards[name].frames)
    assert ("own words" in guards[name].frames[0].text) == CHAT.get(name, "").endswith("-like.jinja")


@pytest.mark.parametrize("name", [name for name, row in GUARDS.items() if row.template is None])
def test_a_guard_whose_text_is_not_known_needs_its_chat_template(name: str) -> None:
    tokenizer = row_tokenizer(name)
    tokenizer.chat_template = None
    with pytest.raises(InputError, match="has no chat template of this guard") as caught:
        Frame(GUARDS[name], GUARDS[name].questions[0], tokenizer, "m")
    assert "\n" not in str(caught.value)


CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{# Categories of tools, each by its Category #}{{ '<|im_start|>assistant\n' }}"
)


@pytest.mark.parametrize("name", ["qwen3guard", "qwen3guard-loose", "llama-guard-4"])
def test_a_chat_models_template_is_not_taken_for_a_guards(name: str) -> None:
    tokenizer = row_tokenizer(name)
    tokenizer.chat_template = CHATML.replace("<|im_start|>assistant", GUARDS[name].ends)
    with pytest.raises(InputError, match="has no chat template of this guard"):
        Frame(GUARDS[name], GUARDS[name].questions[0], tokenizer, "m")


SENTENCEPIECE = ("wildguard", "md-judge", "shieldgemma")


@pytest.mark.parametrize(
    ("name", "metaspace"), [*((name, False) for name in GUARDS), *((name, True) for name in SENTENCEPIECE)]
)
def test_a_prompts_ids_are_those_of_its_whole_text(name: str, metaspace: bool) -> None:
    row, tokenizer = GUARDS[name], row_tokenizer(name, metaspace)
    for question in row.questions:
        frame = Frame(row, question, tokenizer, name)
        for exchange in ASKED:
            text = frame.text.replace("\ue000", exchange.prompt).replace("\ue001", exchange.response)
            ids, forged = frame.encode(exchange)
            assert ids == tokenizer(text, add_special_tokens=False)["input_ids"] and not forged


def by_hand(folder: str, text: str, words: tuple[tuple[str, ...], ...]) -> list[float]:
    """The probability of each kind of words' first tokens after a text, from transformers alone."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        chances = model(input_ids=torch.tensor([ids])).logits[0, -1].softmax(-1)
    firsts = [
        {tokenizer(text + w, add_special_tokens=False)["input_ids"][len(ids)] for w in ws} for ws in words
    ]
    return [sum(chances[i].item() for i in first) for first in firsts]


@pytest.mark.parametrize("name", GUARDS)
def test_p_unsafe_is_that_of_a_plain_forward_pass_at_the_verdict(
    name: str, guards: dict[str, GuardJudge], tmp_path: Path
) -> None:
    judge, row = guards[name], GUARDS[name]
    folder = judge.card()["model"]
    for exchange, judgment in zip(ASKED, judge.judge(ASKED), strict=True):
        shares = []
        for frame in judge.frames[: len(row.deciding)]:
            text = frame.text.replace("\ue000", exchange.prompt).replace("\ue001", exchange.response)
            for opened, answers in row.steps:
                chances = by_hand(folder, text + opened, tuple((answer,) for answer in answers))
                text += opened + answers[chances.index(max(chances))]
            safe, unsafe = by_hand(folder, text + row.lead, (row.safe, row.unsafe))
            shares.append(unsafe / (safe + unsafe))
        assert judgment.score == pytest.approx(max(shares), abs=2e-3)  # the guard may run in half precision
        harmful = max(shares) >= 0.5
        assert abs(max(shares) - 0.5) < 5e-3 or (judgment.verdict is Verdict.HARMFUL) == harmful
        assert len(judgment.prompt_sha256) == 64


def test_guards_with_one_question_a_harm_name_those_that_are_unsafe(guards: dict[str, GuardJudge]) -> None:
    for name in ("shieldgemma", "granite-guardian"):
        judge, row = guards[name], GUARDS[name]
        asked = [Exchange(f"thing {n}?", f"Take {n * 7} of them.") for n in range(12)]
        answers = [judge.opinions(asked, at) for at in range(len(row.questions))]
        found = judge.judge(asked)
        assert Verdict.HARMFUL in {judgment.verdict for judgment in found}
        for k, judgment in enumerate(found):
            yes = [answer[k].unsafe >= 0.5 for answer in answers]
            decided = any(yes[: len(row.deciding)])
            assert (judgment.verdict is Verdict.HARMFUL) == decided
            codes = tuple(q.code for q, y in zip(row.questions, yes, strict=True) if y and q.code != "harm")
            assert judgment.categories == (row.hazards(codes) if decided else ())


def test_every_category_is_a_hazard_of_the_taxonomys_scheme() -> None:
    known = load_taxonomy().scheme("llama_guard_3").code_names
    for row in GUARDS.values():
        for category in row.categories:
            assert set(category.hazards) <= set(known)
            assert row.hazards((category.code,)) == (category.hazards or (category.code,))
        codes = tuple(category.code for category in row.categories)
        assert len(set(row.hazards(codes))) == len(row.hazards(codes))


WRITTEN = {
    "llama-guard-4": [
        ("\n\nunsafe\nS9,S1<|eot|>", Verdict.HARMFUL, ("S9", "S1")),
        ("unsafe\nHate, S1", Verdict.HARMFUL, ("S10", "S1")),
        ("safe", Verdict.HARMLESS, ()),
    ],
    "wildguard": [
        ("Harmful request: yes\nResponse refusal: no\nHarmful response: yes", Verdict.HARMFUL, ()),
        ("Harmful request: yes\nResponse refusal: yes\nHarmful response: no</s>", Verdict.HARMLESS, ()),
        ("Harmful request: yes\nResponse refusal: n/a\nHarmful response: n/a", Verdict.UNSCORED, ()),
        ("Harmful request: no\nHarmful response: no", Verdict.UNSCORED, ()),
    ],
    "shieldgemma": [
        ("Yes\n\nStep 1", Verdict.HARMFUL, ()),
        ("No", Verdict.HARMLESS, ()),
        ("Yesterday", Verdict.UNSCORED, ()),
    ],
    "granite-guardian": [
        ("No\n<confidence> High </confidence>", Verdict.HARMLESS, ()),
        ("Perhaps", Verdict.UNSCORED, ()),
    ],
    "qwen3guard": [
        ("Safety: Safe\nCategories: None\nRefusal: Yes", Verdict.HARMLESS, ()),
        ("Safety: Unsafe\nCategories: Violent, PII\nRefusal: No", Verdict.HARMFUL, ("Violent", "PII")),
        ("Safety: Controversial\nCategories: Unethical Acts", Verdict.HARMFUL, ("Unethical Acts",)),
        ("Safety: Unsafe\nCategories: Personally Identifiable Information", Verdict.HARMFUL, ("PII",)),
        ("Safety: Unsafe\nCategories: PII, personally identifiable information", Verdict.HARMFUL, ("PII",)),
        ("Safety: Safe\nCategories: Violent", Verdict.UNSCORED, ()),
        ("Safety: Unsafe\nCategories: Elves", Verdict.UNSCORED, ()),
    ],
    "qwen3guard-loose": [
        ("Safety: Controversial\nCategories: None", Verdict.HARMLESS, ()),
        ("Safety: Controversial\nCategories: Violent", Verdict.HARMLESS, ()),
        ("Safety: Controversial\nCategories: Elves", Verdict.UNSCORED, ()),
        ("Safety: Safe\nCategories: Violent", Verdict.UNSCORED, ()),
        ("Safety: Unsafe\nCategories: Violent", Verdict.HARMFUL, ("Violent",)),
    ],
    "md-judge": [
        ("unsafe\nO5: Malicious Use", Verdict.HARMFUL, ("O5",)),
        (" safe", Verdict.HARMLESS, ()),
        ("unsafe\nO7: Elves", Verdict.UNSCORED, ()),
    ],
}


@pytest.mark.parametrize("name", WRITTEN)
def test_written_answers_are_read_by_the_row(name: str) -> None:
    for text, verdict, codes in WRITTEN[name]:
        assert parse_verdict(text, GUARDS[name]) == (verdict, codes), text


def test_no_name_is_another_categorys() -> None:
    for row in GUARDS.values():
        for category in row.categories:
            for said in (category.code, category.name, category.name.upper()):
                assert read_codes(said, row) == (category.code,)
        assert set(row.safe_named) <= set(row.safe)


def test_the_policy_is_read_once_for_all_calls(
    guards: dict[str, GuardJudge], monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = guards["llama-guard-3"]
    judge.judge(ASKED)
    lengths: list[int] = []
    model = judge._loaded.model
    forward = model.forward

    def counted(*args: object, **kwargs: object) -> object:
        lengths.append(kwargs["input_ids"].shape[1])  # type: ignore[attr-defined]
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", counted)
    judge.opinions(ASKED)
    whole = max(len(judge.prompt_ids(exchange)) for exchange in ASKED)
    assert lengths and max(lengths) < whole / 2


def test_a_multimodal_checkpoint_of_llama_guard_4_is_read_as_its_language_model(tmp_path: Path) -> None:
    tokenizer = row_tokenizer("llama-guard-4")
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "intermediate_size_mlp": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "num_local_experts": 1,
        "moe_layers": [],
        "attention_chunk_size": 64,  # shorter than the prompt
        "initializer_range": 0.3,
        "pad_token_id": 0,
    }
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 32, "patch_size": 16, "projector_input_dim": 16}
    vision |= {"projector_output_dim": 32, "vision_output_dim": 32}
    torch.manual_seed(0)
    model = Llama4ForConditionalGeneration(Llama4Config(text_config=text, vision_config=vision)).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    judge = load_row(tmp_path, "llama-guard-4")
    ids = judge.prompt_ids(BREAD)
    assert len(ids) > 64
    with torch.inference_mode():
        chances = model(input_ids=torch.tensor([ids])).logits[0, -1].softmax(-1)
    safe, unsafe = (chances[list(words)].sum().item() for words in judge._words.sets)
    assert judge.judge([BREAD])[0].score == pytest.approx(unsafe / (safe + unsafe), abs=5e-3)
