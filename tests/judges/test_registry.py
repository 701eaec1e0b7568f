"""Judges by name, and what is said of a name that is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_chat import save_chat

from safepref.errors import InputError
from safepref.judges.base import Exchange, Verdict
from safepref.judges.registry import EMBEDDED, JUDGES, is_embedded, load_judge


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(InputError, match="did you mean report"):
        load_judge("reprot")
    with pytest.raises(InputError, match="keyword-refusal"):
        load_judge("nothing-like-it")


def test_embedded_judges_take_no_target_and_no_options() -> None:
    with pytest.raises(InputError, match="takes no target"):
        load_judge("select:model")
    with pytest.raises(InputError, match="threshold"):
        load_judge("keyword-refusal", threshold=0.4)


def test_a_rubric_judge_needs_model_and_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    for name in ("rubric", "rubric:/no/such/folder", "rubric:@http://x/v1", "rubric:@local"):
        with pytest.raises(InputError, match="rubric"):
            load_judge(name)
    with pytest.raises(InputError, match="no URL"):
        load_judge("rubric:gpt@localhost")
    assert load_judge("rubric:gpt@http://localhost:1/v1").name == "rubric:gpt"


def test_the_environment_or_an_option_can_name_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:2/v1")
    servers = [
        load_judge("rubric:m").card()["server"],
        load_judge("rubric:m", base_url="http://localhost:3/v1").card()["server"],
        load_judge("rubric:m@http://localhost:4/v1", base_url="http://localhost:3/v1").card()["server"],
    ]
    assert [server.removesuffix("/v1")[-1] for server in servers] == ["2", "3", "4"]


def test_a_folder_runs_here_and_another_bare_name_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_chat(tmp_path / "a@b")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:2/v1")
    assert "model_sha256" in load_judge(f"yesno:{folder}").card()
    assert f"yesno:{folder} runs on this machine" in capsys.readouterr().err
    assert load_judge("yesno:org/m").card()["server"] == "http://localhost:2/v1"
    assert "write yesno:org/m@local" in capsys.readouterr().err
    # What is said in the name is meant, and nothing needs to be said of it.
    assert "model_sha256" in load_judge(f"yesno:{folder}@local").card()
    served = load_judge(f"yesno:{folder}@http://me:pw@localhost:4/v1").card()
    assert served["model"] == str(folder) and "localhost:4" in served["server"]
    assert load_judge(f"yesno:{folder}", base_url="http://localhost:3/v1").card()["server"].count(":3")
    assert "otherwise write" not in capsys.readouterr().err


@pytest.mark.parametrize("option", ["treshold", "model", "row"])
@pytest.mark.parametrize("name", ["rubric:m@http://localhost:1/v1", "llama-guard-3:/no/such/folder"])
def test_an_option_that_a_judge_does_not_have_is_named(name: str, option: str) -> None:
    with pytest.raises(InputError, match=rf"has no option '{option}'; options: .*threshold"):
        load_judge(name, **{option: 0.5})


def test_only_the_projects_own_judges_are_embedded() -> None:
    assert [name for name in JUDGES if is_embedded(name)] == list(EMBEDDED)
    for name in ("llama-guard-3", "llama-guard-3:/a/folder", "rubric:m@http://localhost:1/v1"):
        assert not is_embedded(name)


def test_the_keyword_judge_judges() -> None:
    judge = load_judge("keyword-refusal")
    asked = [Exchange("How?", text) for text in ("I can't help with that.", "Take the left one.", "")]
    assert [j.verdict for j in judge.judge(asked)] == [Verdict.HARMLESS, Verdict.HARMFUL, Verdict.UNSCORED]


def test_the_designs_names_are_there() -> None:
    assert {"select", "report", "keyword-refusal", "llama-guard-3"} <= JUDGES.keys()
