import json
import re
import shutil
from html.parser import HTMLParser

import pytest
from run_folder import HOSTILE, build_run

from safepref.errors import InputError
from safepref.report import write_report
from safepref.report.html import script_json
from safepref.store import read_json, write_json

TWELVE = ("dpo", "rdpo", "ipo", "slic", "kto", "exo", "nca", "sppo", "aot", "orpo", "bco", "aot_unpaired")


class Page(HTMLParser):
    """Counts what is in a page: elements, their attributes, visible text, text of scripts."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.elements, self.text, self.scripts, self._in = [], [], [], None
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._in = tag
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._in = None

    def handle_data(self, data):
        if self._in:
            self.scripts[-1] += data
        else:
            self.text.append(data)

    def find(self, tag, **wanted):
        return [a for t, a in self.elements if t == tag and all(a.get(k) == v for k, v in wanted.items())]


@pytest.fixture(scope="module")
def page(made):
    return Page(made.page)


def _data(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.S).group(1))


def test_headline_has_the_numbers_of_the_results(made, page):
    text = re.findall(r'data-headline="(\w+)".*?data-value="([^"]*)".*?data-value="([^"]*)"', made.page, re.S)
    base, chosen = made.results["base"], made.results["recommended"]["scores"]
    assert {key: (float(a), float(b)) for key, a, b in text} == {
        "global": (base["safety"]["global"], chosen["safety"]["global"]),
        "over_refusal": (base["over_refusal"]["rate"], chosen["over_refusal"]["rate"]),
        "capability": (base["capability"]["mean"], chosen["capability"]["mean"]),
        "toxicity_adversarial": (base["toxicity"]["adversarial"], chosen["toxicity"]["adversarial"]),
    }


def test_table_of_methods_has_every_number(made, page):
    body = re.search(r'id="methods-table".*?<tbody>(.*?)</tbody>', made.page, re.S).group(1)
    rows = {
        name: dict(re.findall(r'<td data-key="([^"]+)" data-sort="([^"]*)"', row))
        for name, row in re.findall(r'<tr[^>]*data-point="([^"]+)">(.*?)</tr>', body, re.S)
    }
    assert set(rows) == {"base", "nca", "dpo", "slic", "nca@0.8"}
    for name, entry in made.results["methods"].items():
        safety = entry["scores"]["safety"]
        assert float(rows[name]["global"]) == safety["global"]
        assert float(rows[name]["unscored"]) == safety["unscored"]
        for attack, rate in safety["asr"].items():
            assert float(rows[name][f"asr.{attack}"]) == rate
        for task, score in entry["scores"]["capability"]["tasks"].items():
            assert float(rows[name][f"task.{task}"]) == score
    assert len(page.find("tr", **{"class": "published"})) == 2


def test_hostile_answers_never_become_markup(made, page):
    assert not page.find("img") and not page.find("svg")
    assert len(page.find("script")) == 3
    assert page.scripts[1].lstrip().startswith('{"tradeoff"')
    answers = {row[3] for row in _data(made.page)["samples"]["rows"]}
    for text in HOSTILE:
        assert any(answer[:200] == text[:200] for answer in answers)


def test_names_from_files_are_escaped(made, page):
    assert "A Processor <64> @ 2 GHz" in "".join(page.text)
    assert "<tiny> & model" in "".join(page.text)
    assert not page.find("tiny")


def test_the_page_asks_for_nothing_from_outside(made, page):
    for tag, attributes in page.elements:
        for name in ("src", "href", "action", "data"):
            if name in attributes:
                assert attributes[name].startswith(("#", "data:")), (tag, attributes)
    [policy] = [a["content"] for a in page.find("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "@import" not in made.page.split("</style>")[0] and "url(" not in made.page.split("</style>")[0]


def test_script_data_survives_any_text():
    texts = [*HOSTILE, "</script>", "<!--<script>", "]]>", "&amp;"]
    written = script_json(texts)
    assert json.loads(written) == texts
    assert "<" not in written and ">" not in written and "\u2028" not in written


def test_same_folder_same_page(made):
    assert write_report(made.folder).read_text(encoding="utf-8") == made.page


def test_what_is_missing_is_said(made, tmp_path):
    folder = tmp_path / "bare"
    folder.mkdir()
    shutil.copy(made.folder / "results.json", folder)
    text = " ".join("".join(Page(write_report(folder).read_text(encoding="utf-8")).text).split())
    for part in (
        "manifest.json is not there",
        "judges.json is not there",
        "logs/nca/training_log.jsonl is not",
    ):
        assert f"Missing: {part}" in text
    assert "holds no samples" in text
    assert "Global safety" in text and "DPO" in text


@pytest.mark.parametrize("part", ["safety", "toxicity", "over_refusal", "capability"])
def test_a_run_without_one_of_the_measures(made, tmp_path, part):
    results = read_json(made.folder / "results.json")
    for entry in results["methods"].values():
        for scores in (entry["scores"], *entry["choose"].values()):
            scores[part] = None
    results["base"][part] = results["recommended"]["scores"][part] = None
    write_json(tmp_path / "results.json", results)
    text = "".join(Page(write_report(tmp_path).read_text(encoding="utf-8")).text)
    assert "None" not in text


def test_nothing_recommended_and_one_method(tmp_path):
    build_run(tmp_path, ("aot_unpaired",), plain=12, strengths=(), recommended=None, ability=False)
    page = write_report(tmp_path).read_text(encoding="utf-8")
    text = "".join(Page(page).text)
    assert "Nothing is recommended." in text and "Every point is over the ceiling." in text
    assert "Capability was not measured" in text
    assert "AOT unpaired" in text and "None" not in text
    assert _data(page)["capability"] is None


def test_twelve_methods_stay_small(tmp_path):
    results = build_run(tmp_path, TWELVE, plain=24, strengths=(0.5, 1.0), recommended=("kto", 0.5))
    path = write_report(tmp_path)
    page = path.read_text(encoding="utf-8")
    assert set(re.findall(r'data-point="([^"]+)"', page)) == {"base", *TWELVE, "kto@0.5"}
    assert {c["method"] for c in _data(page)["curves"]} == set(results["methods"])
    assert path.stat().st_size < 25e6


def test_not_a_number_is_not_measured(made, tmp_path):
    text = (made.folder / "results.json").read_text(encoding="utf-8")
    results = json.loads(text)
    results["base"]["capability"]["mean"] = float("nan")
    (tmp_path / "results.json").write_text(json.dumps(results), encoding="utf-8")
    point = _data(write_report(tmp_path).read_text(encoding="utf-8"))["tradeoff"]["points"][0]
    assert point["method"] == "base" and point["capability"] is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        ("[]", "schema"),
        ('{"schema": 2}', "schema is 2"),
        ('{"schema": 1, "model": "m", "methods": {}}', "'base' is missing"),
        ('{"schema": 1, "model": "m", "base": {}, "methods": {"nca": {}}}', "methods.nca has no scores"),
        ("{", ":1: not JSON"),
    ],
)
def test_a_folder_that_is_no_run_is_refused_in_one_line(tmp_path, content, words):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        write_report(tmp_path)
    assert "results.json" in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"suite": "saf', "not a JSON object"),
        ('{"suite": "savety", "id": "1"}', "suite is 'savety'"),
        ('{"suite": "capability", "id": "1"}', "'value' is missing"),
    ],
)
def test_a_spoilt_sample_row_is_named(made, tmp_path, line, words):
    shutil.copy(made.folder / "results.json", tmp_path)
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "report.dpo.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        write_report(tmp_path)
    assert "report.dpo.jsonl:1" in str(caught.value)


def test_importing_the_report_loads_no_torch_and_no_plotly():
    import subprocess
    import sys

    code = (
        "import safepref.report, sys; print([m for m in ('torch', 'plotly', 'jinja2') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
