"""Strengths, merges, front and hypervolumes in the report, and the Markdown tables for documents."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from run_folder import build_run
from typer.testing import CliRunner

from safepref.cli import app
from safepref.errors import InputError
from safepref.report import document_tables
from safepref.report.documents import TABLES
from safepref.report.figures import points
from safepref.report.folder import read_run
from safepref.report.gains import paired_gains
from safepref.report.html import render
from safepref.report.labels import method_label, point_label
from safepref.report.sections import merge_lines, training_rows
from safepref.report.strengths import strength_rows, volume_rows
from safepref.store import write_json

MERGE = "nca+dpo.ties"
STRENGTHS = (0.5, 1.0, (1.0, 0.6))


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods and their merge at three strengths, one of them by groups; the base on the choose split."""
    folder = tmp_path_factory.mktemp("swept")
    build_run(
        folder,
        ("nca", "dpo", MERGE),
        plain=24,
        strengths=STRENGTHS,
        recommended=("nca", 0.5),
        chosen_base=True,
    )
    return folder


def rows_of(table: str) -> list[dict[str, str]]:
    """The first Markdown table in a text, as one dictionary a line."""
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table.split("\n\n")[0].splitlines()]
    head = [cell.strip() for cell in lines[0]]
    return [dict(zip(head, (cell.strip() for cell in line), strict=True)) for line in lines[2:]]


def test_every_point_of_the_choose_split_is_a_row(swept: Path) -> None:
    results = read_run(swept).results
    rows = strength_rows(results)
    methods = sorted(("nca", "dpo", MERGE))
    named = [f"{method}@{text}" for method in methods for text in ("0.5", "1", "1/0.6")]
    assert [row["name"] for row in rows] == ["base", *named]
    assert [row["name"] for row in rows if row["recommended"]] == ["nca@0.5"]
    assert rows[0]["safety"] == results["tradeoff"]["base"]["safety"]["global"]
    for row in rows[1:]:
        scores = results["methods"][row["method"]]["choose"][row["text"]]
        assert row["capability"] == scores["capability"]["mean"]
        assert row["mathematics"] == scores["capability"]["tasks"]["arithmetic"]
        assert row["mathematics_interval"] == scores["capability"]["intervals"]["arithmetic"]
    assert any(row["front"] for row in rows)
    drawn = {(p["method"], p["strength"]) for p in points(results) if p["split"] == "choose" and p["front"]}
    assert drawn == {(row["method"], row["strength"]) for row in rows if row["front"]}


def test_the_page_has_the_table_the_volumes_and_what_was_merged(swept: Path) -> None:
    run = read_run(swept)
    page = render(run)
    for row in strength_rows(run.results):
        assert f'data-tried="{row["name"]}"' in page
    assert page.count('<tr><th scope="row">') >= len(volume_rows(run.results)) == 3
    assert merge_lines(run.results) == ["NCA + DPO (ties): merged by ties of NCA 0.5, DPO 0.5"]
    assert merge_lines(run.results)[0] in page
    assert [row["method"] for row in training_rows(run.results)] == ["dpo", "nca"]
    assert not any(MERGE in line for line in run.missing)


def test_volumes_of_the_results_are_shown_and_computed_where_there_are_none(swept: Path) -> None:
    results: dict[str, Any] = read_run(swept).results
    own = volume_rows(results)
    assert [row["value"] for row in own] == sorted((row["value"] for row in own), reverse=True)
    given = {**results, "tradeoff": {"hypervolume": {"nca": 0.25}, "reference": {}}}
    assert [(row["method"], row["value"]) for row in volume_rows(given)] == [("nca", 0.25)]
    assert volume_rows({"methods": {}}) == []


def test_the_tables_hold_the_numbers_and_the_paired_differences(swept: Path) -> None:
    run = read_run(swept)
    gains = paired_gains(run.samples)
    lines = rows_of(document_tables([swept], "methods"))
    assert lines[0][""] == "Base" and len(lines) == 5
    nca = next(line for line in lines if line[""] == "NCA")
    assert nca["global safety"].startswith(
        f"{100 * run.results['methods']['nca']['scores']['safety']['global']:.1f} % ("
    )
    assert nca["gain, paired"].startswith(f"{100 * gains['nca']['global']['value']:+.1f} points (")
    tried = rows_of(document_tables([swept], "strengths"))
    assert len(tried) == 1 + 3 * len(STRENGTHS)
    assert [line["strength"] for line in tried[1:4]] == ["0.5", "1", "1/0.6"]
    assert (
        all(line["gain in safety, paired"] for line in tried[1:]) and not tried[0]["gain in safety, paired"]
    )
    front = rows_of(document_tables([swept], "front"))
    shown = [row for row in strength_rows(run.results) if row["front"] or row["recommended"]]
    assert len(front) == 1 + len(shown)


def test_several_runs_stand_in_one_table_and_columns_without_values_are_left_out(
    swept: Path, tmp_path: Path
) -> None:
    build_run(tmp_path / "plain", ("kto",), plain=12, strengths=(), recommended=None, ability=False)
    lines = rows_of(document_tables([swept, tmp_path / "plain"], "methods"))
    assert {line["run"] for line in lines} == {swept.name, "plain"}
    alone = rows_of(document_tables([tmp_path / "plain"], "methods"))
    assert "capability" not in alone[0] and "run" not in alone[0]
    assert "Nothing was measured." in document_tables([tmp_path / "plain"], "strengths")


def test_ability_kept_has_columns_where_it_was_asked(tmp_path: Path) -> None:
    results = build_run(tmp_path, ("kto",), plain=12, strengths=(0.5,), recommended=None, ability=False)
    scores: dict[str, Any] = {
        "ordinary": {"refused": 0.02, "interval": [0.01, 0.06], "perplexity": {"ratio": 1.25}}
    }
    scores["capability"] = {"chat": {"questions": {"score": 0.5}}, "mean_above_chance": 0.42}
    scores["changes"] = {"chat.questions": {"value": -0.125, "interval": [-0.25, 0.0], "n": 8}}
    results["methods"]["kto"]["scores"] |= scores
    results["methods"]["kto"]["choose"]["0.5"] |= {"ordinary": scores["ordinary"]}
    write_json(tmp_path / "results.json", results)
    line = rows_of(document_tables([tmp_path], "methods"))[1]
    assert line["ordinary requests not answered"] == "2.0 % (1.0 to 6.0 %)"
    assert (line["perplexity, ratio"], line["above chance"]) == ("1.250", "0.420")
    assert line["questions in the chat"] == "0.500"
    assert line["change of questions, paired"] == "-0.125 (-0.250 to +0.000)"
    assert "arithmetic in the chat" not in line
    tried = rows_of(document_tables([tmp_path], "strengths"))[0]
    assert tried["ordinary requests not answered"] == "2.0 % (1.0 to 6.0 %)"


def test_the_command_prints_a_table_and_names_the_ones_there_are(swept: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(swept), "--table", "front"])
    assert done.exit_code == 0 and done.stdout == document_tables([swept], "front")
    with pytest.raises(InputError, match="--table fronts: no such table; one of methods, strengths, front"):
        document_tables([swept], "fronts")
    assert list(TABLES) == ["methods", "strengths", "front"]


def test_merges_and_groups_have_labels() -> None:
    assert method_label("dpo+aot_unpaired.dare_ties") == "DPO + AOT unpaired (dare ties)"
    assert method_label("nca+rdpo") == "NCA + Robust DPO"
    assert point_label("nca", "1/0.6/1") == "NCA at 1/0.6/1"
    assert point_label("nca", 1.0) == "NCA"
