"""Local rows score as lm-eval's own tasks: its task files and its HFLM are the oracle, on a tiny model."""

import json
from pathlib import Path

import lm_eval
import pytest
import torch
from evaluation_rules import RuleEngine
from lm_eval.evaluator import evaluate as lm_eval_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import LlamaConfig, LlamaForCausalLM

from safepref.errors import InputError
from safepref.evaluation import Policy, hub_tasks, named_task
from safepref.evaluation.capability import run_capability
from safepref.evaluation.hub_tasks import check_task_name
from safepref.evaluation.tasks import TASK_STYLES
from safepref.store import read_jsonl, write_jsonl

WORDS = ("red", "green", "blue", "old")

# By lm-eval's id: the metric, its split, rows in the set's own columns, and the same rows as our files are.
TASKS = {
    **{
        name: (
            "acc_norm",
            "test",
            [
                {
                    "question": f"Which is {w}?",
                    "choices": {"text": ["a dog", "blue", "the cat here"], "label": ["A", "B", "C"]},
                    "answerKey": "ABC"[n % 3],
                }
                for n, w in enumerate(WORDS)
            ],
            [
                {"question": f"Which is {w}?", "choices": ["a dog", "blue", "the cat here"], "answer": n % 3}
                for n, w in enumerate(WORDS)
            ],
        )
        for name in ("arc_easy", "arc_challenge")
    },
    "piqa": (
        "acc_norm",
        "validation",
        [
            {"goal": f"what is {w}", "sol1": "a dog", "sol2": "the city is", "label": n % 2}
            for n, w in enumerate(WORDS)
        ],
        [
            {"question": f"what is {w}", "choices": ["a dog", "the city is"], "answer": n % 2}
            for n, w in enumerate(WORDS)
        ],
    ),
    "hellaswag": (
        "acc_norm",
        "validation",
        [
            {
                "activity_label": "Dog",
                "ctx_a": f"the {w} dog",
                "ctx_b": "it",
                "endings": ["is a city.", "runs on", "what?", "no"],
                "label": str(n),
                "ind": n,
                "source_id": "x",
            }
            for n, w in enumerate(WORDS)
        ],
        [
            {
                "question": f"Dog: the {w} dog It",
                "choices": ["is a city.", "runs on", "what?", "no"],
                "answer": n,
            }
            for n, w in enumerate(WORDS)
        ],
    ),
    "winogrande": (
        "acc",
        "validation",
        [
            {"sentence": f"The dog met the cat {w} so _ was red.", "option1": "dog", "option2": "cat"}
            | {"answer": str(1 + n % 2)}
            for n, w in enumerate(WORDS)
        ],
        [
            {"question": f"The dog met the cat {w} so _ was red.", "choices": ["dog", "cat"], "answer": n % 2}
            for n, w in enumerate(WORDS)
        ],
    ),
    **{
        name: (
            "acc",
            "validation",
            [
                {
                    "question": f"What is {w}?",
                    "mc1_targets": {"choices": ["a city", "a dog", "red"], "labels": [1, 0, 0]},
                    "mc2_targets": {
                        "choices": ["a city", "the capital", "a dog", "red"],
                        "labels": [1, 1, 0, 0],
                    },
                }
                for w in WORDS
            ],
            [
                {"question": f"What is {w}?", "best": "a city", "correct": ["the capital", "a city"]}
                | {"incorrect": ["a dog", "red"]}
                for w in WORDS
            ],
        )
        for name in ("truthfulqa_mc1", "truthfulqa_mc2")
    },
    "gsm8k": (
        "exact_match",
        "test",
        [
            {"question": f"How many is {w}?", "answer": f"It is {w} <<1+1=2>>2.\n#### {n}"}
            for n, w in enumerate(WORDS[:2])
        ],
        [
            {"question": f"How many is {w}?", "answer": f"It is {w} <<1+1=2>>2.\n#### {n}"}
            for n, w in enumerate(WORDS[:2])
        ],
    ),
}


FOLDERS = ("arc", "commonsense_qa", "gsm8k", "hellaswag", "openbookqa", "piqa", "truthfulqa", "winogrande")
FOLDERS += ("mmlu/default", "mmlu/continuation")
"""Where lm-eval keeps the tasks that rows can be scored as."""


@pytest.fixture(scope="module")
def manager():
    """lm-eval's index of these folders of its own; that of all its tasks takes ten seconds and more."""
    tasks = Path(lm_eval.__file__).parent / "tasks"
    return TaskManager(include_path=[tasks / folder for folder in FOLDERS], include_defaults=False)


@pytest.fixture(scope="module")
def llama(tokenizer):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=len(tokenizer), pad_token_id=0, bos_token_id=0, eos_token_id=0, **sizes)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4.0)
    return model.eval()


def theirs(manager, name, file, split):
    """lm-eval's own task, its prompt and metric untouched, over a local file in the set's own columns."""
    local = {
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {split: str(file)}},
    }
    only = {"training_split": None, "validation_split": None, "test_split": None, "fewshot_split": None}
    used = {f"{split}_split": split, "num_fewshot": 0}
    if name == "gsm8k":  # the room for an answer is the model class's own default
        used["generation_kwargs"] = {"until": ["Question:"], "do_sample": False, "max_gen_toks": 256}
    own = manager.task_index[name].yaml_path
    path = file.parent / f"{name}.yaml"
    path.write_text(json.dumps({"include": str(own), "task": f"{name}_local", **local, **only, **used}))
    (task,) = manager.load(str(path))["tasks"].values()
    return task


@pytest.mark.parametrize("name", sorted(TASKS))
def test_local_rows_score_as_lm_evals_own_task_with_its_own_model_class(
    tmp_path, tokenizer, llama, manager, name
):
    metric, split, own, rows = TASKS[name]
    write_jsonl(tmp_path / "own.jsonl", own)
    write_jsonl(tmp_path / "rows.jsonl", rows)
    task = named_task(f"{name}:{tmp_path / 'rows.jsonl'}")
    policy = Policy("p", RuleEngine(str.upper), llama, tokenizer)
    scores = run_capability(policy, (task,), tmp_path / "samples", draws=200)
    lm = HFLM(pretrained=llama, tokenizer=tokenizer, batch_size=2)
    found = lm_eval_evaluate(
        lm, {name: theirs(manager, name, tmp_path / "own.jsonl", split)}, bootstrap_iters=0
    )
    assert found is not None
    key = "flexible-extract" if name == "gsm8k" else "none"
    wanted = found["results"][name][f"{metric},{key}"]
    assert scores["metrics"] == {name: metric}
    assert scores["tasks"][name] == pytest.approx(wanted, abs=1e-6)
    ours = read_jsonl(tmp_path / "samples" / f"capability.{name}.jsonl")
    samples = [s for s in found["samples"][name] if s["filter"] == key]
    if name == "gsm8k":
        assert [row["response"] for row in ours] == [s["resps"][0][0] for s in samples]
        return
    logged = [[resp[0][0] for resp in sample["resps"]] for sample in samples]
    if name == "truthfulqa_mc2":
        assert [row["value"] for row in ours] == pytest.approx([s["acc"] for s in samples], abs=1e-6)
    for row, theirs_ in zip(ours, logged, strict=True):
        assert row["logprobs"] == pytest.approx(theirs_, rel=1e-6)


def test_every_task_that_rows_can_be_scored_as_is_lm_evals(manager):
    assert set(TASK_STYLES) - {"mmlu", "mmlu_continuation"} <= set(manager.all_subtasks)
    assert {"mmlu", "mmlu_continuation"} <= set(manager.all_groups) | set(manager.all_tags)


def yaml_task(folder, **more):
    rows = [
        {"q": f"which is {w}", "options": ["a dog", "the city"], "gold": n % 2} for n, w in enumerate(WORDS)
    ]
    write_jsonl(folder / "rows.jsonl", rows)
    values = {
        "task": "mine",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{q}}?",
        "doc_to_choice": "{{options}}",
        "doc_to_target": "gold",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        **more,
    }
    path = folder / "mine.yaml"
    path.write_text(json.dumps(values))  # JSON is YAML
    return path


def test_a_task_that_lm_eval_loads_is_scored_as_lm_eval_scores_it(tmp_path, tokenizer, llama):
    path = yaml_task(tmp_path, num_fewshot=2, fewshot_split="test")
    task = named_task(str(path))
    assert (task.name, task.chance, len(task.rows)) == ("mine", 0.5, 4)
    assert task.rows[1]["question"] == "which is green?"
    scores = run_capability(
        Policy("p", RuleEngine(str.upper), llama, tokenizer), (task,), tmp_path / "samples", draws=200
    )
    (own,) = TaskManager(include_defaults=False).load(str(path))["tasks"].values()
    own.set_fewshot_seed(1234)
    found = lm_eval_evaluate(HFLM(pretrained=llama, tokenizer=tokenizer), {"mine": own}, bootstrap_iters=0)
    assert found is not None
    assert scores["tasks"]["mine"] == pytest.approx(found["results"]["mine"]["acc,none"], abs=1e-6)
    logged = [[resp[0][0] for resp in sample["resps"]] for sample in found["samples"]["mine"]]
    for row, wanted in zip(read_jsonl(tmp_path / "samples" / "capability.mine.jsonl"), logged, strict=True):
        assert row["logprobs"] == pytest.approx(wanted, rel=1e-6)


def test_a_limit_draws_documents_by_seed_and_they_are_those_that_are_scored(tmp_path, tokenizer, llama):
    path = yaml_task(tmp_path)
    task = named_task(str(path), limit=2, seed=3)
    assert [row["question"] for row in task.rows] == [
        row["question"] for row in named_task(str(path), limit=2, seed=3).rows
    ]
    run_capability(Policy("p", RuleEngine(str.upper), llama, tokenizer), (task,), tmp_path / "s", draws=200)
    rows = read_jsonl(tmp_path / "s" / "capability.mine.jsonl")
    whole = named_task(str(path))
    run_capability(Policy("p", RuleEngine(str.upper), llama, tokenizer), (whole,), tmp_path / "w", draws=200)
    by_question = {row["question"]: row for row in read_jsonl(tmp_path / "w" / "capability.mine.jsonl")}
    assert len(rows) == 2
    for row in rows:
        assert row["logprobs"] == pytest.approx(by_question[row["question"]]["logprobs"], rel=1e-6)
        assert row["target"] == by_question[row["question"]]["target"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"output_type": "loglikelihood_rolling"}, "gives no score in 0..1"),
        ({"dataset_kwargs": {"data_files": {"test": "/nowhere.jsonl"}}}, "cannot be loaded by lm-eval"),
        ({"doc_to_text": "{{absent.field}}"}, "cannot be loaded by lm-eval|mine.yaml"),
    ],
)
def test_a_task_that_cannot_be_scored_is_one_line(tmp_path, more, words):
    with pytest.raises(InputError, match=words) as caught:
        named_task(str(yaml_task(tmp_path, **more)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["rows.jsonl", "data/rows.jsonl", "task.yaml", "."])
def test_a_file_that_is_not_there_is_no_task_of_lm_eval(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=rf"^{name}: no such file"):
        named_task(name)


def test_a_name_that_reads_as_a_file_is_refused_without_an_index(monkeypatch):
    monkeypatch.setattr(hub_tasks, "task_manager", lambda: pytest.fail("the index was built"))
    for name in ("gone.jsonl", "data/rows", "data\\rows"):
        for check in (check_task_name, named_task):
            with pytest.raises(InputError, match="no such file; give a file of benchmark rows, TASK:FILE or"):
                check(name)


@pytest.mark.parametrize("index", ["these folders", pytest.param("all", marks=pytest.mark.slow)])
def test_names_are_checked_before_anything_is_loaded(tmp_path, monkeypatch, manager, index):
    if index != "all":
        monkeypatch.setattr(hub_tasks, "task_manager", lambda: manager)
    file = tmp_path / "rows.jsonl"
    write_jsonl(file, TASKS["gsm8k"][3])
    check_task_name(str(file))
    check_task_name(f"gsm8k:{file}")
    check_task_name("arc_easy")
    for name, words in (
        ("arc_eazy", "did you mean arc_easy"),
        ("gsm8k:/nowhere.jsonl", "no such file"),
        (f"boolq:{file}", "cannot be scored as 'boolq'; one of arc_easy"),
        ("nowhere/rows.jsonl", "no such file"),
    ):
        with pytest.raises(InputError, match=words):
            check_task_name(name)
    with pytest.raises(InputError, match="no incorrect"):
        named_task(f"truthfulqa_mc2:{file}")
    with pytest.raises(InputError, match="cannot be scored as 'boolq'"):
        named_task(f"boolq:{file}")
