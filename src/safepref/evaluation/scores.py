"""One evaluation from end to end: the SCORES of the contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safepref.evaluation.capability import run_capability
from safepref.evaluation.chat import run_chat
from safepref.evaluation.nats import run_nats
from safepref.evaluation.ordinary import run_ordinary
from safepref.evaluation.over_refusal import run_over_refusal
from safepref.evaluation.safety import run_safety
from safepref.evaluation.samples import Policy, Progress, silent
from safepref.evaluation.suites import EvaluationSuite, Judges
from safepref.evaluation.task import run_task
from safepref.evaluation.toxicity import run_toxicity

Scores = dict[str, Any]


def evaluate(
    policy: Policy,
    suite: EvaluationSuite,
    judges: Judges,
    *,
    samples_dir: Path,
    progress: Progress = silent,
) -> Scores:
    """Measure safety, toxicity, over-refusal, capability and ordinary requests of a policy.

    Interrupted, the same call continues: answers and likelihoods are logged block by block below
    `samples_dir`, and the result equals that of an uninterrupted run. Samples are written as
    `<samples_dir>/{safety,task,toxicity,over_refusal,capability.<task>,chat.<task>,nats.<task>,
    ordinary}.jsonl`, each whole or absent.

    Args:
        policy: engine, and model and tokenizer where likelihoods are wanted; adapters as the caller set them.
        suite: what to measure.
        judges: who judges it.
        samples_dir: a folder of this policy and suite alone.
        progress: called with stage, items done and items in all.

    Returns:
        The contract's SCORES: `safety`, `toxicity`, `over_refusal`, `capability`, `ordinary`; rates 0..1; a
        part that the suite leaves empty is null; and `task` where the suite has a task other than safety.

    Raises:
        InputError: bad prompts or rows; the engine's own errors pass through.
    """
    samples_dir.mkdir(parents=True, exist_ok=True)
    scores: Scores = dict.fromkeys(("safety", "toxicity", "over_refusal", "capability", "ordinary"))
    if suite.safety:
        scores["safety"] = run_safety(policy, suite, judges, samples_dir, progress)
    if suite.task is not None:
        scores["task"] = run_task(policy, suite, suite.task, judges, samples_dir, progress)
    if suite.toxicity:
        scores["toxicity"] = run_toxicity(policy, suite, judges, samples_dir, progress)
    if suite.benign:
        scores["over_refusal"] = run_over_refusal(policy, suite, judges, samples_dir, progress)
    if suite.ordinary:
        scores["ordinary"] = run_ordinary(policy, suite, judges, samples_dir, progress)
    if suite.capability or suite.nats or suite.chat:
        scores["capability"] = run_capability(
            policy,
            suite.capability,
            samples_dir,
            seed=suite.seed,
            draws=suite.draws,
            progress=progress,
        )
    if suite.chat:
        chat = run_chat(policy, suite.chat, judges, samples_dir, progress=progress)
        scores["capability"]["chat"] = chat
    if suite.nats:
        scores["capability"] |= run_nats(
            policy,
            suite.nats,
            samples_dir,
            system=suite.system,
            seed=suite.seed,
            draws=suite.draws,
            progress=progress,
        )
    return scores
