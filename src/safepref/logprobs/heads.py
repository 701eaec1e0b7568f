"""From the model's states to log-probabilities of chosen tokens, without a logit that nobody reads.

Two ways. A frozen plain linear head takes its gradient in the forward pass: d log p / dh = W[y] - p W does
not depend on the loss, so only it is kept, the vocabulary is visited in chunks and no logits are stored.
Any other head (trained, adapted, capped, scaled, sharded, quantized) runs inside the model at the scored
positions only. All log-softmaxes are in fp32.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHUNK_ELEMENTS = {"cpu": 2**24, "other": 2**27}
"""Logits held at once, in elements: small blocks stay in the CPU's reused memory."""


def default_chunk(vocabulary: int, device: torch.device) -> int:
    """Positions whose logits are computed at once."""
    elements = CHUNK_ELEMENTS["cpu" if device.type == "cpu" else "other"]
    return max(16, elements // vocabulary)


class _FrozenHead(torch.autograd.Function):
    """log p(targets) under a frozen linear head, its gradient to the states taken in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, chunk: int
    ) -> Tensor:
        logps = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        differentiable = ctx.needs_input_grad[0]
        slope = torch.empty_like(hidden) if differentiable else None
        for start in range(0, len(targets), chunk):
            part = slice(start, start + chunk)
            z = F.linear(hidden[part], weight, bias).float()
            lse = z.logsumexp(-1, keepdim=True)
            logps[part] = (z.gather(1, targets[part, None]) - lse)[:, 0]
            if slope is not None:
                slope[part] = weight[targets[part]] - z.sub_(lse).exp_().to(weight.dtype) @ weight
        if slope is not None:
            ctx.save_for_backward(slope)
        return logps

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        (slope,) = ctx.saved_tensors
        return (grad[:, None] * slope.float()).to(slope.dtype), None, None, None, None


class _FrozenHeadKL(torch.autograd.Function):
    """KL(reference || policy) at each position, both under the same frozen linear head."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, reference: Tensor, weight: Tensor, bias: Tensor | None, chunk: int
    ) -> Tensor:
        values = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        slope = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for start in range(0, len(hidden), chunk):
            part = slice(start, start + chunk)
            logp = F.linear(hidden[part], weight, bias).float().log_softmax(-1)
            logq = F.linear(reference[part], weight, bias).float().log_softmax(-1)
            q = logq.exp()
            values[part] = (q * (logq - logp)).sum(-1)
            if slope is not None:
                slope[part] = (logp.exp_() - q).to(weight.dtype) @ weight
        if slope is not None:
            ctx.save_for_backward(slope)
        return values

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        (slope,) = ctx.saved_tensors
        return (grad[:, None] * slope.float()).to(slope.dtype), None, None, None, None


class _PickedLogps(torch.autograd.Function):
    """log_softmax(logits)[targets] in fp32 that keeps the logits it was given and nothing of their size."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, chunk: int) -> Tensor:
        lse = torch.cat([part.float().logsumexp(-1) for part in torch.split(logits, chunk)])
        ctx.save_for_backward(logits, targets, lse)
        ctx.chunk = chunk
        return logits.gather(1, targets[:, None])[:, 0].float() - lse

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        logits, targets, lse = ctx.saved_tensors
        slope = torch.empty_like(logits)
        for start in range(0, len(targets), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            piece = (logits[part].float() - lse[part, None]).exp_().neg_()
            piece.scatter_add_(1, targets[part, None], torch.ones_like(piece[:, :1]))
            slope[part] = piece.mul_(grad[part, None]).to(slope.dtype)
        return slope, None, None


@dataclass(frozen=True, slots=True)
class FrozenHead:
    """A frozen, plain linear head, run outside the model: its input is caught behind the decoder."""

    decoder: nn.Module
    linear: nn.Linear
    name: str = "frozen head, gradient in the forward pass"

    def features(self, model: nn.Module, inputs: dict[str, Any], predictors: Tensor) -> Tensor:
        """The decoder's states at the predicting positions, (N, H)."""
        caught: list[Tensor] = []

        def catch(_module: nn.Module, _arguments: Any, output: Any) -> None:
            caught.append(output[0])

        # A hook, not a call of the decoder itself, so that wrappers (adapters, DDP, autocast) do their part.
        handle = self.decoder.register_forward_hook(catch)
        try:
            model(**inputs, logits_to_keep=1)
        finally:
            handle.remove()
        states = caught[-1].flatten(0, 1)
        return states[predictors.to(states.device)].to(self.linear.weight)

    def logps(self, features: Tensor, targets: Tensor, chunk: int | None) -> Tensor:
        """Log-probs of the targets, (N,) fp32."""
        chunk = chunk or default_chunk(self.linear.out_features, features.device)
        weight, bias = self.linear.weight, self.linear.bias
        return _apply(_FrozenHead, features, weight, bias, targets, chunk)

    def ranked(self, features: Tensor, targets: Tensor, chunk: int | None) -> tuple[Tensor, Tensor]:
        """Log-probs of the targets, (N,) fp32, and whether each is the likeliest token; no gradient."""
        chunk = chunk or default_chunk(self.linear.out_features, features.device)
        parts = zip(torch.split(features, chunk), torch.split(targets, chunk), strict=True)
        return _rank((F.linear(x, self.linear.weight, self.linear.bias), t) for x, t in parts)

    def kl(self, features: Tensor, reference: Tensor, chunk: int | None) -> Tensor:
        """KL(reference || policy) at each position, (N,) fp32, in nats."""
        chunk = chunk or default_chunk(self.linear.out_features, features.device)
        weight, bias = self.linear.weight, self.linear.bias
        return _apply(_FrozenHeadKL, features, reference, weight, bias, chunk)


@dataclass(frozen=True, slots=True)
class ModelHead:
    """The model's own head, run inside its forward pass, at the scored positions if it can be told."""

    selective: bool
    """Whether the model's `logits_to_keep` takes an index tensor."""
    name: str = "the model's own head"

    def features(self, model: nn.Module, inputs: dict[str, Any], predictors: Tensor) -> Tensor:
        """The logits at the predicting positions, (N, V)."""
        width = inputs["input_ids"].shape[1]
        if not self.selective:
            logits: Tensor = model(**inputs).logits.flatten(0, 1)
            return logits[predictors.to(logits.device)]
        columns, at = torch.unique(predictors % width, return_inverse=True)
        # The index stays on the CPU: it fits whichever device holds the model's last layer.
        logits = model(**inputs, logits_to_keep=columns).logits.flatten(0, 1)
        return logits[(predictors // width * len(columns) + at).to(logits.device)]

    def logps(self, features: Tensor, targets: Tensor, chunk: int | None) -> Tensor:
        """Log-probs of the targets, (N,) fp32."""
        return _apply(
            _PickedLogps, features, targets, chunk or default_chunk(features.shape[-1], features.device)
        )

    def ranked(self, features: Tensor, targets: Tensor, chunk: int | None) -> tuple[Tensor, Tensor]:
        """Log-probs of the targets, (N,) fp32, and whether each is the likeliest token; no gradient."""
        chunk = chunk or default_chunk(features.shape[-1], features.device)
        return _rank(zip(torch.split(features, chunk), torch.split(targets, chunk), strict=True))

    def kl(self, features: Tensor, reference: Tensor, chunk: int | None) -> Tensor:
        """KL(reference || policy) at each position, (N,) fp32, in nats."""
        chunk = chunk or default_chunk(features.shape[-1], features.device)
        parts = []
        for policy, frozen in zip(torch.split(features, chunk), torch.split(reference, chunk), strict=True):
            logp, logq = policy.float().log_softmax(-1), frozen.float().log_softmax(-1)
            parts.append((logq.exp() * (logq - logp)).sum(-1))
        return torch.cat(parts)


Head = FrozenHead | ModelHead


@torch.no_grad()
def _rank(parts: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Log-probs of targets and whether each is the likeliest, from blocks: logits (n, V) and targets (n,)."""
    logps, best = [], []
    for logits, targets in parts:
        z = logits.float()
        logps.append(z.gather(1, targets[:, None])[:, 0] - z.logsumexp(-1))
        best.append(z.argmax(-1) == targets)
    return torch.cat(logps), torch.cat(best)


def _apply(function: Any, *arguments: Any) -> Tensor:
    """Call an autograd function; torch leaves `apply` untyped."""
    result: Tensor = function.apply(*arguments)
    return result


def find_head(base: Any) -> Head:
    """The cheapest head that gives this model's own logits.

    The frozen shortcut is taken only where a test shows it to be exact: large states are planted behind the
    decoder and the model's logits for them must be the linear map's, which no cap, scale or cast survives.

    Args:
        base: the causal LM without wrappers (adapters may be injected).
    """
    parameters = inspect.signature(base.forward).parameters
    if "logits_to_keep" not in parameters:
        return ModelHead(selective=False)
    linear: Any = base.get_output_embeddings() if hasattr(base, "get_output_embeddings") else None
    decoder = base.get_decoder() if hasattr(base, "get_decoder") else None
    # An adapter, a quantizer or a wrapper that keeps a trained copy changes the type.
    plain = type(linear) is nn.Linear and not any(p.requires_grad for p in linear.parameters())
    if plain and isinstance(decoder, nn.Module) and decoder is not base and _is_linear(base, decoder, linear):
        return FrozenHead(decoder, linear)
    return ModelHead(selective=_is_selective(base))


@torch.no_grad()
def _is_linear(base: nn.Module, decoder: nn.Module, linear: nn.Linear) -> bool:
    weight = linear.weight
    if weight.ndim != 2 or weight.shape != (linear.out_features, linear.in_features) or weight.is_meta:
        return False
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(2, linear.in_features, generator=generator).to(weight)
    # Logits of about 200: far beyond every soft cap in use.
    states *= 200 / F.linear(states, weight).abs().max().clamp_min(1e-6)

    def plant(_module: nn.Module, _arguments: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (states[None], *output[1:])
        output.last_hidden_state = states[None]
        return output

    ids = torch.zeros(1, 2, dtype=torch.int64, device=weight.device)
    handle = decoder.register_forward_hook(plant)
    try:
        logits: Tensor = base(input_ids=ids, logits_to_keep=2).logits[0]
    except Exception:  # any failure means the same: not the plain linear head this shortcut knows
        return False
    finally:
        handle.remove()
    expected = F.linear(states, weight, linear.bias)
    rtol = 1e-4 if expected.dtype.itemsize >= 4 else 2e-2
    return logits.shape == expected.shape and torch.allclose(
        logits, expected.to(logits), rtol=rtol, atol=1e-2
    )


@torch.no_grad()
def _is_selective(base: nn.Module) -> bool:
    ids = torch.tensor([[1, 2, 3]], device=next(base.parameters()).device)
    keep = torch.tensor([0, 2])
    try:
        few, every = base(input_ids=ids, logits_to_keep=keep).logits, base(input_ids=ids).logits
    except Exception:  # a model that takes only a number here fails in its own way
        return False
    return few.shape[1] == 2 and torch.allclose(few, every[:, keep], rtol=1e-2, atol=1e-2)
