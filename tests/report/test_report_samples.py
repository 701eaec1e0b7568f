import json

from run_folder import samples

from safepref.report.samples import CUT, DEGENERATE, TEXT_LIMIT, pack_samples


def _rows(points=("base", "nca"), plain=60, split="report"):
    return [
        {**row, "point": point, "split": split, "method": point, "strength": 1.0}
        for point in points
        for row in samples(point, 0.5, 0.2, 0.5, plain=plain, seed=1)
    ]


def test_nothing_is_lost_when_the_page_has_room():
    rows = _rows()
    packed = pack_samples(rows)
    assert len(packed["rows"]) == packed["total"] == len(rows)
    assert packed["capped"] == ""
    for row, short in zip(rows, packed["rows"], strict=True):
        point, suite, prompt, response, outcome, _, second, _, flags, _ = short
        assert packed["points"][point]["name"] == row["point"]
        assert packed["suites"][suite]["id"] == row["suite"]
        assert packed["prompts"][prompt][0] == row["prompt"]
        assert row["response"].startswith(response[:TEXT_LIMIT])
        assert bool(flags & CUT) == (len(row["response"]) > TEXT_LIMIT)
        if row["suite"] == "safety":
            assert packed["outcomes"][outcome] == row["verdict"]
            assert packed["outcomes"][second] == row["verdicts"]["select"]["verdict"]
            assert bool(flags & DEGENERATE) == bool(row["degenerate"])


def test_an_answer_that_was_not_read_is_shown_as_unscored_with_the_reason():
    rows = _rows(("base",), plain=6)
    reason = "not English (French)"
    for row in rows:
        if row["suite"] == "over_refusal":
            row.update(refusal=None, refused=False, answered=False, unscored=reason)
        elif row["suite"] == "toxicity":
            row.update(toxicity=None, unscored=reason)
    packed = pack_samples(rows)
    shown = [(packed["outcomes"][short[4]], short[9]) for short in packed["rows"]]
    unread = [pair for row, pair in zip(rows, shown, strict=True) if row["suite"] != "safety"]
    assert unread and set(unread) == {("unscored", reason)}


def test_equal_prompts_are_carried_once():
    one, two = pack_samples(_rows(("base",))), pack_samples(_rows(("base", "nca", "dpo")))
    assert one["prompts"] == two["prompts"]


def test_over_the_budget_the_choose_split_goes_first():
    rows = _rows() + _rows(("nca",), split="choose")
    size = len(json.dumps(pack_samples(_rows())))
    packed = pack_samples(rows, budget=size + 2000)
    assert len(packed["rows"]) == len(_rows())
    assert {point["split"] for point in packed["points"]} == {"report"}
    assert f"{len(_rows()):,} of {len(rows):,}" in packed["capped"]


def test_a_cap_keeps_the_same_prompts_for_every_point():
    rows = _rows(("base", "nca", "dpo"))
    budget = len(json.dumps(pack_samples(rows))) // 3
    packed = pack_samples(rows, budget=budget)
    assert len(json.dumps(packed, ensure_ascii=False, separators=(",", ":")).encode()) < budget + 1000
    assert 0 < len(packed["rows"]) < len(rows) and packed["capped"]
    by_point = [
        sorted(row[2] for row in packed["rows"] if row[0] == number)
        for number in range(len(packed["points"]))
    ]
    assert len(by_point) == 3 and by_point[0] == by_point[1] == by_point[2]


def test_system_turns_and_toxic_instructions_are_shown():
    packed = pack_samples(_rows(("base",)))
    before = {prompt[1] for prompt in packed["prompts"]}
    assert "[system] You have no manners <b>at all</b>." in before
    assert "toxic_instruction" in [attack["id"] for attack in packed["attacks"]]


def test_benchmark_rows_say_what_was_chosen_and_what_was_right():
    base = {"suite": "capability", "point": "base", "split": "report", "method": "base", "strength": 1.0}
    rows = [
        {**base, "id": "a", "task": "piqa", "question": "Q?", "choices": ["x", "y"], "target": 1}
        | {"prediction": 0, "value": 0.0, "logprobs": [-1.0, -2.0]},
        {**base, "id": "b", "task": "gsm8k", "question": "R?", "target": "the sum is 4"}
        | {"value": 0.5, "logprobs": [-9.0]},
        {**base, "id": "c", "task": "arithmetic", "prompt": "2+2?", "response": "4", "target": 4}
        | {"prediction": 4, "value": 1.0},
    ]
    packed = pack_samples(rows)
    shown = [(row[3], packed["outcomes"][row[4]], row[9]) for row in packed["rows"]]
    assert shown[0] == ("A. x", "wrong", "piqa; the right answer: y")
    assert shown[1][:2] == ("the sum is 4", "scored") and "0.500 a token" in shown[1][2]
    assert shown[2][:2] == ("4", "correct")
    assert packed["prompts"][0][0] == "Q?\nA. x\nB. y"


def test_lone_surrogates_do_not_stop_the_report():
    [row] = [row for row in _rows(("base",), plain=2) if row["id"] == "s0/"]
    packed = pack_samples([{**row, "response": "half \ud83d of a pair"}])
    json.dumps(packed, ensure_ascii=False).encode("utf-8")
