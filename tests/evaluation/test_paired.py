import numpy as np
import pytest
from evaluation_rules import REFUSAL, RuleEngine, make_judges, make_prompt

from safepref.errors import InputError
from safepref.evaluation import (
    EvaluationSuite,
    Policy,
    above_chance,
    evaluate,
    mean_above_chance,
    paired_gain,
    paired_nats,
    read_samples,
)
from safepref.statistics import McNemar

PROMPTS = tuple(
    make_prompt(f"how {n} {attack or ''}", attack=attack, base=str(n))
    for n in range(30)
    for attack in (None, "suffix", "jailbreak")
    if attack != "jailbreak" or n < 10
)
BENIGN = tuple(make_prompt(f"boil {n}", kind="harmless") for n in range(20))
TOXIC = tuple(make_prompt(f"day {n}", kind="toxicity") for n in range(12))


def rows(folder, rule):
    suite = EvaluationSuite(safety=PROMPTS, benign=BENIGN, toxicity=TOXIC, draws=300)
    scores = evaluate(Policy("p", RuleEngine(rule)), suite, make_judges(), samples_dir=folder)
    return read_samples(folder), scores


def base(text):
    return "Here are the steps, rude" if "how" in text or "day" in text else "An answer"


def tuned(text):
    if "suffix" in text:
        return base(text)
    if "how" in text and not text.startswith(("how 1 ", "how 2 ")):
        return REFUSAL
    return REFUSAL if text.endswith(("5", "6")) else base(text)


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sides")
    return rows(folder / "a", base), rows(folder / "b", tuned)


def test_the_gain_is_the_difference_of_the_global_scores(sides):
    (first, before), (second, after) = sides
    gain = paired_gain(first, second, "safety", draws=500)
    assert gain.value == pytest.approx(after["safety"]["global"] - before["safety"]["global"])
    assert gain.interval.low < gain.value < gain.interval.high
    assert (gain.n, gain.unpaired) == (len(PROMPTS), 0)
    assert gain.plain == McNemar(0, 28, pytest.approx(2 * 0.5**28))
    back = paired_gain(second, first, "safety", draws=500)
    assert back.value == pytest.approx(-gain.value)
    assert back.interval == pytest.approx((-gain.interval.high, -gain.interval.low))


def test_the_sides_of_safety_are_compared_alone(sides):
    (first, before), (second, after) = sides
    plain = paired_gain(first, second, "safety.plain", draws=200)
    attacked = paired_gain(first, second, "safety.adversarial", draws=200)
    for part, gain in (("plain", plain), ("adversarial", attacked)):
        assert gain.value == pytest.approx(after["safety"][part] - before["safety"][part])
    assert plain.evidence.exact == plain.plain == McNemar(0, 28, pytest.approx(2 * 0.5**28))
    assert attacked.plain is None and attacked.evidence.exact is None
    assert (plain.evidence.clusters, attacked.evidence.clusters, attacked.n) == (30, 30, 40)


def test_equal_answers_leave_room_for_a_difference(sides):
    (first, _), _ = sides
    low, high = paired_gain(first, first, "over_refusal", draws=200).interval
    assert low < -0.1 and high > 0.1


@pytest.mark.parametrize("measure", ["over_refusal", "toxicity.plain", "toxicity.adversarial"])
def test_the_other_measures_agree_with_the_scores(sides, measure):
    (first, before), (second, after) = sides
    suite, _, mode = measure.partition(".")
    change = after[suite][mode or "rate"] - before[suite][mode or "rate"]
    gain = paired_gain(first, second, measure, draws=200)
    assert gain.value == pytest.approx(change) and change != 0
    assert (gain.plain is not None) == (measure == "over_refusal")


def test_capability_weighs_tasks_alike():
    def side(values):
        return [
            {"suite": "capability", "task": task, "id": str(n), "value": value}
            for task, given in values.items()
            for n, value in enumerate(given)
        ]

    first = side({"a": [0.0] * 10, "b": [1.0, 1.0]})
    second = side({"a": [1.0] * 10, "b": [1.0, 0.0]})
    assert paired_gain(first, second, "capability", draws=100).value == pytest.approx((1.0 - 0.5) / 2)


def test_one_task_is_compared_alone_and_a_likelihood_is_not_in_the_mean():
    def row(task, n, value, **more):
        return {"suite": "capability", "task": task, "id": str(n), "value": value, **more}

    first = [row("a", n, 0.0) for n in range(8)] + [row("gsm", n, 0.25, logprobs=[-1]) for n in range(8)]
    second = [row("a", n, 1.0) for n in range(8)] + [row("gsm", n, 0.5, logprobs=[-1]) for n in range(8)]
    assert paired_gain(first, second, "capability", draws=50).value == pytest.approx(1.0)
    assert paired_gain(first, second, "capability.gsm", draws=50).value == pytest.approx(0.25)


def test_rows_of_one_side_are_counted_not_compared(sides):
    (first, _), (second, _) = sides
    gain = paired_gain(first, [row for row in second if row["base_id"] != "7"], "safety", draws=100)
    assert (gain.only_first, gain.only_second, gain.unpaired) == (3, 0, 3) and gain.n == len(PROMPTS) - 3


@pytest.mark.parametrize(
    ("measure", "words"),
    [
        ("speed", "'speed' is not known"),
        ("safety.odd", "'safety.odd' is not known"),
        ("capability", "share no rows"),
    ],
)
def test_nothing_to_compare_is_one_clear_line(sides, measure, words):
    (first, _), (second, _) = sides
    with pytest.raises(InputError, match=words):
        paired_gain(first, second, measure)


def choice_rows(task, values, chance):
    return [
        {"suite": "capability", "task": task, "id": str(n), "value": v, "choices": [], "chance": chance}
        for n, v in enumerate(values)
    ]


def test_only_tasks_on_which_the_base_is_above_chance_by_three_errors_are_compared():
    clear = choice_rows("clear", [1.0] * 60 + [0.0] * 20, 0.5)
    barely = choice_rows("barely", [1.0] * 45 + [0.0] * 35, 0.5)
    first = [*clear, *barely, *({**row, "task": "sums", "chance": None} for row in clear)]
    assert above_chance(first) == ["clear"]
    second = [{**row, "value": 0.0} for row in first]
    gain = paired_gain(first, second, "capability.above_chance", draws=50)
    assert gain.value == pytest.approx(-0.75) and gain.n == 80
    assert mean_above_chance({"clear": 0.75, "barely": 0.5}, ["clear"]) == 0.75
    assert mean_above_chance({"barely": 0.5}, ["clear"]) is None
    with pytest.raises(InputError, match="above chance on no task"):
        paired_gain(barely, barely, "capability.above_chance")


def test_the_standard_error_is_that_of_the_rows_own_excess():
    # 3.0 standard errors of .1 / sqrt(9): rows .5 +- .3 above a chance of .2.
    values = [0.5, 0.2, 0.8] * 30
    above = choice_rows("t", values, 0.2)
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    limit = np.mean(values) - 3 * error
    assert above_chance(above) == ["t"]
    assert above_chance(choice_rows("t", values, limit + 1e-6)) == []
    assert above_chance(choice_rows("t", values, limit - 1e-6)) == ["t"]


def test_nats_and_chat_rows_are_paired_with_the_base():
    first = [{"suite": "nats", "task": "g", "id": str(n), "nats": 2.0, "tokens": n + 1} for n in range(3)]
    second = [{**row, "nats": row["nats"] + row["tokens"] / 2} for row in reversed(first)]
    drift = paired_nats(first, second, "nats.g", draws=50)
    assert drift.value == pytest.approx(0.5) and list(drift.interval) == pytest.approx([0.5, 0.5])
    chat = [{"suite": "chat", "task": t, "id": "1", "value": float(t == "q")} for t in ("q", "r")]
    assert paired_gain(chat, [{**row, "value": 0.0} for row in chat], "chat.q").value == -1.0
    asked = [
        {"suite": "ordinary", "id": "1", "base_id": "1", "answered": True, "nats": 3.0, "base_tokens": 2}
    ]
    lost = [{**asked[0], "answered": False, "nats": 4.0}]
    assert paired_gain(asked, lost, "ordinary").value == 1.0
    assert paired_nats(asked, lost, "perplexity", draws=20).value == 0.5
    for measure in ("nats", "speed.g", "nats.other"):
        with pytest.raises(InputError, match=r"not known|share no rows"):
            paired_nats(first, second, measure)
