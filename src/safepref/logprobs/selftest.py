"""The check at the start: does this model, on this machine, score packed rows as it scores them alone?

Models differ in what they do with a given mask and given positions: some add a bias of their own, some keep a
recurrent state, some ignore the argument, some raise. So the question is asked of the model itself, and an
exception counts like a mismatch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from safepref.errors import InputError
from safepref.logprobs.attention import can_switch, recomputes
from safepref.logprobs.heads import ModelHead, find_head
from safepref.logprobs.packing import shape_of
from safepref.logprobs.route import BUDGETS, PACKED, Layout, Limits, Route, evaluating, unwrap
from safepref.logprobs.rows import TokenRow

TOLERANCE = {True: 5e-5, False: 8e-2}
"""Largest difference of the completions' mean token log-probs, root mean square in nats: full precision, half
precision. On a trained model in bfloat16 other shapes of the same product differ by up to .03, a token that
sees what it must not by .3 and more."""

WORDS: dict[Layout, str] = {
    "rows": "packed, prefix-shared, attention row by row",
    "dense": "packed, prefix-shared, dense mask",
    "padded": "padded, one sequence for each completion",
    "separate": "one sequence a forward pass",
}


@dataclass(frozen=True, slots=True)
class Choice:
    """The route that passed, and a line for the user that says which it is and why not a faster one."""

    route: Route
    line: str


def test_rows(vocabulary: int) -> list[TokenRow]:
    """Two rows of two completions each, of random tokens, with one beginning and different lengths otherwise;
    long enough that the rounding of half precision averages out.
    """
    generator = torch.Generator().manual_seed(20240907)

    def draw(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(vocabulary, (count,), generator=generator).tolist())

    trunk = draw(9)
    return [
        TokenRow(trunk + draw(3), (draw(24), draw(32))),
        TokenRow(trunk + draw(1), (draw(40), draw(28))),
    ]


def plain_sums(model: nn.Module, rows: Iterable[TokenRow], device: torch.device) -> Tensor:
    """The oracle: every completion behind its prompt, alone, in a plain forward pass of the ids but the last.

    Returns:
        Summed log-probs of all completions, row by row, (sum of K,) fp32.
    """
    sums = []
    for row in rows:
        for completion in row.completions:
            ids = torch.tensor([row.prompt_ids + completion], device=device)
            logits: Tensor = model(input_ids=ids[:, :-1]).logits[0, len(row.prompt_ids) - 1 :]
            logps = logits.float().log_softmax(-1)
            sums.append(logps.gather(1, ids[0, len(row.prompt_ids) :, None]).sum())
    return torch.stack(sums)


def choose(model: nn.Module, *, backend: str = "auto", token_budget: int | None = None) -> Choice:
    """Find the fastest route on which the model scores as it does on plain separate forward passes.

    Args:
        model: the causal LM, wrapped or not; its modes and weights are left as they are.
        backend: "auto" (packed if exact, else padded), "packed" (an error if it is not exact) or "padded".
        token_budget: tokens in one forward pass; None for the layout's own.

    Raises:
        InputError: an unknown backend, a budget below 1, or backend "packed" on a model that cannot be
        packed.
    """
    if backend not in ("auto", "packed", "padded"):
        raise InputError(f"log-probs: backend is {backend!r}; it can be auto, packed or padded")
    if token_budget is not None and token_budget < 1:
        raise InputError(f"log-probs: token_budget is {token_budget}; give at least 1")
    base = unwrap(model)
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        raise InputError("log-probs: prompt-learning adapters change the prompt's length; use LoRA")
    limits = Limits(base)
    device = next(base.parameters()).device
    kind = "cpu" if device.type == "cpu" else "other"
    rows = test_rows(_vocabulary(base, limits))
    why: list[str] = []
    with evaluating(model):
        plain = plain_sums(model, rows, device)
        layouts = _candidates(base, limits, backend, why)
        # The last resort, every logit from the model itself, is met only if the head's own test was fooled.
        for head in dict.fromkeys((find_head(base), ModelHead(selective=False))):
            for layout in layouts:
                budget = token_budget if token_budget and layout != "separate" else BUDGETS[layout][kind]
                route = Route(layout, head, budget, limits)
                fault = _fault(model, route, rows, plain)
                if fault is None:
                    return Choice(route, _line(base, route, why))
                why.append(f"{WORDS[layout]}: {fault}")
    raise InputError(
        f"log-probs: {type(base).__name__} cannot be scored ({'; '.join(why)}); try backend=padded"
    )


def _vocabulary(base: Any, limits: Limits) -> int:
    size = getattr(limits.config, "vocab_size", None)
    return size if isinstance(size, int) else base.get_input_embeddings().num_embeddings


def _candidates(base: Any, limits: Limits, backend: str, why: list[str]) -> list[Layout]:
    """Layouts worth trying, fastest first; the reasons against the others go to `why`."""
    packed: list[Layout] = []
    if backend == "padded":
        why.append("padding was asked for")
    elif "position_ids" not in limits.accepts:
        why.append("the model takes no position_ids")
    else:
        if recomputes(base):
            why.append("row by row: gradient checkpointing is on")
        elif can_switch(base):
            packed.append("rows")
        packed.append("dense")
    return packed if backend == "packed" else [*packed, "padded", "separate"]


def _fault(model: nn.Module, route: Route, rows: list[TokenRow], plain: Tensor) -> str | None:
    """What is wrong with a route, or None if it gives the plain forward passes' log-probs."""
    shape = shape_of(rows)
    whole = Route(
        route.layout, route.head, max(route.token_budget, sum(row.span for row in rows)), route.limits
    )
    if route.layout == "separate":
        whole = route
    try:
        logps = whole.token_logps(model, rows, shape)
    except Exception as error:  # whatever a model raises on these arguments, the answer is the same
        return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
    counts = shape.counts[shape.counts > 0]
    sums = torch.stack([part.sum() for part in torch.split(logps, counts.tolist())])
    off = ((sums - plain) / counts.to(sums)).square().mean().sqrt().item()
    limit = TOLERANCE[next(model.parameters()).dtype.itemsize >= 4]
    # Written so that NaN is a fault too.
    return None if off <= limit else f"off by {off:.2g} nats a token"


def _line(base: Any, route: Route, why: list[str]) -> str:
    text = f"log-probs of {type(base).__name__}: {WORDS[route.layout]}; {route.head.name}"
    if route.layout in PACKED and route.limits.horizon is not None:
        text += f"; rows over {route.limits.horizon} tokens (attention window) are padded"
    return f"{text} ({'; '.join(why)})" if why else text
