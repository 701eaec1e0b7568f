import pytest
from evaluation_rules import REFUSAL, RuleEngine, make_judges, make_prompt

from safepref.errors import InputError
from safepref.evaluation import EvaluationSuite, Policy, evaluate, paired_gain, read_samples
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
