"""Safety, toxicity, over-refusal and capability of a policy, with intervals; resumable.

`evaluate(policy, suite, judges, samples_dir=...)` gives the contract's SCORES.
"""

from safepref.evaluation.above_chance import above_chance, mean_above_chance
from safepref.evaluation.arithmetic import arithmetic_task
from safepref.evaluation.chat import chat_task, narrowed
from safepref.evaluation.families import base_families
from safepref.evaluation.hub_tasks import named_task
from safepref.evaluation.main_rate import MainRate, main_rate
from safepref.evaluation.nats import solution_task
from safepref.evaluation.ordinary import base_answers, read_base_answers
from safepref.evaluation.paired import Gain, paired_gain, paired_nats
from safepref.evaluation.samples import Policy, read_samples
from safepref.evaluation.scores import Scores, evaluate
from safepref.evaluation.suites import ChatTask, EvaluationSuite, Judges, TaskSuite
from safepref.evaluation.tasks import CapabilityTask, embedded_tasks, read_task

__all__ = [
    "CapabilityTask",
    "ChatTask",
    "EvaluationSuite",
    "Gain",
    "Judges",
    "MainRate",
    "Policy",
    "Scores",
    "TaskSuite",
    "above_chance",
    "arithmetic_task",
    "base_answers",
    "base_families",
    "chat_task",
    "embedded_tasks",
    "evaluate",
    "main_rate",
    "mean_above_chance",
    "named_task",
    "narrowed",
    "paired_gain",
    "paired_nats",
    "read_base_answers",
    "read_samples",
    "read_task",
    "solution_task",
]
