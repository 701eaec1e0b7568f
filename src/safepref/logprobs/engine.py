"""The door: rows in, log-probabilities of their completions out.

    engine = LogprobEngine(model)
    logps = engine.completion_logps([TokenRow(prompt, (chosen, rejected)), ...])
    loss = dpo(logps.sums[:, 0], logps.sums[:, 1], ...)

One prompt is run once for all its completions, many rows in one sequence, logits only where a completion
token is predicted; equal to separate plain forward passes, and so are the gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from safepref.errors import InputError
from safepref.logprobs.packing import LAYOUT_VERSION, Shape, shape_of
from safepref.logprobs.route import PACKED, evaluating, reorder, without_adapters
from safepref.logprobs.rows import TokenRow
from safepref.logprobs.selftest import choose


@dataclass(frozen=True, slots=True)
class CompletionLogps:
    """Log-probabilities of whole completions, R rows with up to K each."""

    sums: Tensor
    """(R, K) fp32, log p(completion | prompt) in nats, 0 where there is none."""
    counts: Tensor
    """(R, K) int64, tokens, 0 where there is none."""
    mask: Tensor
    """(R, K) bool, whether there is a completion."""


@dataclass(frozen=True, slots=True)
class TokenValues:
    """A value for each completion token: R rows, up to K completions of up to C tokens."""

    values: Tensor
    """(R, K, C) fp32, 0 where there is no token."""
    mask: Tensor
    """(R, K, C) bool."""

    def completions(self) -> CompletionLogps:
        """The sums over tokens."""
        counts = self.mask.sum(-1)
        return CompletionLogps(self.values.sum(-1), counts, counts > 0)


class LogprobEngine:
    """Scores completions under a causal LM by the fastest route that is exact for it.

    Args:
        model: any transformers causal LM, with or without PEFT adapters and wrappers. `engine.model` may be
            set to a wrapper of the same model later (DDP, say); the route stays.
        backend: "auto" (packed and prefix-shared if the self-test finds it exact, else padded), "packed" (an
            error if it is not exact) or "padded".
        token_budget: most tokens in one forward pass, None for the layout's own. Rows are never cut; a longer
            one gets a pass of its own.

    Make the engine on the model as it will be trained: adapters on, gradient checkpointing on or off, frozen
    parts frozen. These decide the route, and a reference pass is only exact on the policy's own route.

    Raises:
        InputError: an unknown backend or budget, or a model that cannot be scored as asked.
    """

    def __init__(self, model: nn.Module, *, backend: str = "auto", token_budget: int | None = None) -> None:
        self.model = model
        choice = choose(model, backend=backend, token_budget=token_budget)
        self.route = choice.route
        self.line = choice.line
        """Which route was chosen and why, for the user."""

    @property
    def graph(self) -> str:
        """The computation's name; log-probs from different graphs differ in rounding."""
        return f"{self.route.layout}/{self.route.head.name}/{LAYOUT_VERSION}"

    @property
    def packed(self) -> bool:
        """Whether rows share their prompts; else every completion is run with its own."""
        return self.route.layout in PACKED

    def completion_logps(self, rows: Sequence[TokenRow], *, chunk: int | None = None) -> CompletionLogps:
        """Summed log-probs of every completion, differentiable.

        Args:
            rows: R rows, ragged in K.
            chunk: positions whose logits are computed at once, None for a size that suits the device.

        Raises:
            InputError: no rows, or a row that the model cannot take.
        """
        shape, flat = self._flat(rows, chunk)
        counts = shape.counts.to(flat.device)
        mask = counts > 0
        owners = torch.repeat_interleave(torch.arange(counts.numel(), device=flat.device), counts.flatten())
        sums = torch.zeros(counts.numel(), dtype=torch.float32, device=flat.device).index_add(0, owners, flat)
        return CompletionLogps(sums.view_as(counts), counts, mask)

    def token_logps(self, rows: Sequence[TokenRow], *, chunk: int | None = None) -> TokenValues:
        """The log-prob of every completion token, differentiable. Arguments and errors as above."""
        return _unfold(*self._flat(rows, chunk))

    def ranked(self, rows: Sequence[TokenRow], *, chunk: int | None = None) -> tuple[Tensor, Tensor]:
        """For evaluation: summed log-probs, and if greedy decoding would give the completion; no gradient.

        Arguments and errors as above.

        Returns:
            (R, K) fp64 and (R, K) bool, both on the CPU (not every device has fp64).
        """
        shape = self._shape(rows)
        with evaluating(self.model):
            logps, best = self.route.ranked_logps(self.model, rows, shape, chunk)
        sums = _unfold(shape, logps).values.cpu().double().sum(-1)
        missed = _unfold(shape, (~best).float()).values.cpu().sum(-1)
        return sums, missed == 0

    def kl_to_reference(self, rows: Sequence[TokenRow], *, chunk: int | None = None) -> TokenValues:
        """KL(reference || policy) over the vocabulary at every completion token, in nats, differentiable.

        The reference is the model without its adapters, run in the same step by the same route.

        Raises:
            InputError: no rows, a row that the model cannot take, or a model without PEFT adapters.
        """
        if not _has_adapters(self.model):
            raise InputError(
                "log-probs: the KL to the reference needs a model with PEFT adapters to switch off; "
                "train with LoRA, or anchor with the log-likelihood"
            )
        shape = self._shape(rows)
        values, slots = [], []
        for piece in self.route.pieces(rows, shape):
            with evaluating(self.model), without_adapters(self.model):
                reference = self.route.features(self.model, piece)
            policy = self.route.features(self.model, piece)
            values.append(self.route.head.kl(policy, reference, chunk))
            slots.append(piece.slots)
        return _unfold(shape, reorder(values, slots))

    def _shape(self, rows: Sequence[TokenRow]) -> Shape:
        self.route.limits.check(rows)
        return shape_of(rows)

    def _flat(self, rows: Sequence[TokenRow], chunk: int | None) -> tuple[Shape, Tensor]:
        shape = self._shape(rows)
        return shape, self.route.token_logps(self.model, rows, shape, chunk)


def _has_adapters(model: nn.Module) -> bool:
    return hasattr(model, "disable_adapter") or hasattr(getattr(model, "module", None), "disable_adapter")


def _unfold(shape: Shape, flat: Tensor) -> TokenValues:
    """Values in the plan's order as a padded (R, K, C) tensor."""
    counts = shape.counts.to(flat.device)
    width = int(counts.max())
    mask = torch.arange(width, device=flat.device) < counts[..., None]
    values = torch.zeros(mask.shape, dtype=flat.dtype, device=flat.device).masked_scatter(mask, flat)
    return TokenValues(values, mask)
