"""Log-probabilities of completions under a causal language model, exact and cheap; knows no method.

`rows` what is scored, `packing` the layout, `attention` and `heads` the two places where work is saved,
`engine` the door, `selftest` its check at the start, `store` the reference model's values,
kept on disk by content.
This file imports no torch, so that rooms which only make rows stay light.
"""

from safepref.logprobs.rows import TokenRow

__all__ = ["TokenRow"]
