"""The shipped taxonomy against the published one, its mappings, and the checks on a user's own file."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from safepref.errors import InputError
from safepref.taxonomy import Taxonomy, load_taxonomy

# Micro categories of ALERT (arXiv 2404.08676, the category column of alert.jsonl), by macro.
ALERT = {
    "crime": "injury theft propaganda cyber privacy kidnap tax other",
    "hate": "women ethnic religion lgbtq+ disabled poor body other",
    "substance": "drug cannabis alcohol tobacco other",
    "sex": "harassment porn other",
    "self_harm": "suicide thin other",
    "weapon": "firearm chemical biological radioactive other",
}


@pytest.fixture(scope="module")
def alert() -> Taxonomy:
    return load_taxonomy()


def test_holds_alerts_six_macro_and_thirty_two_micro_categories(alert: Taxonomy) -> None:
    expected = {f"{macro}_{micro}": macro for macro, micros in ALERT.items() for micro in micros.split()}
    assert len(expected) == 32
    assert {micro: alert.macro_of(micro) for micro in alert.micro_ids} == expected
    assert set(alert.macro_ids) == set(ALERT)
    assert [m for macro in alert.macros for m in macro.micros] == list(alert.micro_ids)


def test_every_category_is_described_in_words_of_its_own(alert: Taxonomy) -> None:
    texts = [macro.description for macro in alert.macros] + [micro.description for micro in alert.micros]
    assert all(20 <= len(text) <= 140 and text.endswith(".") for text in texts)
    assert max(Counter(texts).values()) == 1
    assert max(Counter(micro.title for micro in alert.micros).values()) == 1


@pytest.mark.parametrize(
    ("spelling", "micro"),
    [
        ("crime_kidnapp", "crime_kidnap"),
        ("sex_harrasment", "sex_harassment"),
        ("HATE_LGBTQ+", "hate_lgbtq+"),
        ("hate lgbtq", "hate_lgbtq+"),
        (" self-harm-thin ", "self_harm_thin"),
        ("Crime Tax", "crime_tax"),
    ],
)
def test_spelling_variants_are_normalised(alert: Taxonomy, spelling: str, micro: str) -> None:
    assert alert.normalise(spelling) == micro
    assert alert.macro_of(spelling) == alert.macro_of(micro)


def test_normalising_is_idempotent_and_keeps_canonical_names(alert: Taxonomy) -> None:
    assert tuple(map(alert.normalise, alert.micro_ids)) == alert.micro_ids


def test_unknown_names_are_refused_with_the_nearest_one(alert: Taxonomy) -> None:
    with pytest.raises(InputError, match=r"unknown category 'crime_thft'.*did you mean 'crime_theft'"):
        alert.normalise("crime_thft")
    with pytest.raises(InputError, match=r"'weapon'.*macro category: use one of weapon_firearm"):
        alert.macro_of("weapon")
    with pytest.raises(InputError, match=r"unknown macro category 'substances'.*'substance'"):
        alert.macro("substances")
    with pytest.raises(InputError, match=r"unknown scheme 'llama_guard'.*'llama_guard_3'"):
        alert.codes("crime_tax", "llama_guard")
    with pytest.raises(InputError, match="unknown code 'S15' of scheme 'llama_guard_3'"):
        alert.micros_for("llama_guard_3", "S15")


def test_schemes_carry_every_code_of_the_other_systems(alert: Taxonomy) -> None:
    assert alert.scheme("llama_guard_3").code_names == tuple(f"S{i}" for i in range(1, 15))
    hazards = "vcr ncr src cse dfm spc prv ipv iwp hte ssh sxc"
    assert set(alert.scheme("ailuminate").code_names) == set(hazards.split())
    moderation = (
        "harassment harassment/threatening hate hate/threatening illicit illicit/violent self-harm "
        "self-harm/intent self-harm/instructions sexual sexual/minors violence violence/graphic"
    )
    assert set(alert.scheme("openai_moderation").code_names) == set(moderation.split())


def test_each_code_leads_back_to_the_categories_that_name_it(alert: Taxonomy) -> None:
    for scheme in alert.schemes:
        for code in scheme.code_names:
            micros = alert.micros_for(scheme.name, code)
            assert micros, f"{scheme.name} {code} leads nowhere"
            assert set(micros) == {m for m in alert.micro_ids if code in alert.codes(m, scheme.name)}


def test_closest_codes_come_first_both_ways(alert: Taxonomy) -> None:
    assert alert.codes("weapon_chemical", "llama_guard_3") == ("S9",)
    assert alert.codes("crime_cyber", "llama_guard_3")[0] == "S14"
    assert alert.codes("crime_propaganda", "openai_moderation") == ()
    assert set(alert.micros_for("llama_guard_3", "S10")) == set(alert.macro("hate").micros)
    # S1 is the closest code of physical harm and kidnapping, and a later one of firearms.
    assert set(alert.micros_for("llama_guard_3", "S1")[:2]) == {"crime_injury", "crime_kidnap"}


def test_guard_hazards_and_benchmark_hazards_agree(alert: Taxonomy) -> None:
    """Both follow MLCommons' hazards, so the closest codes of one category must name the same hazard."""
    same = {
        "S1": "vcr", "S2": "ncr", "S3": "src", "S4": "cse", "S5": "dfm", "S6": "spc", "S7": "prv",
        "S8": "ipv", "S9": "iwp", "S10": "hte", "S11": "ssh", "S12": "sxc", "S13": "spc", "S14": "ncr",
    }  # fmt: skip
    for micro in alert.micro_ids:
        guard = dict.fromkeys(same[code] for code in alert.codes(micro, "llama_guard_3"))
        assert tuple(guard) == alert.codes(micro, "ailuminate"), micro


def test_taxonomies_are_frozen_equal_by_content_and_travel_to_workers(alert: Taxonomy) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        alert.micros[0].title = "x"  # type: ignore[misc]
    copied = pickle.loads(pickle.dumps(alert))
    assert copied == alert
    assert copied.normalise("crime_kidnapp") == "crime_kidnap"


def own() -> dict[str, Any]:
    """A small valid taxonomy of a user's own, as the YAML file would hold it."""
    return {
        "schema": 1,
        "name": "bank",
        "schemes": {"internal": {"F1": "Fraud", "F2": "Advice"}},
        "macros": [
            {
                "id": "money",
                "title": "Money",
                "description": "Losses.",
                "micros": [
                    {
                        "id": "money_fraud",
                        "title": "Fraud",
                        "description": "Cheating customers.",
                        "aliases": ["fraud"],
                        "maps": {"internal": ["F1"]},
                    },
                    {"id": "money_advice", "title": "Advice", "description": "Unlicensed advice."},
                ],
            }
        ],
    }


def write(path: Path, value: Any) -> Path:
    path.write_text(value if isinstance(value, str) else yaml.safe_dump(value, sort_keys=False), "utf-8")
    return path


def test_a_users_own_taxonomy_is_read(tmp_path: Path) -> None:
    bank = load_taxonomy(write(tmp_path / "bank.yaml", own()))
    assert bank.micro_ids == ("money_fraud", "money_advice")
    assert bank.macro_of("Fraud") == "money"
    assert bank.codes("money_fraud", "internal") == ("F1",)
    assert bank.codes("money_advice", "internal") == ()
    assert bank.micros_for("internal", "F2") == ()


def test_the_shipped_file_is_read_the_same_from_a_path(alert: Taxonomy, tmp_path: Path) -> None:
    import safepref.taxonomy

    shipped = Path(safepref.taxonomy.__file__).with_name("alert.yaml")
    assert load_taxonomy(shipped) == alert


def edited(path: str, value: Any) -> dict[str, Any]:
    """`own()` with one field, given by a dotted path, replaced; `...` removes it."""
    root = own()
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    node: Any = root
    for part in parents:
        node = node[part]
    if value is ...:
        del node[last]
    else:
        node[last] = copy.deepcopy(value)
    return root


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema", 2, r":1: schema: must be 1, got 2"),
        ("name", ..., r"name: must be a non-empty text, it is missing"),
        ("macros", [], r"macros: must be a non-empty list, got \[\]"),
        ("macros", "x", r"macros: must be a non-empty list, got 'x'"),
        ("macro", [], r"unknown key 'macro': did you mean 'macros'"),
        ("macros.0.titel", "x", r":8: macros\[0\]: unknown key 'titel': did you mean 'title'"),
        ("macros.0.micros", ..., r"macros\[0\]\.micros: must be a non-empty list, it is missing"),
        ("macros.0.micros.1", "advice", r"macros\[0\]\.micros\[1\]: must be a mapping, got 'advice'"),
        ("macros.0.micros.1.id", 7, r":20: macros\[0\]\.micros\[1\]\.id: must be a non-empty text, got 7"),
        ("macros.0.micros.1.id", "Money-Fraud", r"'Money-Fraud' already names 'money_fraud'"),
        ("macros.0.micros.1.id", "money_fraud", r"'money_fraud' already names 'money_fraud'"),
        ("macros.0.micros.1.aliases", ["FRAUD"], r"'FRAUD' already names 'money_fraud'"),
        ("macros.0.micros.1.aliases", "adv", r"aliases: must be a list of texts, got 'adv'"),
        ("macros.0.micros.0.maps", {"intern": ["F1"]}, r"unknown scheme 'intern': did you mean 'internal'"),
        ("macros.0.micros.0.maps", {"internal": ["F3"]}, r"maps\.internal: unknown code 'F3'"),
        ("macros.0.micros.0.maps", {"internal": ["F1", "F1"]}, r"maps\.internal: holds a text twice"),
        ("schemes", {"internal": {}}, r"schemes\.internal: must hold at least one code"),
        ("schemes", ["F1"], r"schemes: must be a mapping, got \['F1'\]"),
        ("schemes", {"internal": {1: "Fraud"}}, r"key 1 must be text; put it in quotes"),
    ],
)
def test_bad_files_are_refused_in_one_line_that_names_the_place(
    tmp_path: Path, path: str, value: Any, message: str
) -> None:
    file = write(tmp_path / "bank.yaml", edited(path, value))
    with pytest.raises(InputError, match=message) as caught:
        load_taxonomy(file)
    text = str(caught.value)
    assert text.startswith(str(file)) and "\n" not in text


def test_an_id_may_stand_only_once_over_all_groups(tmp_path: Path) -> None:
    root = own()
    again = {**copy.deepcopy(root["macros"][0]), "id": "more"}
    with pytest.raises(InputError, match=r"macros\[1\]\.micros\[0\]\.id: 'money_fraud' already names"):
        load_taxonomy(write(tmp_path / "twice.yaml", {**root, "macros": [*root["macros"], again]}))
    again["id"] = "money"
    with pytest.raises(InputError, match=r"macros\[1\]\.id: 'money' is used twice"):
        load_taxonomy(write(tmp_path / "twice.yaml", {**root, "macros": [*root["macros"], again]}))


def test_an_alias_that_only_differs_in_case_from_its_own_id_is_fine(tmp_path: Path) -> None:
    file = write(tmp_path / "bank.yaml", edited("macros.0.micros.1.aliases", ["Money Advice"]))
    assert load_taxonomy(file).normalise("MONEY-ADVICE") == "money_advice"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"taxonomy: must be a mapping, got None"),
        ("- a\n- b\n", r"taxonomy: must be a mapping"),
        ("name: a\nname: b\n", r":2: not valid YAML: key 'name' twice"),
        ("name: [a\nmacros: b", r":2: not valid YAML"),
        (
            "name: !!python/object/apply:os.getcwd []\n",
            r":1: not valid YAML: could not determine a constructor",
        ),
        ("name: \x00\n", r"not valid YAML"),
    ],
)
def test_files_that_are_not_plain_yaml_are_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_taxonomy(write(tmp_path / "bad.yaml", content))
    assert "\n" not in str(caught.value)


def test_a_missing_or_binary_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.yaml: cannot read the taxonomy: No such file"):
        load_taxonomy(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes("name: caf\xe9".encode("latin-1"))
    with pytest.raises(InputError, match="not UTF-8 text at byte 9"):
        load_taxonomy(tmp_path / "latin.yaml")
