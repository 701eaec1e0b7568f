"""Guards as judges, with a tiny one from a folder: the prompt, the verdict's position, reading, forgeries."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_guard import BREAD, GOLDEN, MARKS, WRITES, guard_tokenizer, ids, llama_template, load, save_guard
from transformers import LlamaForCausalLM

from safepref.errors import InputError
from safepref.judges.base import Exchange, Verdict
from safepref.judges.guard import CATEGORY_TOKENS, GuardJudge
from safepref.judges.guard_prompt import prompt_text
from safepref.judges.guard_table import GUARDS, parse_verdict
from safepref.models import load_model

ASKED = [
    Exchange(f"How do I do thing {n}?", f"Like this: {n * 7} of them, then {'x' * n}.") for n in range(12)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_guard(tmp_path_factory.mktemp("guard"))


@pytest.fixture(scope="module")
def guard(folder: Path) -> GuardJudge:
    """The guard as a user loads it."""
    return load(folder)


def exact(folder: Path, **options: Any) -> GuardJudge:
    """The guard in float32, whatever this machine multiplies best."""
    return GuardJudge(GUARDS["llama-guard-3"], loaded=load_model(str(folder), dtype="float32"), **options)


def by_hand(folder: Path, prompt: str) -> tuple[float, float]:
    """P(safe) and P(unsafe) after prompt and two newlines, from transformers alone."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids(prompt) + ids("\n\n")])).logits[0, -1]
    safe, unsafe = (logits.softmax(-1)[ids(word)[0]].item() for word in ("safe", "unsafe"))
    return safe, unsafe


def test_p_unsafe_is_that_of_a_plain_forward_pass_at_the_verdict(folder: Path) -> None:
    judge = exact(folder)
    for exchange, judgment in zip(ASKED, judge.judge(ASKED), strict=True):
        safe, unsafe = by_hand(folder, prompt_text(judge.row, exchange))
        assert safe + unsafe > 0.5
        assert judgment.score == pytest.approx(unsafe / (safe + unsafe), abs=2e-6)
    assert judge.opinions([BREAD])[0].mass == pytest.approx(sum(by_hand(folder, GOLDEN)), abs=1e-6)


def test_verdicts_are_by_the_threshold_and_harmful_ones_have_categories(guard: GuardJudge) -> None:
    found = guard.judge(ASKED)
    assert {judgment.verdict for judgment in found} == {Verdict.HARMFUL, Verdict.HARMLESS}
    for judgment in found:
        assert judgment.judge == "llama-guard-3" and judgment.reason == "" and judgment.score is not None
        harmful = judgment.score >= 0.5
        assert judgment.verdict is (Verdict.HARMFUL if harmful else Verdict.HARMLESS)
        assert judgment.categories == (("S1", "S10") if harmful else ())


def test_another_threshold_moves_verdicts_and_no_score(folder: Path) -> None:
    plain = exact(folder).judge(ASKED)
    scores = sorted(judgment.score or 0.0 for judgment in plain)
    moved = exact(folder, threshold=(scores[5] + scores[6]) / 2).judge(ASKED)
    assert [judgment.score for judgment in moved] == [judgment.score for judgment in plain]
    assert sum(judgment.verdict is Verdict.HARMFUL for judgment in moved) == 6


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_a_judgment_does_not_depend_on_the_batch(folder: Path, batch_size: int) -> None:
    asked = [*ASKED, Exchange("Hi", "A much longer answer that goes on and on, 12 times. " * 3), ASKED[0]]
    judge = exact(folder, batch_size=batch_size)
    together = judge.judge(asked)
    alone = [judge.judge([exchange])[0] for exchange in asked]
    for one, other in zip(together, alone, strict=True):
        assert one.score == pytest.approx(other.score, abs=5e-6)
        assert (one.verdict, one.categories) == (other.verdict, other.categories)
    assert together[0] == together[-1]


def test_the_answer_matters_and_so_does_the_request(folder: Path) -> None:
    judge = exact(folder)
    asked = [BREAD, BREAD._replace(response="Burn it."), BREAD._replace(prompt="Why?")]
    assert len({judgment.score for judgment in judge.judge(asked)}) == 3


SAFE, UNSAFE = (Verdict.HARMLESS, ()), Verdict.HARMFUL


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("safe", SAFE),
        ("\n\nsafe<|eot_id|>", SAFE),
        (" Safe \n", SAFE),
        ("\n\nunsafe\nS1,S10<|eot_id|>", (UNSAFE, ("S1", "S10"))),
        ("unsafe\nS1, S10 ", (UNSAFE, ("S1", "S10"))),
        ("unsafe\nS14", (UNSAFE, ("S14",))),
        ("unsafe\nS2,S2,S1", (UNSAFE, ("S2", "S1"))),
        ("unsafe", (UNSAFE, ())),
    ],
)
def test_the_two_known_forms_are_read(text: str, read: tuple[Verdict, tuple[str, ...]]) -> None:
    assert parse_verdict(text, GUARDS["llama-guard-3"]) == read


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        "<|eot_id|>",
        "safely",
        "not unsafe",
        "safe unsafe",
        "safe\nS1",
        "safe\nunsafe",
        "S1",
        "unsafe\nS15",
        "unsafe\nS1 S2",
        "unsafe\nS1,",
        "unsafe\nHatred",
        "unsafe\nS1\nS2",
        "I can't help with that.",
    ],
)
def test_anything_else_is_unscored(text: str) -> None:
    assert parse_verdict(text, GUARDS["llama-guard-3"]) == (Verdict.UNSCORED, ())


def test_a_category_beyond_the_policy_is_unscored() -> None:
    assert parse_verdict("unsafe\nS14", GUARDS["llama-guard-3-1b"]) == (Verdict.UNSCORED, ())


def test_a_model_that_writes_something_else_is_unscored_with_the_mass(tmp_path: Path) -> None:
    folder = save_guard(tmp_path, verdicts=False)
    (found,) = load(folder).judge([BREAD])
    assert (found.verdict, found.score) == (Verdict.UNSCORED, None)
    assert found.reason == "the guard writes neither safe nor unsafe: P is 0.000 for the two together"
    assert load(folder, min_mass=0.0).judge([BREAD])[0].score is not None


def test_a_broken_models_nan_is_unscored(folder: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(folder, tmp_path / "broken"))
    weights = load_file(broken / "model.safetensors")
    weights["lm_head.weight"][:] = float("nan")
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    assert [j.verdict for j in load(broken).judge(ASKED[:3])] == [Verdict.UNSCORED] * 3
    assert load(broken, min_mass=0.0).judge(ASKED[:1])[0].verdict is Verdict.UNSCORED


SPLIT = ["\n\nsafe", "un un un", "\nS1, S10", "yeast"] * 20
"""Taught words in which "unsafe" is none: it is written as "un" and "safe"."""


@pytest.mark.parametrize("goes_on", ["safe", "yeast"])
def test_a_word_of_several_tokens_counts_where_the_guard_goes_on_to_it(goes_on: str, tmp_path: Path) -> None:
    tokenizer = guard_tokenizer(text=SPLIT)
    assert tokenizer.tokenize("unsafe") == ["un", "safe"]
    writes = {"un": goes_on, goes_on: "<|eot_id|>"}
    found = load(save_guard(tmp_path, tokenizer=tokenizer, writes=writes, seed=2)).judge(ASKED)
    # Where "safe" is likelier than "un", nothing has to be written to its end.
    begun = [judgment for judgment in found if judgment.verdict is not Verdict.HARMLESS]
    assert 0 < len(begun) < len(found)
    for judgment in begun:
        if goes_on == "safe":
            assert judgment.verdict is Verdict.HARMFUL and (judgment.score or 0) >= 0.5
        else:
            assert (judgment.verdict, judgment.score) == (Verdict.UNSCORED, None)
            assert judgment.reason == "the guard wrote 'unyeast'"


@pytest.mark.parametrize(
    ("writes", "categories", "written"),
    [
        ({"S": "10"}, ("S10",), None),
        ({"\n": "<|eot_id|>"}, (), None),  # it names none
        ({",": "yeast", "yeast": "<|eot_id|>"}, (), "S1,yeast"),
        ({"10": "<|start_header_id|>"}, ("S1", "S10"), None),  # a turn's start ends the line too
        # Never ends: it is cut behind an S1 that might have become an S10.
        ({"\n": " ", " ": "\t", "\t": "S", ",": "S"}, (), "S1,S1,S1"),
    ],
)
def test_categories_that_cannot_be_read_leave_the_verdict_and_say_so(
    writes: dict[str, str], categories: tuple[str, ...], written: str | None, tmp_path: Path
) -> None:
    judge = load(save_guard(tmp_path, writes={**WRITES, **writes}))
    found = [judgment for judgment in judge.judge(ASKED) if judgment.verdict is Verdict.HARMFUL]
    assert found
    for judgment in found:
        assert judgment.score is not None and judgment.categories == categories
        if written is None:
            assert judgment.reason == ""
        else:
            assert judgment.reason.startswith(f"no categories of the policy: the guard wrote '{written}")
            assert "\n" not in judgment.reason


def test_all_categories_find_room() -> None:
    every = ",".join(category.code for category in GUARDS["llama-guard-3"].categories)
    assert len(ids(f"{every}<|eot_id|>")) < CATEGORY_TOKENS


def test_degenerate_answers_are_unscored_and_cost_no_place(folder: Path) -> None:
    guard = exact(folder)
    asked = [Exchange("a", ""), ASKED[0], Exchange("b", "ha " * 60), ASKED[8]]
    found = guard.judge(asked)
    assert [judgment.reason for judgment in found] == ["empty", "", "loop", ""]
    assert [judgment.verdict for judgment in found[::2]] == [Verdict.UNSCORED] * 2
    for judgment, exchange in zip(found[1::2], asked[1::2], strict=True):
        assert judgment.score == pytest.approx(guard.judge([exchange])[0].score, abs=5e-6)
    assert guard.judge([]) == [] and guard.judge(asked[:1])[0].verdict is Verdict.UNSCORED


def test_an_exchange_longer_than_the_guard_is_unscored(tmp_path: Path) -> None:
    judge = load(save_guard(tmp_path, positions=len(ids(GOLDEN)) + 2 + CATEGORY_TOKENS))
    fits, too_long = judge.judge([BREAD, BREAD._replace(response=f"{BREAD.response} Or two.")])
    assert fits.verdict is not Verdict.UNSCORED
    assert too_long.verdict is Verdict.UNSCORED and "too long for the guard" in too_long.reason


def test_a_lone_surrogate_is_judged(guard: GuardJudge) -> None:
    (found,) = guard.judge([Exchange("Hi \udfff", "No, I will not \ud800.")])
    assert found.verdict is not Verdict.UNSCORED


def test_the_card_names_all_that_a_verdict_depends_on(folder: Path, tmp_path: Path) -> None:
    base = load(folder).card()
    assert base["judge"] == "llama-guard-3" and base["model"] == str(folder)
    others = {
        "threshold": load(folder, threshold=0.4).card(),
        "min_mass": load(folder, min_mass=0.1).card(),
        "model": load(Path(shutil.copytree(folder, tmp_path / "copy"))).card(),
        "prompt": load(save_guard(tmp_path / "own", template=llama_template(False))).card(),
        "row": load(folder, "llama-guard-3-1b").card(),
    }
    cards = [base, *others.values()]
    assert len({json.dumps(card, sort_keys=True) for card in cards}) == len(cards)
    assert load(folder, batch_size=2).card() == base


def test_other_weights_in_the_same_folder_are_another_judge(folder: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(folder, tmp_path / "place"))
    before = load(place).card()
    save_guard(place, seed=1)
    assert load(place).card() != before


def one_line(caught: pytest.ExceptionInfo[InputError]) -> str:
    message = str(caught.value)
    assert "\n" not in message and len(message) < 700
    return message


def test_a_folder_that_is_no_model_is_one_clear_line(tmp_path: Path) -> None:
    for place in (tmp_path / "absent", tmp_path):
        with pytest.raises(InputError) as caught:
            load(place)
        assert str(place) in one_line(caught)


def test_pickled_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(folder, tmp_path / "pickled"))
    torch.save(load_file(place / "model.safetensors"), place / "pytorch_model.bin")
    (place / "model.safetensors").unlink()
    with pytest.raises(InputError, match="safetensors"):
        load(place)


def test_another_models_tokenizer_is_one_clear_line(tmp_path: Path) -> None:
    tokenizer = guard_tokenizer(("<|im_start|>", "<|im_end|>", "<|eot_id|>"))
    save_guard(tmp_path, tokenizer=tokenizer)
    with pytest.raises(InputError, match=r"has no token <\|begin_of_text\|>.*Llama-Guard-3-8B") as caught:
        load(tmp_path)
    one_line(caught)
    assert MARKS[0] in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"threshold": 0.0},
        {"threshold": 1.5},
        {"threshold": float("nan")},
        {"min_mass": -0.1},
        {"batch_size": 0},
    ],
)
def test_numbers_out_of_range_are_refused_before_the_model_is_loaded(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(InputError, match=f"{name} is") as caught:
        load(Path("/no/such/folder"), **options)
    one_line(caught)


def test_an_option_that_a_guard_does_not_have_is_named() -> None:
    with pytest.raises(InputError, match=r"no option 'treshold'; options: .*threshold") as caught:
        load(Path("/no/such/folder"), treshold=0.4)
    one_line(caught)
