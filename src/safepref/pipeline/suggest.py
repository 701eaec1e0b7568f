"""The settings that are tried next, by Optuna's tree-structured Parzen estimator (Bergstra et al., 2011)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType

from safepref.errors import InputError
from safepref.pipeline.space import Knob, rounded

STARTUP = 4
"""Trials before the estimator takes over: the present settings and three drawn at random. Optuna's own ten
would make a search of ten trials a random one."""


def load_optuna() -> ModuleType:
    """Optuna, which is an extra.

    Raises:
        InputError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise InputError(
            "safepref tune needs Optuna, which is not installed; pip install 'safepref[tune]'"
        ) from error
    return optuna


def suggest(
    knobs: Sequence[Knob], trials: Sequence[tuple[Mapping[str, float], float]], seed: int
) -> dict[str, float]:
    """The values of the next trial; the first trial's are the present settings.

    The study is made anew from what was tried, so that a search that was stopped goes on as if it had not
    been: the answer depends on the arguments alone.

    Args:
        knobs: what is searched.
        trials: values and objective of the trials so far, in their order; more is better.
        seed: of the sampler, another one for each trial.

    Returns:
        A value for each knob, in `DIGITS` significant digits.
    """
    if not trials:
        return {knob.name: knob.center for knob in knobs}
    optuna = load_optuna()
    space = {
        knob.name: optuna.distributions.FloatDistribution(knob.low, knob.high, log=knob.log) for knob in knobs
    }
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP, multivariate=True)
    with _quiet(optuna):
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for values, score in trials:
            study.add_trial(optuna.trial.create_trial(params=dict(values), distributions=space, value=score))
        asked = study.ask(space).params
    return {knob.name: min(max(rounded(asked[knob.name]), knob.low), knob.high) for knob in knobs}


@contextmanager
def _quiet(optuna: ModuleType) -> Iterator[None]:
    """Optuna says each new study; the level is the process's own, so it is put back."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
