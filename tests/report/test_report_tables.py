import copy
import re
from dataclasses import replace

import pytest

from safepref.report import markdown_table, methods_table, print_summary
from safepref.report.folder import read_run
from safepref.report.html import render
from safepref.report.sections import training_rows
from safepref.report.tables import PUBLISHED, best_values, columns, unread_lines


def test_rows_hold_the_numbers_of_the_results(made):
    rows = {row["name"]: row for row in methods_table(made.results)}
    assert list(rows) == ["base", *made.results["methods"], "nca@0.8"]
    for name, scores in [
        ("base", made.results["base"]),
        *((name, entry["scores"]) for name, entry in made.results["methods"].items()),
        ("nca@0.8", made.results["recommended"]["scores"]),
    ]:
        row = rows[name]
        assert row["global"] == scores["safety"]["global"]
        assert row["global_interval"] == scores["safety"]["interval"]
        assert row["plain_interval"] == scores["safety"]["intervals"]["plain"]
        assert row["adversarial_interval"] == scores["safety"]["intervals"]["adversarial"]
        assert row["over_refusal"] == scores["over_refusal"]["rate"]
        assert row["capability"] == scores["capability"]["mean"]
        assert row["toxicity_adversarial"] == scores["toxicity"]["adversarial"]
        assert {key[4:]: row[key] for key in row if key.startswith("asr.")} == scores["safety"]["asr"]
        assert {key[5:]: row[key] for key in row if key.startswith("task.")} == scores["capability"]["tasks"]


def test_weights_that_a_method_cannot_take_are_said():
    rows = training_rows(
        {"methods": {name: {"training": {"weights_ignored": name == "aot"}} for name in ("aot", "nca")}}
    )
    assert [row["warnings"] for row in rows] == [
        ["AOT sorts its batch: only its NLL took the weights of pairs"],
        [],
    ]


def test_a_recommended_point_at_full_strength_is_the_methods_own_row(made):
    results = copy.deepcopy(made.results)
    results["recommended"] = {
        "method": "dpo",
        "strength": 1,
        "scores": results["methods"]["dpo"]["scores"],
        "why": "it is best",
    }
    rows = methods_table(results)
    assert [row["name"] for row in rows if row["recommended"]] == ["dpo"]
    assert len(rows) == 1 + len(results["methods"])


def test_best_values_respect_the_direction_and_leave_the_base_out(made):
    rows = methods_table(made.results)
    best = best_values(rows, columns(rows))
    trained = [row for row in rows if row["role"] != "base"]
    assert best["global"] == max(row["global"] for row in trained)
    assert best["over_refusal"] == min(row["over_refusal"] for row in trained)
    # The base model refuses least here, but it is not one of the methods that are compared.
    assert rows[0]["over_refusal"] < best["over_refusal"]


def test_no_best_value_among_equal_or_single_points(made):
    results = copy.deepcopy(made.results)
    results["methods"] = {"nca": results["methods"]["nca"]}
    results["recommended"] = {"method": None, "strength": None, "scores": None, "why": "none"}
    rows = methods_table(results)
    assert best_values(rows, columns(rows)) == {}


def test_markdown_is_one_rectangular_table_with_the_published_numbers_and_their_caveat(made):
    text = markdown_table(made.results)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert len(lines) == 2 + len(methods_table(made.results)) + len(PUBLISHED)
    assert f"{100 * made.results['base']['safety']['global']:.1f}" in lines[2]
    assert "57.64" in text and "99.90" in text and "< 0.07" in text
    assert "Falcon 11B" in text and "Llama Guard 3 8B" in text and "not comparable" in text


def test_markdown_escapes_the_pipe_in_a_name(made):
    results = copy.deepcopy(made.results)
    results["base"]["safety"]["asr"]["a|b"] = 0.5
    head = markdown_table(results).splitlines()[0]
    assert "a\\|b" in head


@pytest.mark.parametrize("part", ["safety", "toxicity", "over_refusal", "capability"])
def test_a_part_that_was_not_measured_is_empty_everywhere(made, part, capsys):
    results = copy.deepcopy(made.results)
    for scores in (
        results["base"],
        *(entry["scores"] for entry in results["methods"].values()),
        results["recommended"]["scores"],
    ):
        scores[part] = None
    keys = {"safety": "global", "toxicity": "toxicity_plain"}
    rows = methods_table(results)
    assert all(row[keys.get(part, part)] is None for row in rows)
    assert "None" not in markdown_table(results)
    print_summary(results)
    assert "None" not in capsys.readouterr().out


def test_summary_never_gives_safety_alone(made, capsys):
    print_summary(made.results)
    out = capsys.readouterr().out
    chosen = made.results["recommended"]["scores"]
    sentence = next(line for line in out.splitlines() if line.startswith("Global safety"))
    for text in (
        f"{100 * made.results['base']['safety']['global']:.1f}",
        f"{100 * chosen['safety']['global']:.1f}",
        f"{100 * chosen['over_refusal']['rate']:.1f}",
        f"{chosen['capability']['mean']:.3f}",
    ):
        assert text in sentence
    for name in ("Base", "NCA", "DPO", "SLiC", "NCA at 0.8 *"):
        assert name in out


def test_what_was_not_read_is_said_wherever_the_numbers_are(made, capsys):
    results = copy.deepcopy(made.results)
    assert "language" not in markdown_table(results)
    found = results["methods"]["nca"]["scores"]
    found["over_refusal"] |= {"rate": 0.25, "bounds": [0.125, 0.25], "unread": {"not English (French)": 4}}
    found["toxicity"]["unread"] = {"plain": {}, "adversarial": {"not English (Korean script)": 2}}
    lines = unread_lines(results)
    assert len(lines) == 2 and all(line.startswith("NCA: ") for line in lines)
    assert (
        f"4 of {found['over_refusal']['n']} answers" in lines[0] and "(not English (French): 4)" in lines[0]
    )
    assert "between 12.5\u00a0% and 25.0\u00a0%" in lines[0]
    assert f"2 of {found['toxicity']['n']} adversarial continuations" in lines[1]
    print_summary(results)
    said = capsys.readouterr().out.replace("\n", " ")
    page = render(replace(read_run(made.folder), results=results))
    for line in lines:
        assert line in markdown_table(results) and line in page and line[:60] in said
        assert line not in made.page


def test_summary_says_why_nothing_is_recommended(made, capsys):
    results = copy.deepcopy(made.results)
    results["recommended"] = {"method": None, "strength": None, "scores": None, "why": "too much refusal"}
    print_summary(results)
    assert "Nothing is recommended: too much refusal." in capsys.readouterr().out


def test_summary_prints_a_model_name_that_looks_like_markup(made, capsys):
    results = copy.deepcopy(made.results)
    results["model"] = "[bold]x[/nope]"
    print_summary(results)
    assert "[bold]x[/nope]" in capsys.readouterr().out


def test_names_are_the_titles_of_the_table_of_methods():
    from safepref.methods import METHODS
    from safepref.report.labels import method_label

    assert {name: method_label(name) for name in METHODS} == {
        name: method.title for name, method in METHODS.items()
    }
