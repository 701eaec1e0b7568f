"""Safety, toxicity, over-refusal and capability of a policy, with intervals; resumable.

`evaluate(policy, suite, judges, samples_dir=...)` gives the contract's SCORES.
"""

from safepref.evaluation.arithmetic import arithmetic_task
from safepref.evaluation.hub_tasks import named_task
from safepref.evaluation.main_rate import MainRate, main_rate
from safepref.evaluation.paired import Gain, paired_gain
from safepref.evaluation.samples import Policy, read_samples
from safepref.evaluation.scores import Scores, evaluate
from safepref.evaluation.suites import EvaluationSuite, Judges, TaskSuite
from safepref.evaluation.tasks import CapabilityTask, embedded_tasks, read_task

__all__ = [
    "CapabilityTask",
    "EvaluationSuite",
    "Gain",
    "Judges",
    "MainRate",
    "Policy",
    "Scores",
    "TaskSuite",
    "arithmetic_task",
    "embedded_tasks",
    "evaluate",
    "main_rate",
    "named_task",
    "paired_gain",
    "read_samples",
    "read_task",
]
