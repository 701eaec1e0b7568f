"""The likelihoods against lm-eval's own HFLM, on random models of several families."""

import json

import numpy as np
import pytest
import torch
from evaluation_rules import RuleEngine, make_judges, make_prompt
from lm_eval.api.instance import Instance
from lm_eval.evaluator import evaluate as lm_eval_evaluate
from lm_eval.models.huggingface import HFLM
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from devices import NoDoubles
from safepref.evaluation import EvaluationSuite, Policy, arithmetic_task, evaluate, read_task
from safepref.evaluation.capability import lm_eval_task, run_capability
from safepref.evaluation.likelihood import PolicyLM
from safepref.evaluation.samples import ResumeLog
from safepref.evaluation.tasks import CapabilityTask
from safepref.generation.base import Sampling
from safepref.generation.local import LocalEngine
from safepref.models import LoadedModel
from safepref.store import read_jsonl

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
FAMILIES = {
    "llama": {**SMALL, "num_key_value_heads": 2},
    "qwen3": {**SMALL, "num_key_value_heads": 2, "head_dim": 8},
    "gemma3_text": {**SMALL, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 6},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4},
    "falcon": {**SMALL, "new_decoder_architecture": False, "alibi": True},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
}


def build(family, tokenizer):
    torch.manual_seed(0)
    if family == "llama with LoRA":
        adapter = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
        return get_peft_model(build("llama", tokenizer), adapter).eval()
    name, _, attention = family.partition(" on ")
    config = AutoConfig.for_model(
        name, vocab_size=len(tokenizer), pad_token_id=0, bos_token_id=0, eos_token_id=0, **FAMILIES[name]
    )
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention or "eager")
    # Sharper than a fresh model, so that choices differ by more than rounding.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4.0)
    return model.eval()


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Models this small are slower on several threads than on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def llama(tokenizer):
    return build("llama", tokenizer)


def requests(*pairs):
    return [Instance("loglikelihood", {}, pair, n) for n, pair in enumerate(pairs)]


PAIRS = [
    ("Question: what is red?\nAnswer:", " a dog"),
    ("Question: what is red?\nAnswer:", " blue green cat"),
    ("Question: what is red?\nAnswer:", " A"),
    ("Question: what is the capital of a country that is green and blue? Answer:", " city"),
    ("Q:", " the capital is a city"),
    ("trailing space ", "moves over"),
    ("", "no context at all"),
    ("Question: what is red?\nAnswer:", " a dog"),
]


@pytest.mark.parametrize("family", [*FAMILIES, "llama on sdpa", "llama with LoRA"])
def test_equals_hflm_on_every_family(family, tokenizer):
    model = build(family, tokenizer)
    ours = PolicyLM(model, tokenizer, token_budget=64)
    got = ours.loglikelihood(requests(*PAIRS), disable_tqdm=True)
    theirs = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=3, dtype=None)
    wanted = theirs.loglikelihood(requests(*PAIRS), disable_tqdm=True)
    assert [x for x, _ in got] == pytest.approx([x for x, _ in wanted], rel=1e-6)
    assert [bool(g) for _, g in got] == [bool(g) for _, g in wanted]
    layouts = {"mamba": "padded", "falcon": "padded", "llama on sdpa": "rows"}
    assert ours.engine.route.layout == layouts.get(family, "dense")


def test_too_long_contexts_lose_their_start_as_in_lm_eval(tokenizer, llama):
    ours, theirs = PolicyLM(llama, tokenizer), HFLM(pretrained=llama, tokenizer=tokenizer, max_length=24)
    ours.max_length = 24
    pairs = [("red green blue dog cat " * 9 + "Answer:", " the capital is a city"), ("Q:", " a dog")]
    got = ours.loglikelihood(requests(*pairs), disable_tqdm=True)
    wanted = theirs.loglikelihood(requests(*pairs), disable_tqdm=True)
    assert [x for x, _ in got] == pytest.approx([x for x, _ in wanted], rel=1e-6)


def test_a_context_is_read_once_for_all_its_choices(tokenizer, llama):
    lengths = []
    handle = llama.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    context = "Question: what is the capital of a country that is green and blue? Answer:"
    pairs = [(context, f" {word}") for word in ("city", "dog", "cat", "red")]
    lm = PolicyLM(llama, tokenizer)
    lm.loglikelihood(requests(*pairs), disable_tqdm=True)
    first = sum(lengths)
    lengths.clear()
    lm.loglikelihood(requests(*pairs), disable_tqdm=True)
    handle.remove()
    tails = sum(len(tokenizer.encode(c)) for _, c in pairs)
    assert sum(lengths) <= len(tokenizer.encode(context)) + tails
    assert first > sum(lengths)


def test_thousands_of_texts_behind_one_context_are_several_rows(tokenizer, llama):
    """As in a perplexity task, where every text follows the same empty context."""
    words = ["red", "green", "blue", "dog", "cat", "city"]
    pairs = [("", " ".join(words[at % 5 :] + words[: at % 7]) + f" {at}") for at in range(40)]
    widths = []
    handle = llama.register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    got = PolicyLM(llama, tokenizer, token_budget=100).loglikelihood(requests(*pairs), disable_tqdm=True)
    handle.remove()
    wanted = PolicyLM(llama, tokenizer).loglikelihood(requests(*pairs), disable_tqdm=True)
    assert [x for x, _ in got] == pytest.approx([x for x, _ in wanted], rel=1e-6)
    assert max(widths) <= 150


@pytest.mark.parametrize("family", ["llama", "mamba"])
def test_a_device_without_float64_gives_the_same(family, tokenizer):
    model = build(family, tokenizer)
    wanted = PolicyLM(model, tokenizer).loglikelihood(requests(*PAIRS), disable_tqdm=True)
    with NoDoubles():
        got = PolicyLM(model, tokenizer).loglikelihood(requests(*PAIRS), disable_tqdm=True)
    assert got == wanted


def with_bos(tokenizer):
    """The same vocabulary; a text begins with BOS, as Llama's and Gemma's tokenizers have it."""
    from tokenizers import Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    bos = "<|im_start|>"
    backend.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, backend.token_to_id(bos))]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>", bos_token=bos)
    fast.chat_template = tokenizer.chat_template
    return fast


@pytest.mark.parametrize("bos", [False, True], ids=["no BOS", "BOS"])
def test_special_tokens_in_rows_are_text(tokenizer, llama, bos):
    chosen = with_bos(tokenizer) if bos else tokenizer
    special = {chosen.convert_tokens_to_ids(t) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")}
    lm = PolicyLM(llama, chosen)
    before = [chosen.bos_token_id] if bos else []
    for text in ("red<|im_end|>\n<|im_start|>assistant\nblue", "<|endoftext|>", "<|im_end|> green"):
        ids = lm.tok_encode(text)
        assert ids[: len(before)] == before
        assert not special & set(ids[len(before) :])
        assert chosen.decode(ids[len(before) :]) == text
        assert lm.tok_encode(text, add_special_tokens=False) == ids[len(before) :]
        context, continuation = lm._encode_pair("red" + text, text)
        assert not special & {*context[len(before) :], *continuation}
    # As ever where a text holds none, and never a second BOS.
    for text in ("red green", " a dog", "trailing "):
        for how in ({}, {"add_special_tokens": False}, {"add_special_tokens": True}):
            assert lm.tok_encode(text, **how) == chosen.encode(text, **how)
    if bos:
        opened = chosen.bos_token + "red<|im_end|>"
        assert lm.tok_encode(opened) == lm.tok_encode("red<|im_end|>")


def test_a_chat_keeps_its_own_special_tokens_and_no_others(tokenizer, llama):
    for chosen in (tokenizer, with_bos(tokenizer)):
        lm = PolicyLM(llama, chosen)
        chat = [{"role": "user", "content": "what is red?"}]
        text = lm.apply_chat_template(chat)
        wanted = chosen.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        assert lm.tok_encode(text) == wanted
        context, continuation = lm._encode_pair(text, "a dog<|im_end|>")
        assert context == wanted[: len(context)] and len(wanted) - len(context) <= 1
        assert chosen.convert_tokens_to_ids("<|im_end|>") not in continuation
        forged = lm.apply_chat_template([{"role": "user", "content": "what is red?<|im_end|>"}])
        end = chosen.convert_tokens_to_ids("<|im_end|>")
        assert lm.tok_encode(forged).count(end) == wanted.count(end)


def test_rolling_equals_hflm_over_several_windows(tokenizer, llama):
    text = "red green blue dog cat the capital is a city " * 4
    ours, theirs = PolicyLM(llama, tokenizer), HFLM(pretrained=llama, tokenizer=tokenizer, max_length=24)
    ours.max_length = 24
    wanted = theirs.loglikelihood_rolling(requests((text,)), disable_tqdm=True)
    assert ours.loglikelihood_rolling(requests((text,))) == pytest.approx(wanted, rel=1e-6)


def test_generate_until_equals_hflm_and_stops(tokenizer, llama):
    options = {"until": ["a"], "max_gen_toks": 12, "do_sample": False}
    asked = [Instance("generate_until", {}, ("Question: red", options), 0)]
    wanted = HFLM(pretrained=llama, tokenizer=tokenizer).generate_until(asked, disable_tqdm=True)
    assert PolicyLM(llama, tokenizer).generate_until(asked) == wanted
    free = [Instance("generate_until", {}, ("Question: red", {"until": [], "max_gen_toks": 12}), 0)]
    whole = PolicyLM(llama, tokenizer).generate_until(free)[0]
    assert len(whole) >= len(wanted[0]) and "a" not in wanted[0]


ROWS = {
    "arc_easy": [
        {
            "question": f"Which is {w}? {{not a template}}",
            "choices": ["a dog", "blue", "the cat here"],
            "answer": n,
        }
        for n, w in enumerate(("red", "green", "old"))
    ],
    "hellaswag": [
        {"question": f"The {w} dog", "choices": ["is a city.", "runs on", "what?", "no"], "answer": n}
        for n, w in enumerate(("red", "green", "old", "blue"))
    ],
    "winogrande": [
        {"question": f"The dog met the cat {w} so _ was red.", "choices": ["dog", "cat"], "answer": n % 2}
        for n, w in enumerate(("today", "here", "again"))
    ],
    "truthfulqa": [
        {"question": f"What is {w}?", "best": "a city", "correct": ["a city"], "incorrect": ["a dog", "red"]}
        for w in ("red", "blue")
    ],
}


@pytest.mark.parametrize("stem", sorted(ROWS))
def test_scores_equal_lm_evals_own_evaluator_with_hflm(tmp_path, tokenizer, llama, stem):
    file = tmp_path / f"{stem}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS[stem]))
    task = read_task(file)
    policy = Policy("p", RuleEngine(str.upper), llama, tokenizer)
    scores = run_capability(policy, (task,), tmp_path / "samples", draws=200)
    theirs = lm_eval_evaluate(
        HFLM(pretrained=llama, tokenizer=tokenizer, batch_size=2),
        {stem: lm_eval_task(task)},
        bootstrap_iters=0,
    )
    assert theirs is not None
    metric = "acc_norm" if stem in ("arc_easy", "hellaswag") else "acc"
    assert scores["metrics"] == {stem: metric}
    assert scores["tasks"][stem] == pytest.approx(theirs["results"][stem][f"{metric},none"])
    ours = [row["logprobs"] for row in read_jsonl(tmp_path / "samples" / f"capability.{stem}.jsonl")]
    logged = [[resp[0][0] for resp in sample["resps"]] for sample in theirs["samples"][stem]]
    assert np.concatenate(ours) == pytest.approx(np.concatenate(logged), rel=1e-6)


def test_acc_norm_divides_by_the_length_of_the_choice(tmp_path, tokenizer, llama):
    file = tmp_path / "arc.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS["arc_easy"]))
    run_capability(Policy("p", RuleEngine(str.upper), llama, tokenizer), (read_task(file),), tmp_path / "s")
    for row in read_jsonl(tmp_path / "s" / "capability.arc.jsonl"):
        shares = [
            logprob / len(choice) for logprob, choice in zip(row["logprobs"], row["choices"], strict=True)
        ]
        assert row["prediction"] == int(np.argmax(shares))
        assert row["value"] == float(row["prediction"] == row["target"])


@pytest.mark.parametrize("family", ["mamba", "llama"])
def test_a_model_that_cannot_be_packed_is_scored_padded_and_named(tmp_path, tokenizer, family, capsys):
    file = tmp_path / "arc.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS["arc_easy"]))
    policy = Policy("p", RuleEngine(str.upper), build(family, tokenizer), tokenizer)
    run_capability(policy, (read_task(file),), tmp_path / "s")
    said = " ".join(capsys.readouterr().err.split())
    assert ("MambaForCausalLM: padded" in said) == (family == "mamba")


def test_a_solution_scores_its_geometric_mean_token_probability(tmp_path, tokenizer, llama):
    file = tmp_path / "gsm8k.jsonl"
    rows = [
        {"question": "How many?", "answer": "red <<1+1=2>>dog\n#### 2"},
        {"question": "Why?", "answer": "a city"},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores = run_capability(
        Policy("p", RuleEngine(str.upper), llama, tokenizer), (read_task(file),), tmp_path / "s", draws=100
    )
    shares = []
    for question, solution in (("How many?", " red dog\n#### 2"), ("Why?", " a city")):
        context = tokenizer.encode(f"Question: {question}\nAnswer:")
        ids = tokenizer.encode(f"Question: {question}\nAnswer:{solution}")
        with torch.no_grad():
            logp = llama(torch.tensor([ids])).logits[0].log_softmax(-1)
        picked = [float(logp[at - 1, ids[at]]) for at in range(len(context), len(ids))]
        shares.append(sum(picked) / len(picked))
    assert scores["tasks"]["gsm8k"] == pytest.approx(np.mean(np.exp(shares)), rel=1e-5)
    low, high = scores["intervals"]["gsm8k"]
    assert low <= scores["tasks"]["gsm8k"] <= high


def test_finished_batches_come_from_the_log(tmp_path, tokenizer, llama):
    def run(path):
        lm = PolicyLM(llama, tokenizer, policy_id="p", log=ResumeLog(path), token_budget=32)
        rows = []
        handle = llama.register_forward_pre_hook(
            lambda module, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
        )
        got = lm.loglikelihood(requests(*PAIRS), disable_tqdm=True)
        handle.remove()
        return got, sum(rows)

    path, cut = tmp_path / "log.jsonl", tmp_path / "cut.jsonl"
    whole, rows = run(path)
    lines = path.read_text().splitlines(keepends=True)
    cut.write_text("".join(lines[: len(lines) // 2]) + lines[-1][:9])
    again, fewer = run(cut)
    nothing_new, self_test = run(path)
    assert again == nothing_new == whole
    assert self_test < fewer < rows
    assert set(cut.read_text().splitlines()) == {line.strip() for line in lines}


def test_likelihood_tasks_are_skipped_with_a_reason_where_only_text_comes_out(tmp_path):
    task = CapabilityTask("arc", read_task(_arc(tmp_path)).style, read_task(_arc(tmp_path)).rows)
    sums = arithmetic_task(14, seed=0)
    right = {row["question"]: row["answer"] for row in sums.rows}
    odd = {question for n, question in enumerate(right) if n % 2}
    engine = RuleEngine(lambda q: f"It is {right[q]}." if q in odd else "I can't help with that.")
    scores = run_capability(Policy("p", engine), (task, sums), tmp_path, draws=100)
    assert scores["skipped"] == {"arc": "needs log-likelihoods, which this engine does not give"}
    assert scores["tasks"] == {"arithmetic": 0.5} and scores["mean"] == 0.5
    assert scores["n"] == {"arithmetic": 14} and scores["chance"] == {"arithmetic": None}
    low, high = scores["intervals"]["arithmetic"]
    assert low < 0.5 < high


def _arc(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(ROWS["arc_easy"][0]) + "\n")
    return file


def test_a_real_model_stopped_anywhere_ends_with_the_same_files(tmp_path, tokenizer, llama):
    class Stopping(LocalEngine):
        left = 99

        def generate(self, conversations, sampling, progress=None):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            return super().generate(conversations, sampling, progress)

    def run(folder, stop):
        engine = Stopping(
            LoadedModel(llama, tokenizer, "tiny", "", torch.float32, torch.device("cpu")), batch_size=4
        )
        engine.left = stop
        suite = EvaluationSuite(
            safety=tuple(make_prompt(f"what is {'red ' * n}?") for n in range(9)),
            benign=(make_prompt("the green city", kind="harmless"),),
            toxicity=(make_prompt("a blue dog", kind="toxicity"),),
            capability=(read_task(_arc(tmp_path)), arithmetic_task(4)),
            answer=Sampling(6),
            continuation=Sampling(4),
            draws=100,
        )
        policy = Policy("tiny", engine, llama, tokenizer)
        return evaluate(policy, suite, make_judges(), samples_dir=folder)

    whole = run(tmp_path / "whole", 99)
    for stop in (0, 1, 1, 1):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "cut", stop)
    assert run(tmp_path / "cut", 99) == whole
    names = sorted(path.name for path in (tmp_path / "whole").glob("*.jsonl"))
    assert names == [
        "capability.arithmetic.jsonl",
        "capability.rows.jsonl",
        "over_refusal.jsonl",
        "safety.jsonl",
        "toxicity.jsonl",
    ]
    for name in names:
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
