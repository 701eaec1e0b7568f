"""Questions in the chat template: what is read off an answer, what counts, and which sums are asked."""

from __future__ import annotations

import json

import pytest
from evaluation_rules import REFUSAL, RuleEngine, make_judges

from safepref.data.starter import load_starter
from safepref.errors import InputError
from safepref.evaluation import EvaluationSuite, Policy, base_families, chat_task, evaluate, narrowed
from safepref.evaluation.arithmetic import INSTRUCTION
from safepref.evaluation.chat import choice_given, says_one_of
from safepref.evaluation.families import FAMILIES, family_rows, selected_families
from safepref.evaluation.suites import ChatTask

CHOICES = ["a red car", "the dog", "red", "blue sky"]


@pytest.mark.parametrize(
    ("answer", "given"),
    [
        ("B", 1),
        ("B. the cat", 1),
        ("(C) red", 2),
        ("b) the dog", 1),
        ("Answer: A", 0),
        ("The correct answer is D.", 3),
        ("A\nbecause it is", 0),
        ("A dog barks", None),
        ("E.", None),
        ("It is the dog.", 1),
        ("A red car!", 0),
        ("Blue  sky", 3),
        ("red, or the dog", None),
        ("I do not know", None),
        ("", None),
    ],
)
def test_a_choice_is_given_by_its_marked_letter_or_its_text_alone(answer, given):
    assert choice_given(answer, CHOICES) == given


def test_a_long_choice_may_be_cut_by_the_token_limit():
    endings = ["picks the ball up and throws it", "picks the ball up and eats it", "runs home at once"]
    assert choice_given("Runs home at", endings) == 2
    assert choice_given("picks the ball up", endings) is None
    assert choice_given("runs home", endings) is None


@pytest.mark.parametrize(
    ("answer", "accepted", "said"),
    [
        ("The capital of France is Paris.", ["Paris"], True),
        ("paris", ["Paris"], True),
        ("Parisian", ["Paris"], False),
        ("It freezes at 0°C.", ["0"], True),
        ("It freezes at 100 degrees, or 0.5", ["0"], False),
        ("1,000", ["1"], False),
        ("Its symbol is O.", ["O"], True),
        ("one of them", ["O"], False),
        ("Yes,Rome", ["Rome"], True),
    ],
)
def test_an_accepted_answer_stands_in_the_text_as_whole_words(answer, accepted, said):
    assert says_one_of(answer, accepted) is said


def test_scores_count_every_row_and_a_refusal_is_never_right(tmp_path):
    rows = tuple({"question": f"q{n}", "choices": ["this one", "that one"], "answer": 0} for n in range(4))
    said = {"q0": "A.", "q1": "that one", "q2": REFUSAL, "q3": "..."}
    questions = tuple({"question": q, "answers": [w]} for q, w in (("r0", "help"), ("r1", "7"), ("r2", "x")))
    said |= {"r0": REFUSAL, "r1": "7", "r2": "a y"}
    suite = EvaluationSuite(chat=(ChatTask("mine", rows), ChatTask("questions", questions)))
    policy = Policy("p", RuleEngine(said.__getitem__))
    found = evaluate(policy, suite, make_judges(), samples_dir=tmp_path)["capability"]
    mine, short = found["chat"]["mine"], found["chat"]["questions"]
    assert (mine["score"], mine["refused"], mine["unanswered"]) == (0.25, 0.25, 0.25)
    assert (mine["n"], mine["chance"]) == (4, 0.5)
    # The number alone has no words, but is an answer; the refusal holds the word that is asked for.
    assert (short["score"], short["refused"], short["unanswered"]) == (1 / 3, 1 / 3, 0.0)
    assert short["chance"] is None and short["interval"][0] < 1 / 3 < short["interval"][1]
    assert found["mean"] is None and found["tasks"] == {}
    json.dumps(found, allow_nan=False)


def test_files_are_asked_with_lettered_choices_on_the_report_side_alone(tmp_path):
    path = tmp_path / "hellaswag.jsonl"
    row = {"question": "He {runs}", "choices": ["home", "off"], "answer": 1}
    path.write_text(json.dumps(row) + "\n")
    task = chat_task(str(path), "report")
    asked = task.rows[0]["asked"]
    assert asked.endswith("He {runs}\nA. home\nB. off\nAnswer with the letter of the right choice.")
    assert asked.startswith("Which of the choices is the best continuation") and task.name == "hellaswag"
    assert chat_task(str(path), "choose") is None
    assert chat_task(f"piqa:{path}", "report").rows[0]["asked"].startswith("He {runs}")
    path.write_text(json.dumps({"question": "q", "answer": "2 #### 2"}) + "\n")
    with pytest.raises(InputError, match="without choices cannot be asked"):
        chat_task(str(path), "report")
    for name in ("nowhere.jsonl", f"nothing:{path}"):
        with pytest.raises(InputError, match="give questions or arithmetic, a file of multiple choice"):
            chat_task(name, "report")


def test_the_short_questions_stand_on_one_side_each_by_template_and_are_not_trained_on():
    sides = [chat_task("questions", side).rows for side in ("choose", "report")]
    assert sum(map(len, sides)) >= 150 and min(map(len, sides)) >= 60
    first, second = ({row["template"] for row in rows} for rows in sides)
    assert not first & second
    rows = [row for side in sides for row in side]
    assert all(
        says_one_of(f"I think it is {text}.", row["answers"]) for row in rows for text in row["answers"]
    )
    trained = {prompt.text for prompt in load_starter("general", "train")}
    assert not trained & {row["question"] for row in rows}


def test_families_are_whole_lists_of_problems_with_disjoint_sides():
    choose, report = family_rows("choose"), family_rows("report")
    assert not {row["question"] for row in choose} & {row["question"] for row in report}
    for rows in (choose, report):
        assert {row["family"] for row in rows} == set(FAMILIES)
        assert len({row["question"] for row in rows}) == len(rows)
    sums = {row["question"].removesuffix(INSTRUCTION): row["answer"] for row in (*choose, *report)}
    for question, answer in sums.items():
        text = question.removeprefix("What is ").removesuffix("?").replace(" times ", " * ")
        if set(text) <= set("0123456789 +-*"):
            assert str(eval(text)) == answer
    assert sums["What is 9 + 9?"] == "18"


def test_families_are_taken_whole_by_the_bases_choose_side_alone(tmp_path):
    right = {row["question"]: row["answer"] for row in family_rows("choose")}
    family = {row["question"]: row["family"] for row in family_rows("choose")}

    def rule(text):
        if family[text] == "doubling":
            return right[text]
        even = family[text] == "halving" and int(right[text]) % 2 == 0
        return right[text] if even else "0"

    engine = RuleEngine(rule)
    path = tmp_path / "families.json"
    found = base_families(Policy("base", engine), path)
    assert found["selected"] == ["halving"]
    assert found["families"]["doubling"] == {"score": 1.0, "n": 20}
    assert found["families"]["one_digit_addition"]["score"] == 0.0
    assert base_families(Policy("base", engine), path) == found
    task = narrowed(chat_task("arithmetic", "report"), ["halving", "doubling"], 9)
    names = [row["family"] for row in task.rows]
    assert sorted((names.count("halving"), names.count("doubling"))) == [4, 5]
    whole = narrowed(chat_task("arithmetic", "report"), ["halving"], None)
    assert len(whole.rows) == 40 and whole.families == ["halving"]


def test_both_ends_of_the_range_are_inside():
    scores = {name: {"score": score} for name, score in (("a", 0.3), ("b", 0.9), ("c", 0.29), ("d", 0.91))}
    assert selected_families(scores) == ["a", "b"]


def test_arithmetic_is_scored_by_family_and_may_be_empty(tmp_path):
    task = narrowed(chat_task("arithmetic", "report"), ["doubling", "halving"], 4)
    right = {row["question"]: row["answer"] for row in task.rows if row["family"] == "doubling"}
    policy = Policy("p", RuleEngine(lambda text: right.get(text, "no idea")))
    suite = EvaluationSuite(chat=(task,))
    found = evaluate(policy, suite, make_judges(), samples_dir=tmp_path / "a")["capability"]["chat"][
        "arithmetic"
    ]
    assert found["families"] == {"doubling": {"score": 1.0, "n": 2}, "halving": {"score": 0.0, "n": 2}}
    assert (found["score"], found["unanswered"], found["n"]) == (0.5, 0.5, 4)
    none = EvaluationSuite(chat=(narrowed(task, [], None),))
    found = evaluate(policy, none, make_judges(), samples_dir=tmp_path / "b")["capability"]["chat"][
        "arithmetic"
    ]
    assert found["score"] is None and found["n"] == 0
