"""The twelve methods, one frozen row each: what a loss needs, its defaults and where it comes from.

Adding a method is one function, one row here and one parity test.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from safepref.errors import InputError
from safepref.methods.aot import aot, aot_unpaired
from safepref.methods.bco import bco
from safepref.methods.dpo import dpo, robust_dpo
from safepref.methods.exo import exo
from safepref.methods.ipo import ipo
from safepref.methods.kto import kto
from safepref.methods.logps import Logps, LossOutput
from safepref.methods.nca import nca
from safepref.methods.orpo import orpo
from safepref.methods.slic import slic
from safepref.methods.sppo import sppo


@dataclass(frozen=True, slots=True)
class Range:
    """The default of a number and where it may lie: from `low`, itself only if closed, to below `high`."""

    default: float
    help: str
    low: float = 0.0
    high: float = float("inf")
    low_closed: bool = True

    def __str__(self) -> str:
        return f"a number in {'[' if self.low_closed else '('}{self.low:g}, {self.high:g})"

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        above = value >= self.low if self.low_closed else value > self.low
        return above and value < self.high


@dataclass(frozen=True, slots=True)
class Switch:
    """A parameter that is on or off."""

    default: bool
    help: str

    def __str__(self) -> str:
        return "true or false"

    def __contains__(self, value: object) -> bool:
        return isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Method:
    """One row of the table."""

    name: str
    """The name on the command line."""
    title: str
    description: str
    arxiv: str
    """The paper that the loss comes from."""
    loss: Callable[..., LossOutput]
    """The pure function: (logps, *, beta, **params) -> LossOutput."""
    beta: float
    """Default strength; in the loss's own sense (tau for IPO, lambda for ORPO, 1/eta for SPPO)."""
    learning_rate: float
    """Default peak rate for adapters, at the width of the embedded model (`TrainingSettings.rate`)."""
    full_learning_rate: float
    """Default peak rate when all weights are trained."""
    weight: float = 1.0
    """Default weight of the preference loss beside the NLL and the anchor: a squared loss with a far target
    would drown them."""
    nll: float = 2.0
    """Default weight of the NLL per token on the chosen answers of harmful and ready pairs, which holds the
    refusals up while the rejected answers are pushed down."""
    needs_reference: bool = True
    """The loss reads the reference's log-probs."""
    paired: bool = True
    """Defined on two answers to one prompt; False: on separately labelled answers."""
    batch_coupled: bool = False
    """A pair's loss depends on the others in its micro-batch: the batch size is part of the method."""
    needs_mismatched: bool = False
    """The loss reads log-probs of mismatched pairs (prompt of one, answer of another)."""
    length_normalised: bool = False
    """The loss reads means per token, not sums."""
    has_nll: bool = False
    """The loss holds the NLL of the chosen answer already, so training adds none."""
    nll_switch: str | None = None
    """A parameter that puts the NLL into the loss where it is on."""
    keeps_pairs: bool = True
    """A loss value belongs to one pair, so pairs can be weighted."""
    params: Mapping[str, Range | Switch] = field(default_factory=dict)

    def __call__(self, logps: Logps, *, beta: float | None = None, **params: float | bool) -> LossOutput:
        """The losses of a micro-batch, each times its pair's weight; see `Logps` and `LossOutput`.

        Args:
            logps: B pairs.
            beta: None takes the row's default.
            params: the row's own parameters; those not given have their defaults.

        Raises:
            InputError: a value out of range, an unknown parameter, a micro-batch of one pair for a
                method that compares pairs, or weights for one that cannot take them.
        """
        strength, values = self.resolve(beta, params)
        self.check_batch_size(len(logps))
        if logps.weights is None:
            return self.loss(logps, beta=strength, **values)
        if not self.keeps_pairs:
            raise InputError(f"{self.name}: it sorts its batch, so pairs have no weight; leave weights out")
        output = self.loss(replace(logps, weights=None), beta=strength, **values)
        return output._replace(losses=output.losses * logps.weights)

    def holds_nll(self, params: Mapping[str, float | bool]) -> bool:
        """Whether the loss with these resolved parameters holds the NLL itself."""
        return self.has_nll or (self.nll_switch is not None and bool(params[self.nll_switch]))

    def resolve(
        self, beta: float | None = None, params: Mapping[str, float | bool] | None = None
    ) -> tuple[float, dict[str, float | bool]]:
        """The beta and all parameters that hold for these settings, checked.

        Raises:
            InputError: an unknown parameter, or a value out of its range.
        """
        strength = self.beta if beta is None else beta
        if strength not in _POSITIVE:
            raise InputError(f"{self.name}: beta is {strength!r}; give {_POSITIVE}")
        given = dict(params or {})
        for name, value in given.items():
            if name not in self.params:
                hint = _suggest(name, list(self.params), "parameters")
                raise InputError(f"{self.name}: unknown parameter {name!r}; {hint}")
            if value not in self.params[name]:
                raise InputError(f"{self.name}: {name} is {value!r}; give {self.params[name]}")
        return strength, {name: given.get(name, row.default) for name, row in self.params.items()}

    def check_batch_size(self, size: int) -> None:
        """Refuse a micro-batch that the method cannot work with.

        Raises:
            InputError: one pair for a method that compares the pairs of a micro-batch: KTO's z0 would be
                the reward itself, AOT would silently be DPO.
        """
        if self.batch_coupled and size < 2:
            raise InputError(
                f"{self.name}: a micro-batch of {size} pair; it compares the pairs of a micro-batch, so set "
                f"training.batch_size to 2 or more"
            )


_POSITIVE = Range(1.0, "", low_closed=False)


def _smoothing(default: float, help: str, *, low_closed: bool = True) -> Range:
    return Range(default, help, high=0.5, low_closed=low_closed)


_ROWS = (
    Method(
        name="dpo",
        title="DPO",
        description="logistic loss on the margin of log-ratios; conservative DPO with label_smoothing",
        arxiv="2305.18290",
        loss=dpo,
        beta=0.1,
        learning_rate=1e-3,
        full_learning_rate=1e-6,
        params={"label_smoothing": _smoothing(0.0, "assumed share of flipped labels (conservative DPO)")},
    ),
    Method(
        name="rdpo",
        title="Robust DPO",
        description="DPO made unbiased for a known share of flipped labels; unbounded below",
        arxiv="2403.00409",
        loss=robust_dpo,
        beta=0.1,
        learning_rate=1e-3,
        full_learning_rate=1e-6,
        params={"label_smoothing": _smoothing(0.1, "assumed share of flipped labels")},
    ),
    Method(
        name="ipo",
        title="IPO",
        description="squared distance of the margin per token to 1/(2 beta)",
        arxiv="2310.12036",
        loss=ipo,
        beta=0.1,
        nll=1.0,  # chosen on the choose split of real input (docs/results.md), as AOT's
        weight=0.25,
        learning_rate=1e-3,
        full_learning_rate=1e-6,
        length_normalised=True,
    ),
    Method(
        name="slic",
        title="SLiC",
        description="hinge on the margin of log-ratios; reference_free: of log-probs, plus an NLL term",
        arxiv="2305.10425",
        loss=slic,
        beta=0.1,
        learning_rate=1e-3,
        full_learning_rate=1e-6,
        params={
            "reference_free": Switch(False, "the first form of the loss: no reference, with an NLL term"),
            "margin": Range(1.0, "nats that chosen must lead by (reference_free only)", low_closed=False),
            "nll_weight": Range(0.1, "weight of the NLL of the chosen answer (reference_free only)"),
        },
        nll_switch="reference_free",
    ),
    Method(
        name="kto",
        title="KTO",
        description="prospect-theoretic value of each answer against a reference point from mismatched pairs",
        arxiv="2402.01306",
        loss=kto,
        beta=0.1,
        learning_rate=1e-3,
        full_learning_rate=1e-6,
        paired=False,
        batch_coupled=True,
        needs_mismatched=True,
        params={
            "desirable_weight": Range(1.0, "weight of the chosen answers; keep 1 to 4/3 times the other"),
            "undesirable_weight": Range(1.0, "weight of the rejected answers"),
        },
    ),
    Method(
        name="exo",
        title="EXO",
        description="reverse KL divergence between the policy's preference and the smoothed label",
        arxiv="2402.00856",
        loss=exo,
        beta=0.1,
        learning_rate=1e-3,
        full_learning_rate=1e-6,
        params={"label_smoothing": _smoothing(1e-3, "label noise; must be above 0", low_closed=False)},
    ),
    Method(
        name="nca",
        title="NCA",
        description="contrasts each answer with the reference's; the chosen reward settles at ln 2",
        arxiv="2402.05369",
        loss=nca,
        beta=0.05,
        nll=1.0,  # it holds the chosen up by itself; with twice as much it refuses what it should answer
        learning_rate=1e-3,
        full_learning_rate=5e-6,
    ),
    Method(
        name="sppo",
        title="SPPO",
        description="squared distance of each log-ratio to its share of a win or loss, +-1/(2 beta)",
        arxiv="2405.00675",
        loss=sppo,
        beta=0.0125,
        weight=1e-3,
        learning_rate=1e-3,
        full_learning_rate=5e-7,
    ),
    Method(
        name="aot",
        title="AOT",
        description="stochastic dominance of the policy's margins over the reference's, by sorted batch",
        arxiv="2406.05882",
        loss=aot,
        beta=0.1,
        nll=1.0,  # sorted batches let look-alikes go; with twice as much, refusals spread to them
        learning_rate=1e-3,
        full_learning_rate=1e-6,
        batch_coupled=True,
        keeps_pairs=False,
        params={"label_smoothing": _smoothing(0.0, "assumed share of flipped labels")},
    ),
    Method(
        name="orpo",
        title="ORPO",
        description="NLL of the chosen answer plus a log odds ratio against the rejected; no reference",
        arxiv="2403.07691",
        loss=orpo,
        beta=0.1,
        learning_rate=1e-3,
        full_learning_rate=5e-6,
        needs_reference=False,
        length_normalised=True,
        has_nll=True,
    ),
    Method(
        name="bco",
        title="BCO",
        description="binary classifier of chosen and rejected answers, rewards shifted by their running mean",
        arxiv="2404.04656",
        loss=bco,
        beta=0.1,
        learning_rate=1e-3,
        full_learning_rate=5e-7,
        paired=False,
    ),
    Method(
        name="aot_unpaired",
        title="AOT unpaired",
        description="stochastic dominance of chosen over rejected log-ratios, each sorted by batch",
        arxiv="2406.05882",
        loss=aot_unpaired,
        beta=0.1,
        learning_rate=1e-3,
        full_learning_rate=1e-6,
        paired=False,
        batch_coupled=True,
        keeps_pairs=False,
        params={"label_smoothing": _smoothing(0.0, "assumed share of flipped labels")},
    ),
)

METHODS: Mapping[str, Method] = MappingProxyType({row.name: row for row in _ROWS})
"""Every method by its name on the command line."""

PAPER_METHODS: tuple[str, ...] = tuple(METHODS)[:10]
"""The ten of arXiv 2409.07772, as far as its published text lets one say."""


def resolve_methods(spec: str) -> list[Method]:
    """The methods that a text like "nca,dpo", "paper" or "all" names, in that order, each once.

    Raises:
        InputError: an unknown name (the nearest one is given), or none at all.
    """
    names: list[str] = []
    for name in (part.strip().lower() for part in spec.split(",")):
        if name == "paper":
            names += PAPER_METHODS
        elif name == "all":
            names += METHODS
        elif name in METHODS:
            names.append(name)
        elif name:
            raise InputError(
                f"--methods: unknown method {name!r}; {_suggest(name, [*METHODS, 'paper', 'all'], 'methods')}"
            )
    if not names:
        raise InputError(
            f"--methods: {spec!r} names no method; give some of {', '.join(METHODS)}, paper, all"
        )
    return [METHODS[name] for name in dict.fromkeys(names)]


def _suggest(name: str, known: list[str], what: str) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"the {what} are {', '.join(known)}" if known else f"it has no {what}"
