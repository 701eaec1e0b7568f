import copy

import pytest

from safepref.report.figures import CURVE_POINTS, capability, curves, front, heat, points, tradeoff
from safepref.report.folder import read_run
from safepref.report.gains import paired_gains
from safepref.report.sections import headline, judge_cards, recommendation, stage_groups
from safepref.report.tables import methods_table


@pytest.fixture(scope="module")
def run(made):
    return read_run(made.folder)


def test_every_scored_point_is_in_the_scatter(made):
    found = points(made.results)
    seen = {(p["split"], p["method"], p["strength"]) for p in found}
    methods = made.results["methods"]
    assert seen == {
        ("report", "base", None),
        ("report", "nca", 0.8),
        *(("report", name, 1.0) for name in methods),
        *(("choose", name, value) for name in methods for value in (0.6, 0.8, 1.0)),
    }
    for p in found:
        if p["split"] == "choose":
            scores = methods[p["method"]]["choose"][f"{p['strength']:g}"]
            assert p["safety"] == scores["safety"]["global"]
            assert p["recommended"] == (p["method"] == "nca" and p["strength"] == 0.8)


def _at(safety, price, split="report"):
    return {"safety": safety, "price": price, "split": split}


def test_front_keeps_what_no_other_point_beats():
    found = [_at(0.9, 0.5), _at(0.8, 0.6), _at(0.7, 0.55), _at(0.8, None), _at(0.95, 0.4)]
    assert front(found, "price") == [4, 0, 1]
    assert front(found, "price", low_is_better=True) == [4]
    # Points of another split are other prompts: they beat nobody here.
    assert front([*found, _at(1.0, 1.0, "choose")], "price") == [4, 0, 1, 5]


def test_no_point_off_the_front_is_unbeaten(made):
    plot = tradeoff(made.results)
    found = plot["points"]
    for split, numbers in plot["fronts"]["over_refusal"].items():
        mine = [n for n, p in enumerate(found) if p["split"] == split]
        for n in set(mine) - set(numbers):
            assert any(
                found[m]["safety"] >= found[n]["safety"]
                and found[m]["over_refusal"] <= found[n]["over_refusal"]
                for m in mine
                if m != n
            )


def test_heat_map_counts_every_judged_answer_once(made, run):
    table = heat(made.results, run.samples)
    assert table["exact"]
    for point in table["points"]:
        rows = [
            row
            for row in run.samples
            if row["suite"] == "safety" and row["split"] == "report" and row["point"] == point["name"]
        ]
        assert sum(n for *_, n in point["cells"]) == len(rows)
        assert sum(harmful for _, _, harmful, _ in point["cells"]) == sum(
            row["verdict"] == "harmful" for row in rows
        )
    titles = {category["id"]: category["macro"] for category in table["categories"]}
    assert titles["crime_theft"] == titles["crime_cyber"] != "Other"
    assert titles["house_rules"] == "Other"
    assert table["columns"][0]["id"] == "plain"


def test_heat_map_without_samples_shows_what_is_not_safe(made):
    table = heat(made.results, [])
    assert not table["exact"]
    base = made.results["base"]["safety"]
    cells = table["points"][0]["cells"]
    assert sum(n for *_, n in cells) == base["n"]
    categories = [category["id"] for category in table["categories"]]
    for category, column, bad, n in cells:
        if table["columns"][column]["id"] == "plain":
            assert 1 - bad / n == pytest.approx(base["by_category"][categories[category]])


def test_paired_gains_are_the_differences_of_the_scores(made, run):
    gains = paired_gains(run.samples)
    base = made.results["base"]
    for name, entry in made.results["methods"].items():
        scores, gain = entry["scores"], gains[name]
        for key, before, after in (
            ("global", base["safety"]["global"], scores["safety"]["global"]),
            ("over_refusal", base["over_refusal"]["rate"], scores["over_refusal"]["rate"]),
            ("toxicity_adversarial", base["toxicity"]["adversarial"], scores["toxicity"]["adversarial"]),
            ("capability", base["capability"]["mean"], scores["capability"]["mean"]),
        ):
            assert gain[key]["value"] == pytest.approx(after - before, abs=1e-12)
            low, high = gain[key]["interval"]
            assert low <= gain[key]["value"] <= high


def test_mcnemar_stands_beside_global_safety_and_counts_plain_requests_alone(run):
    gains = paired_gains(run.samples)["nca"]
    safe = {
        point: {
            row["id"]: row["verdict"] == "harmless"
            for row in run.samples
            if row["suite"] == "safety"
            and row["attack"] is None
            and (row["point"], row["split"]) == (point, "report")
        }
        for point in ("base", "nca")
    }
    test = gains["global"]["plain"]
    assert test["only_point"] == sum(safe["nca"][key] and not safe["base"][key] for key in safe["base"])
    assert test["only_base"] == sum(safe["base"][key] and not safe["nca"][key] for key in safe["base"])
    assert 0 < test["p_value"] <= 1
    assert all(gains[key]["plain"] is None for key in gains if key != "global")


def test_no_gain_from_other_prompts(run):
    fewer = [row for row in run.samples if not (row["point"] == "dpo" and row["id"] == "s3/")]
    gains = paired_gains(fewer)
    assert "global" not in gains["dpo"] and "over_refusal" in gains["dpo"]
    assert "global" in gains["nca"]


def test_headline_is_safety_with_its_price(made, run):
    items = headline(methods_table(made.results), paired_gains(run.samples))
    assert [item["key"] for item in items][:3] == ["global", "over_refusal", "capability"]
    assert items[0]["change"] == "better" and items[1]["change"] == "worse"
    chosen = made.results["recommended"]["scores"]
    assert items[0]["after"] == chosen["safety"]["global"]
    assert items[0]["gain"]["value"] == pytest.approx(items[0]["after"] - items[0]["before"])


def test_a_recommended_point_below_the_floor_is_marked(made):
    low = made.results["methods"]["nca"]["choose"]["0.8"]["safety"]["interval"][0]
    for floor, missed in ((low + 0.01, True), (low, False)):
        choice = recommendation(made.results, {"recipe": {"report": {"safety_floor": floor}}})
        assert choice["title"] == "NCA at strength 0.8"
        assert choice["why"] == "It keeps the most ability."
        assert (choice["floor"] == floor) == missed
    assert recommendation({"methods": {}}, {})["title"] == ""


def test_long_curves_are_thinned_and_keep_both_ends():
    rows = [
        {"step": step, "loss": 1 / step, "kinds": {"harmful": {"n": 2, "chosen": 1.0, "rejected": -step}}}
        for step in range(1, 5002)
    ]
    rows[0]["kinds"] = {}
    [curve] = curves({"nca": rows})
    assert len(curve["steps"]) <= CURVE_POINTS + 1
    assert (curve["steps"][0], curve["steps"][-1]) == (1, 5001)
    assert curve["kinds"]["harmful"]["chosen"][:2] == [None, 1.0]
    assert curve["kinds"]["harmful"]["rejected"][-1] == -5001
    assert all(len(x) == len(curve["steps"]) for side in curve["kinds"].values() for x in side.values())


def test_all_pairs_are_weighted_by_their_number():
    kinds = {
        "harmful": {"n": 3, "chosen": 2.0, "rejected": -4.0},
        "harmless": {"n": 1, "chosen": -2.0, "rejected": 0.0},
    }
    [curve] = curves({"nca": [{"step": 1, "loss": 1.0, "kinds": kinds}]})
    assert curve["kinds"]["all"] == {"chosen": [1.0], "rejected": [-3.0]}


def test_capability_keeps_tasks_that_only_some_points_have(made):
    results = copy.deepcopy(made.results)
    del results["base"]["capability"]["tasks"]["piqa"]
    table = capability(results)
    at = [task["id"] for task in table["tasks"]].index("piqa")
    by_name = {point["name"]: point for point in table["points"]}
    assert by_name["base"]["scores"][at] is None
    assert by_name["dpo"]["scores"][at] == results["methods"]["dpo"]["scores"]["capability"]["tasks"]["piqa"]


def test_measurements_are_found_wherever_a_card_holds_them():
    figures = {"sensitivity": 0.9, "specificity": 0.8, "n": 10}
    cards = {
        "report": {"judge": "a", "calibration": {"Do-Not-Answer": figures}},
        "select": {"judge": "b", "measured": [{**figures, "data": "XSTest"}]},
        "other": {"judge": "c"},
    }
    found = {card["name"]: [m["data"] for m in card["measured"]] for card in judge_cards(cards)}
    assert found == {"a": ["Do-Not-Answer"], "b": ["XSTest"], "c": []}


def test_times_of_all_stages_add_up(run):
    table = stage_groups(run.manifest)
    assert sum(group["share"] for group in table["groups"]) == pytest.approx(1)
    assert sum(len(group["stages"]) for group in table["groups"]) == len(run.manifest["stages"])
    assert stage_groups({})["groups"] == []
