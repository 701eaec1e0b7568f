"""A gate between two models on the same prompts: safer, not worse elsewhere, or not enough evidence.

`compare(a, b, gate)` reads the samples of finished runs or evaluations; docs/compare.md gives the rule.
"""

from safepref.comparison.gate import Criterion, Gate, load_gate
from safepref.comparison.result import Comparison, compare
from safepref.comparison.show import print_comparison

__all__ = ["Comparison", "Criterion", "Gate", "compare", "load_gate", "print_comparison"]
