"""Ordinary requests: refusals by the rule of over-refusal, and the base's own answers under the policy."""

from __future__ import annotations

import math

import pytest
import torch
from evaluation_rules import REFUSAL, RuleEngine, make_judges, make_prompt
from transformers import LlamaConfig, LlamaForCausalLM

from safepref.data.render import render_completion
from safepref.evaluation import EvaluationSuite, Policy, base_answers, evaluate
from safepref.evaluation.nats import Given, answer_nats, per_token
from safepref.evaluation.tasks import STYLES, CapabilityTask
from safepref.generation.base import Sampling
from safepref.store import read_jsonl

ASKED = tuple(make_prompt(text, kind="general") for text in ("capital", "boil an egg", "loop", "a poem"))


FRENCH = "Je suis désolé, mais je ne peux pas vous aider avec cette demande."


def llama(tokenizer, seed=0):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config).eval()


def rule(text):
    return {"capital": REFUSAL, "loop": "...", "a poem": FRENCH}.get(text, "A fine answer")


def plain_nats(model, tokenizer, prompt, text, truncated=False, system=None):
    """By a forward pass of its own."""
    prompt_ids, ids, _ = render_completion(tokenizer, prompt.messages, text, system)
    ids = ids[:-1] if truncated else ids
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt_ids, *ids]])).logits[0].log_softmax(-1)
    places = range(len(prompt_ids) - 1, len(prompt_ids) + len(ids) - 1)
    return -sum(float(logits[at, token]) for at, token in zip(places, ids, strict=True)), len(ids)


def test_what_is_not_an_answer_counts_as_refused(tmp_path):
    suite = EvaluationSuite(ordinary=ASKED, draws=50)
    found = evaluate(Policy("p", RuleEngine(rule)), suite, make_judges(), samples_dir=tmp_path)["ordinary"]
    assert (found["refused"], found["n"]) == (0.75, 4)
    assert found["parts"] == {"refused": 0.25, "degenerate": 0.25, "unscored": 0.25}
    assert found["unread"] == {"not English (French)": 1}
    assert found["interval"][0] < 0.75 < found["interval"][1]
    assert found["perplexity"] is None
    assert [row["answered"] for row in read_jsonl(tmp_path / "ordinary.jsonl")] == [False, True, False, False]


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_perplexity_is_the_exponential_of_the_mean_difference_over_all_tokens(tmp_path, tokenizer, system):
    base, policy = llama(tokenizer), llama(tokenizer, seed=1)
    said = RuleEngine(lambda text: "" if text == "loop" else f"the {text} is a city " * (1 + len(text) % 3))
    engine = RuleEngine(lambda text: f"{said.rule(text)}long" if text == "a poem" else said.rule(text))
    first = Policy("base", engine, base, tokenizer, base=True)
    path = tmp_path / "base.jsonl"
    answers = base_answers(first, ASKED, Sampling(8), path, system=system)
    assert base_answers(first, ASKED, Sampling(8), path) == answers and len(engine.blocks) == 1
    suite = EvaluationSuite(ordinary=ASKED, base_answers=answers, system=system, draws=50)
    mine = evaluate(first, suite, make_judges(), samples_dir=tmp_path / "b")["ordinary"]["perplexity"]
    assert mine["ratio"] == 1.0 and mine["interval"] == [1.0, 1.0]
    other = Policy("other", RuleEngine(rule), policy, tokenizer)
    found = evaluate(other, suite, make_judges(), samples_dir=tmp_path / "o")["ordinary"]["perplexity"]
    sums = [
        plain_nats(model, tokenizer, prompt, answers[prompt.id].text, answers[prompt.id].truncated, system)
        for model in (base, policy)
        for prompt in ASKED
    ]
    tokens = sum(count for _, count in sums[:4])
    drift = sum(n for n, _ in sums[4:]) - sum(n for n, _ in sums[:4])
    assert found["tokens"] == tokens and found["n"] == 4
    assert found["ratio"] == pytest.approx(math.exp(drift / tokens), rel=1e-4)
    assert found["interval"][0] < found["ratio"] < found["interval"][1]


def test_a_cut_answer_is_scored_without_its_end_and_an_empty_one_has_no_tokens(tmp_path, tokenizer):
    policy = Policy("p", RuleEngine(rule), llama(tokenizer), tokenizer)
    given = [Given(ASKED[0].messages, "a city"), Given(ASKED[0].messages, "a city", True)]
    given.append(Given(ASKED[0].messages, "", True))
    whole, cut, empty = answer_nats(policy, given, tmp_path)
    assert whole.tokens == cut.tokens + 1 and whole.nats > cut.nats
    assert (empty.nats, empty.tokens) == (0.0, 0)
    assert answer_nats(policy, given, tmp_path) == [whole, cut, empty]


def test_tokens_count_alike_and_answers_are_drawn_whole():
    found = per_token([1.0, 8.0], [1, 4], draws=200)
    assert found.value == pytest.approx(9 / 5)
    assert list(found.interval) == [1.0, 2.0]


def test_worked_answers_are_scored_in_the_chat_format_beside_no_mean(tmp_path, tokenizer):
    model = llama(tokenizer)
    rows = tuple({"question": f"what is {n}?", "answer": f"a dog {n}\n#### {n}"} for n in range(3))
    suite = EvaluationSuite(nats=(CapabilityTask("gsm8k", STYLES["solution"], rows),), draws=50)
    policy = Policy("p", RuleEngine(rule), model, tokenizer)
    found = evaluate(policy, suite, make_judges(), samples_dir=tmp_path)["capability"]
    sums = [plain_nats(model, tokenizer, make_prompt(r["question"]), r["answer"]) for r in rows]
    wanted = sum(n for n, _ in sums) / sum(count for _, count in sums)
    assert found["nats"] == {"gsm8k": pytest.approx(wanted, rel=1e-4)}
    assert found["mean"] is None and found["tasks"] == {}
