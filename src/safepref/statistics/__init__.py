"""Intervals, paired tests, agreement, several tests at once, and rates corrected for the judge's own error.

Everything is vectorised numpy. Clusters are the unit of resampling: the variants of one request (plain and
under each attack) are not independent observations, so they are drawn together. Nothing here knows prompts,
judges or models.
"""

from safepref.statistics.agreement import cohen_kappa, krippendorff_alpha
from safepref.statistics.averages import macro, macro_interval, micro
from safepref.statistics.base import DRAWS, LEVEL, Estimate, Floats, Interval
from safepref.statistics.bootstrap import bootstrap_mean, effective_number, proportion, resampled_means
from safepref.statistics.evidence import PairedEvidence, SignFlip, paired_evidence, sign_flip
from safepref.statistics.intervals import percentile_interval, wilson
from safepref.statistics.judge_error import Corrected, JudgeError, corrected_rate, rogan_gladen
from safepref.statistics.matched_score import MatchedScore
from safepref.statistics.multiple import holm
from safepref.statistics.paired import McNemar, mcnemar, paired_difference

__all__ = [
    "DRAWS",
    "LEVEL",
    "Corrected",
    "Estimate",
    "Floats",
    "Interval",
    "JudgeError",
    "MatchedScore",
    "McNemar",
    "PairedEvidence",
    "SignFlip",
    "bootstrap_mean",
    "cohen_kappa",
    "corrected_rate",
    "effective_number",
    "holm",
    "krippendorff_alpha",
    "macro",
    "macro_interval",
    "mcnemar",
    "micro",
    "paired_difference",
    "paired_evidence",
    "percentile_interval",
    "proportion",
    "resampled_means",
    "rogan_gladen",
    "sign_flip",
    "wilson",
]
