"""Rows of a local file as tasks of lm-eval: its prompts, its metrics, its filters."""

from __future__ import annotations

from typing import Any

import numpy as np

from safepref.evaluation.tasks import SOLUTION_TOKENS, CapabilityTask, Row, gap_parts


def lm_eval_task(task: CapabilityTask) -> Any:
    """The rows as an `lm_eval.api.task.ConfigurableTask`, which lm-eval's own evaluator runs too.

    Prompts and metrics are those of the lm-eval tasks that the style names; questions are never read as
    templates, so braces in a row stay text.
    """
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    kind = task.style.kind
    if kind == "written":
        return ConfigurableTask(config=_written(task))
    test = Dataset.from_list([_document(task, row) for row in task.rows])
    metrics = [
        {"metric": name, "aggregation": "mean", "higher_is_better": True}
        for name in (("perplexity",) if kind == "solution" else ("acc", "acc_norm"))
    ]
    config: dict[str, Any] = {
        "task": task.name,
        "custom_dataset": lambda **_: {"test": test},
        "test_split": "test",
        "output_type": "loglikelihood" if kind == "solution" else "multiple_choice",
        "doc_to_text": lambda doc: doc["answer"] if kind == "gap" else doc["text"],
        "doc_to_target": lambda doc: doc["target"],
        "num_fewshot": 0,
        "metric_list": metrics,
    }
    if kind != "solution":
        config["doc_to_choice"] = lambda doc: doc["options"]
    if kind == "truths":
        config["process_results"] = _right_share
    return ConfigurableTask(config=config)


def _right_share(doc: dict[str, Any], results: list[tuple[float, bool]]) -> dict[str, float]:
    """The share of probability that the right answers have among all: lm-eval's truthfulqa_mc2."""
    shares = np.exp(np.array([logprob for logprob, _ in results]))
    return {"acc": float(shares[: doc["right"]].sum() / shares.sum())}


def _written(task: CapabilityTask) -> dict[str, Any]:
    """lm-eval's gsm8k over the rows of a task: its prompt, stops and filters, but none of its examples.

    They come from the set's train split, which a file of test rows does not have.
    """
    from datasets import Dataset

    test = Dataset.from_list(
        [{"text": task.style.template.replace("{question}", r["question"])} | r for r in task.rows]
    )
    take = {"function": "take_first"}
    return {
        "task": task.name,
        "custom_dataset": lambda **_: {"test": test},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": lambda doc: doc["text"],
        "doc_to_target": lambda doc: doc["answer"],
        "num_fewshot": 0,
        "generation_kwargs": {
            "until": ["Question:", "</s>", "<|im_end|>"],
            "do_sample": False,
            "max_gen_toks": SOLUTION_TOKENS,
        },
        "metric_list": [
            {
                "metric": "exact_match",
                "aggregation": "mean",
                "higher_is_better": True,
                "ignore_case": True,
                "ignore_punctuation": False,
                "regexes_to_ignore": [",", r"\$", "(?s).*#### ", r"\.$"],
            }
        ],
        "filter_list": [
            {
                "name": "strict-match",
                "filter": [{"function": "regex", "regex_pattern": r"#### (\-?[0-9\.\,]+)"}, take],
            },
            {
                "name": "flexible-extract",
                "filter": [
                    {
                        "function": "regex",
                        "group_select": -1,
                        "regex_pattern": r"(-?[$0-9.,]{2,})|(-?[0-9]+)",
                    },
                    take,
                ],
            },
        ],
    }


def _document(task: CapabilityTask, row: Row) -> dict[str, Any]:
    """What lm-eval's callables read: text, target, and for choices the options."""
    style = task.style
    if style.kind == "solution":
        # GSM8K's calculator marks are not text that a model would write; of a "loglikelihood" task lm-eval
        # takes the target as it is, so the space that separates it is put here.
        solution = " " + without_marks(row["answer"])
        return {"text": style.template.replace("{question}", row["question"]), "target": solution}
    if style.kind == "gap":
        contexts, tail = gap_parts(row)
        return {"options": contexts, "target": tail, "answer": row["answer"]}
    question = row["question"].strip()
    if style.kind == "letters":
        letters = [chr(ord("A") + at) for at in range(len(row["choices"]))]
        listed = "\n".join(f"{letter}. {text}" for letter, text in zip(letters, row["choices"], strict=True))
        # Only commonsense_qa among lm-eval's lettered tasks begins with "Question:".
        opening = f"Question: {question}" if task.name.lower().startswith("commonsense") else question
        return {"text": f"{opening}\n{listed}\nAnswer:", "options": letters, "target": row["answer"]}
    text = style.template.replace("{question}", question)
    right = {"right": row["right"]} if "right" in row else {}
    return {"text": text, "options": row["choices"], "target": row["answer"], **right}


def without_marks(solution: str) -> str:
    """GSM8K's worked answer without its calculator marks, `<<2+3=5>>`."""
    while "<<" in solution and ">>" in solution[solution.index("<<") :]:
        head, _, rest = solution.partition("<<")
        solution = head + rest.partition(">>")[2]
    return solution
