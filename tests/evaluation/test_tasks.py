import json
import re

import pytest

from safepref.errors import InputError
from safepref.evaluation import arithmetic_task, embedded_tasks, read_task
from safepref.evaluation.arithmetic import FAMILIES, given_number
from safepref.evaluation.tasks import STYLES, choose_rows, final_number, gap_parts, lettered_row

CHOICE = {"question": "Which is red?", "choices": ["blood", "snow", "coal"], "answer": 0}


def write(tmp_path, name, *rows):
    path = tmp_path / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("stem", "row", "style"),
    [
        ("arc_easy", CHOICE, "question"),
        ("ARC-Challenge", CHOICE, "question"),
        ("piqa", {**CHOICE, "choices": ["a", "b"]}, "question"),
        ("hellaswag", CHOICE, "continuation"),
        ("openbookqa", CHOICE, "continuation"),
        ("winogrande", {"question": "Ann met Bo, so _ waved.", "choices": ["Ann", "Bo"], "answer": 1}, "gap"),
        ("mine", {"question": "Ann met Bo, so _ waved.", "choices": ["Ann", "Bo"], "answer": 1}, "gap"),
        ("mine", {"question": "snake_case is _what_?", "choices": ["a", "b"], "answer": 1}, "question"),
        ("gsm8k", {"question": "How many?", "answer": "2+2=<<2+2=4>>4\n#### 4"}, "solution"),
        ("truthfulqa", {"question": "Why?", "best": "b", "correct": ["b", "c"], "incorrect": ["x"]}, "truth"),
        ("gsm8k_choices", CHOICE, "question"),
    ],
)
def test_the_stem_and_the_rows_choose_the_rule(tmp_path, stem, row, style):
    task = read_task(write(tmp_path, stem, row))
    assert (task.name, task.style.name) == (stem, style)
    assert len(task.rows) == 1


def test_truthfulqa_becomes_mc1_with_the_best_answer_first(tmp_path):
    row = {"question": "Why?", "best": "b", "correct": ["b", "c"], "incorrect": ["x", "y"]}
    task = read_task(write(tmp_path, "truthfulqa", row))
    assert task.rows[0] == {"question": "Why?", "choices": ["b", "x", "y"], "answer": 0}
    assert task.chance == pytest.approx(1 / 3)


@pytest.mark.parametrize("answer", [1, "1", "B", "b", "snow"])
def test_an_answer_may_be_an_index_a_letter_or_the_text(tmp_path, answer):
    assert read_task(write(tmp_path, "x", {**CHOICE, "answer": answer})).rows[0]["answer"] == 1


def test_gsm8k_can_be_asked_by_generation(tmp_path):
    row = {"question": "How many?", "answer": "so\n#### 1,200"}
    task = read_task(write(tmp_path, "gsm8k", row), style="generate")
    assert task.rows[0]["answer"] == "1200" and task.chance is None


def test_a_smaller_limit_draws_from_the_rows_of_a_larger_one():
    rows = [{"question": str(n)} for n in range(50)]
    small, large = choose_rows(rows, 10, seed=3), choose_rows(rows, 30, seed=3)
    assert len(small) == 10 and len(large) == 30
    assert {r["question"] for r in small} <= {r["question"] for r in large}
    assert [int(r["question"]) for r in large] == sorted(int(r["question"]) for r in large)
    assert choose_rows(rows, None, seed=3) == choose_rows(rows, 99, seed=0) == tuple(rows)
    assert choose_rows(rows, 10, seed=4) != small


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "no rows"),
        ([{"question": "", "choices": ["a", "b"], "answer": 0}], ":1: question is ''"),
        ([CHOICE, {**CHOICE, "answer": 3}], ":2: answer is 3"),
        ([CHOICE, {**CHOICE, "answer": "Z"}], ":2: answer is 'Z'"),
        ([CHOICE, {**CHOICE, "answer": True}], ":2: answer is True"),
        ([{**CHOICE, "choices": ["one"]}], ":1: choices has 1"),
        ([{**CHOICE, "choices": ["one", " "]}], ":1: choices is"),
        ([{**CHOICE, "choices": "ab"}], ":1: choices is 'ab'"),
        ([{"question": "q", "answer": 4}], ":1: answer is 4"),
        ([{"goal": "q", "target": "a"}], ":1: question is missing (columns: goal, target)"),
        ([CHOICE, {**CHOICE, "question": "a \ud800?"}], ":2: question holds half of a surrogate pair"),
        ([{**CHOICE, "choices": ["a", "\udfff"]}], ":1: choices holds half of a surrogate pair"),
        ([{"question": "q", "best": "b", "correct": [], "incorrect": []}], ":1: incorrect is []"),
        ([CHOICE, {"question": "q", "answer": "#### 4"}], "different kinds"),
    ],
)
def test_bad_rows_are_named_by_file_and_row(tmp_path, rows, words):
    path = write(tmp_path, "task", *rows)
    with pytest.raises(InputError) as caught:
        read_task(path)
    assert str(path) in str(caught.value) and words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("style", "row", "words"),
    [
        ("nonsense", CHOICE, "'nonsense' is not known"),
        ("gap", CHOICE, "exactly one gap"),
        ("solution", CHOICE, "scores a written answer"),
        ("letters", {"question": "q", "answer": "a"}, "no choices"),
        ("generate", {"question": "q", "answer": "none"}, "no number"),
    ],
)
def test_a_style_that_does_not_fit_is_refused(tmp_path, style, row, words):
    with pytest.raises(InputError, match=words):
        read_task(write(tmp_path, "task", row), style=style)


def test_a_gap_row_is_scored_on_the_rest_of_its_sentence():
    row = {"question": "Ann thanked Bo because _ had helped.", "choices": ["Ann", "Bo"], "answer": 1}
    assert gap_parts(row) == (["Ann thanked Bo because Ann", "Ann thanked Bo because Bo"], "had helped.")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2+2=4\n#### 4", "4"),
        ("#### 1,200\nthat is 7", "1200"),
        ("It costs $3.50 in all.", "3.50"),
        ("about 12.00 euros", "12"),
        ("-5", "-5"),
        ("none", None),
    ],
)
def test_final_number(text, number):
    assert final_number(text) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("8 + 8 = 16", "16"),
        ("The answer is 16.", "16"),
        ("Let me see.\n3 + 4 = 7.\nThen 9", "7"),
        ("#### 5\n6", "5"),
        ("seven", None),
    ],
)
def test_given_number(text, number):
    assert given_number(text) == number


def test_arithmetic_is_right_seeded_varied_and_without_repeats():
    task = arithmetic_task(70, seed=1)
    assert task == arithmetic_task(70, seed=1) != arithmetic_task(70, seed=2)
    assert len({row["question"] for row in task.rows}) == 70
    assert {row["family"] for row in task.rows} == set(FAMILIES)
    signs = {"add": 1, "gain": 1, "subtract": -1}
    for row in task.rows:
        a, b = (int(x) for x in re.findall(r"\d+", row["question"]))
        assert int(row["answer"]) == (a * b if row["family"] == "multiply" else a + signs[row["family"]] * b)
        assert int(row["answer"]) > 0


@pytest.mark.parametrize(
    ("count", "families", "words"),
    [
        (0, ("add",), "0 questions"),
        (5, ("sums",), "'sums'"),
        (5, (), "not known"),
        (200, ("add",), "200 different"),
    ],
)
def test_impossible_arithmetic_is_refused(count, families, words):
    with pytest.raises(InputError, match=words):
        arithmetic_task(count, families=families)


def test_a_lettered_row_that_does_not_fit_together_is_left_out():
    assert lettered_row(" q ", "A. one \nB. two, or b.", "B. two, or b.", 2) == {
        "question": "q",
        "choices": ["one", "two, or b."],
        "answer": 1,
    }
    assert lettered_row("q", "\nC. c\nD. d", "D. d", 2) is None
    assert lettered_row("q", "A. a\nB. b?", "B. b", 2) is None
    assert lettered_row("q", "A. a\nB. b", "C. c", 2) is None


def test_embedded_tasks_read_the_assets_they_name(tmp_path):
    path = write(
        tmp_path,
        "rows",
        *({"question": f"q{n}", "options": "A. x\nB. y", "answer": "B. y"} for n in range(9)),
        {"question": "q", "options": "A. x\nB. y\nC. z", "answer": "B. y"},
    )
    tasks = embedded_tasks(limit=5, fetch=lambda name: path)
    by_name = {task.name: task for task in tasks}
    assert set(by_name) == {"piqa", "commonsense_qa", "openbookqa", "mmlu"}
    assert len(by_name["piqa"].rows) == 5
    assert by_name["openbookqa"].style == STYLES["continuation"]


@pytest.mark.assets
def test_the_pinned_rows_are_whole():
    tasks = {task.name: task for task in embedded_tasks()}
    counts = {name: len(task.rows) for name, task in tasks.items()}
    assert counts == {"piqa": 1500, "commonsense_qa": 1217, "openbookqa": 500, "mmlu": 2850}
    for name, options in {"piqa": 2, "commonsense_qa": 5, "openbookqa": 4, "mmlu": 4}.items():
        assert tasks[name].chance == pytest.approx(1 / options)
        share = sum(row["answer"] == 0 for row in tasks[name].rows) / counts[name]
        assert share == pytest.approx(1 / options, abs=0.05)


@pytest.mark.shared
def test_every_real_file_is_a_task(shared_data):
    found = {path.stem: read_task(path) for path in sorted((shared_data / "capability").glob("*.jsonl"))}
    assert {name: task.style.name for name, task in found.items()} == {
        "arc_challenge": "question",
        "arc_easy": "question",
        "gsm8k": "solution",
        "hellaswag": "continuation",
        "piqa": "question",
        "truthfulqa": "truth",
        "winogrande": "gap",
    }
    assert all(len(task.rows) > 400 for task in found.values())
    numbers = read_task(shared_data / "capability" / "gsm8k.jsonl", style="generate").rows
    assert all(row["answer"].lstrip("-").replace(".", "").isdigit() for row in numbers)
