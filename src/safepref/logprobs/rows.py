"""What the engine scores: one prompt and the completions that share it, as token ids."""

from __future__ import annotations

from dataclasses import dataclass

from safepref.errors import InputError


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One prompt with K >= 1 completions (chosen and rejected, say), rendered and cut to length already.

    Raises:
        InputError: the prompt, the list of completions or a completion is empty, or an id is negative.
    """

    prompt_ids: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        """Refuse rows whose log-probability would be undefined."""
        if not self.prompt_ids:
            raise InputError(
                "TokenRow: prompt_ids is empty; the first completion token needs a token before it "
                "(start the prompt with the tokenizer's BOS)"
            )
        if not self.completions:
            raise InputError("TokenRow: completions is empty; give at least one completion to score")
        for index, completion in enumerate(self.completions):
            if not completion:
                raise InputError(
                    f"TokenRow: completion {index} of {len(self.completions)} has no tokens; "
                    "drop the row or raise the length limit that cut it away"
                )
        lowest = min(min(self.prompt_ids), *(min(completion) for completion in self.completions))
        if lowest < 0:
            raise InputError(
                f"TokenRow: token id {lowest} is negative; labels such as -100 are not token ids"
            )

    @property
    def span(self) -> int:
        """Tokens that are run: the prompt once, each completion without its last, which predicts nothing."""
        return len(self.prompt_ids) + sum(map(len, self.completions)) - len(self.completions)

    @property
    def longest(self) -> int:
        """Tokens that are run of the longest sequence, the prompt and one completion."""
        return len(self.prompt_ids) + max(map(len, self.completions)) - 1
