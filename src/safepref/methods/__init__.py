"""The twelve preference-optimization losses: pure functions of log-probs, and the table that names them."""

from safepref.methods.logps import Logps, LossOutput
from safepref.methods.table import METHODS, PAPER_METHODS, Method, Range, Switch, resolve_methods

__all__ = [
    "METHODS",
    "PAPER_METHODS",
    "Logps",
    "LossOutput",
    "Method",
    "Range",
    "Switch",
    "resolve_methods",
]
