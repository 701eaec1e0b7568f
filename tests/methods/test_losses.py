"""Closed forms, gradients and limits of the losses; none of it needs another library."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_inputs import make, mean_loss

from safepref.methods import METHODS, Logps

LN2 = math.log(2)


@pytest.mark.parametrize(
    ("name", "beta", "params", "value"),
    [
        ("dpo", 0.3, {}, LN2),
        ("dpo", 0.3, {"label_smoothing": 0.2}, LN2),
        ("rdpo", 0.3, {"label_smoothing": 0.1}, LN2),
        ("rdpo", 0.3, {"label_smoothing": 0.45}, LN2),
        ("ipo", 0.1, {}, 25.0),
        ("ipo", 0.01, {}, 2500.0),
        ("slic", 0.1, {}, 1.0),
        ("kto", 0.1, {}, 0.5),
        ("exo", 0.1, {"label_smoothing": 1e-3}, 2.7612307),
        ("nca", 0.01, {}, 2 * LN2),
        ("sppo", 0.1, {}, 50.0),
        ("aot", 0.1, {}, LN2),
        ("aot_unpaired", 0.1, {}, LN2),
        ("bco", 0.1, {}, 2 * LN2),
    ],
)
def test_value_where_policy_equals_reference(
    name: str, beta: float, params: dict[str, float], value: float
) -> None:
    loss = mean_loss(name, make([0.0] * 3, [0.0] * 3), beta, **params)
    assert loss.item() == pytest.approx(value, rel=1e-6)


def test_orpo_where_both_answers_are_equally_likely() -> None:
    same = torch.tensor([-0.7, -2.0], dtype=torch.float64)
    logps = Logps(same, same, same, same, chosen_nll=-same)
    assert METHODS["orpo"](logps, beta=0.25).losses.tolist() == pytest.approx(
        [0.7 + 0.25 * LN2, 2.0 + 0.25 * LN2]
    )


def test_slic_without_reference_ignores_it_and_adds_the_nll() -> None:
    logps = make([1.0, 2.0], [0.5, -30.0])
    moved = replace(logps, reference_chosen=logps.reference_chosen + 7)
    options = {"reference_free": True, "margin": 2.0, "nll_weight": 0.5}
    losses = METHODS["slic"](logps, **options).losses
    # Chosen lead by 20.5 and 52 nats, past the margin: what is left is half the NLL.
    assert losses.tolist() == pytest.approx([0.5 * 19.0, 0.5 * 18.0])
    assert torch.equal(losses, METHODS["slic"](moved, **options).losses)
    lagging = replace(logps, policy_rejected=logps.policy_chosen.detach() + 3)
    assert METHODS["slic"](lagging, **{**options, "nll_weight": 0.0}).losses.tolist() == [5.0, 5.0]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


E = 0.1
ANALYTIC = {
    # name: (params, d loss / d a, d loss / d b) at one pair, beta = .5, kl = .4, delta = .2
    "dpo": ({}, lambda a, b: -0.5 * sigmoid(-0.5 * (a - b)), lambda a, b: 0.5 * sigmoid(-0.5 * (a - b))),
    "rdpo": (
        {"label_smoothing": E},
        lambda a, b: 0.5 * (-(1 - E) * sigmoid(-0.5 * (a - b)) - E * sigmoid(0.5 * (a - b))) / (1 - 2 * E),
        lambda a, b: -0.5 * (-(1 - E) * sigmoid(-0.5 * (a - b)) - E * sigmoid(0.5 * (a - b))) / (1 - 2 * E),
    ),
    "ipo": ({}, lambda a, b: 2 * (a - b - 1), lambda a, b: -2 * (a - b - 1)),
    "slic": (
        {},
        lambda a, b: -0.5 if 0.5 * (a - b) < 1 else 0.0,
        lambda a, b: 0.5 if 0.5 * (a - b) < 1 else 0.0,
    ),
    "kto": (
        {"desirable_weight": 1.2, "undesirable_weight": 0.9},
        lambda a, b: -0.6 * 0.5 * sigmoid(0.5 * (a - 0.4)) * sigmoid(-0.5 * (a - 0.4)),
        lambda a, b: 0.45 * 0.5 * sigmoid(0.5 * (0.4 - b)) * sigmoid(-0.5 * (0.4 - b)),
    ),
    "exo": (
        {"label_smoothing": E},
        lambda a, b: (
            0.5 * sigmoid(0.5 * (a - b)) * sigmoid(-0.5 * (a - b)) * (0.5 * (a - b) - math.log((1 - E) / E))
        ),
        lambda a, b: (
            -0.5 * sigmoid(0.5 * (a - b)) * sigmoid(-0.5 * (a - b)) * (0.5 * (a - b) - math.log((1 - E) / E))
        ),
    ),
    "nca": (
        {},
        lambda a, b: 0.5 * (1.5 * sigmoid(0.5 * a) - 1),
        lambda a, b: 0.5 * 0.5 * sigmoid(0.5 * b),
    ),
    "sppo": ({}, lambda a, b: 2 * (a - 1), lambda a, b: 2 * (b + 1)),
    "bco": (
        {},
        lambda a, b: -0.5 * sigmoid(-(0.5 * a - 0.2)),
        lambda a, b: 0.5 * sigmoid(0.5 * b - 0.2),
    ),
}


@pytest.mark.parametrize("name", ANALYTIC)
@settings(max_examples=25, deadline=None)
@given(a=st.floats(-8, 8), b=st.floats(-8, 8))
def test_gradient_is_the_analytic_one(name: str, a: float, b: float) -> None:
    params, by_a, by_b = ANALYTIC[name]
    if name == "slic" and abs(0.5 * (a - b) - 1) < 1e-6:
        return  # the hinge has no gradient at its corner
    # Two equal pairs: KTO takes no batch of one, and its z0 is the mean of the mismatched ratios.
    logps = make([a, a], [b, b], kl=[0.1, 0.7], delta=0.2)
    METHODS[name](logps, beta=0.5, **params).losses.sum().backward()
    assert logps.policy_chosen.grad is not None and logps.policy_rejected.grad is not None
    # d loss / d log pi is d loss / d log-ratio.
    assert logps.policy_chosen.grad.tolist() == pytest.approx([by_a(a, b)] * 2, abs=1e-9)
    assert logps.policy_rejected.grad.tolist() == pytest.approx([by_b(a, b)] * 2, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(chosen=st.floats(-6, -0.05), rejected=st.floats(-6, -0.05))
def test_orpo_gradient_is_the_analytic_one(chosen: float, rejected: float) -> None:
    w = torch.tensor([chosen], dtype=torch.float64, requires_grad=True)
    lose = torch.tensor([rejected], dtype=torch.float64, requires_grad=True)
    METHODS["orpo"](Logps(w, lose, w.detach(), w.detach(), chosen_nll=-w), beta=0.3).losses.sum().backward()
    odds = math.exp(chosen) / (1 - math.exp(chosen)) / (math.exp(rejected) / (1 - math.exp(rejected)))
    lost = 1 / (1 + odds)  # sigmoid(-log odds ratio)
    assert w.grad is not None and lose.grad is not None
    assert w.grad.item() == pytest.approx(-1 - 0.3 * lost / (1 - math.exp(chosen)), rel=1e-6)
    assert lose.grad.item() == pytest.approx(0.3 * lost / (1 - math.exp(rejected)), rel=1e-6)


def descend(name: str, beta: float, steps: int, rate: float, **params: float) -> tuple[float, float]:
    """Rewards of one pair (doubled) after plain gradient descent on its two log-probs."""
    logps = make([0.0, 0.0], [0.0, 0.0])
    optimizer = torch.optim.SGD([logps.policy_chosen, logps.policy_rejected], lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        mean_loss(name, replace(logps, chosen_nll=None), beta, **params).backward()
        optimizer.step()
    output = METHODS[name](logps, beta=beta, **params)
    return output.chosen_rewards[0].item(), output.rejected_rewards[0].item()


def test_nca_settles_the_chosen_reward_at_ln2_and_lets_the_rejected_one_fall() -> None:
    chosen, rejected = descend("nca", 1.0, 300, 4.0)
    assert chosen == pytest.approx(LN2, abs=1e-3)
    assert rejected < -5


@pytest.mark.parametrize(("name", "noise"), [("dpo", 0.2), ("exo", 0.2), ("aot", 0.2)])
def test_smoothed_losses_have_their_optimum_at_the_log_odds_of_the_noise(name: str, noise: float) -> None:
    chosen, rejected = descend(name, 1.0, 80, 4.0, label_smoothing=noise)
    assert chosen - rejected == pytest.approx(math.log((1 - noise) / noise), abs=1e-3)


def test_squared_losses_settle_at_their_targets() -> None:
    chosen, rejected = descend("sppo", 0.25, 40, 0.4)
    assert (chosen, rejected) == (pytest.approx(0.5), pytest.approx(-0.5))
    chosen, rejected = descend("ipo", 0.25, 60, 0.2)
    assert chosen - rejected == pytest.approx(0.5)


def test_robust_dpo_falls_without_bound() -> None:
    beyond = mean_loss("rdpo", make([50.0], [0.0]), 1.0, label_smoothing=0.1)
    assert beyond.item() == pytest.approx(-6.25, abs=1e-3)
    further = mean_loss("rdpo", make([500.0], [0.0]), 1.0, label_smoothing=0.1)
    assert further.item() == pytest.approx(-62.5, abs=1e-3)


def test_dpo_never_stops_pushing_and_the_hinge_does() -> None:
    far = make([60.0], [0.0])
    mean_loss("dpo", far, 0.1).backward()
    assert far.policy_chosen.grad is not None and far.policy_chosen.grad.item() < 0
    past = make([60.0], [0.0])
    mean_loss("slic", past, 0.1).backward()
    assert past.policy_chosen.grad is not None and past.policy_chosen.grad.item() == 0


def test_robust_dpo_is_unbiased_under_label_flips() -> None:
    """The expectation over flipped labels is the clean DPO loss: what the correction is for."""
    clean = mean_loss("dpo", make([3.0, -1.0], [0.5, 2.0]), 0.4)
    straight, flipped = make([3.0, -1.0], [0.5, 2.0]), make([0.5, 2.0], [3.0, -1.0])
    noisy = 0.7 * mean_loss("rdpo", straight, 0.4, label_smoothing=0.3) + 0.3 * mean_loss(
        "rdpo", flipped, 0.4, label_smoothing=0.3
    )
    assert noisy.item() == pytest.approx(clean.item(), rel=1e-9)


def test_kto_reference_point_is_clamped_and_takes_no_gradient() -> None:
    ratios = torch.tensor([4.0, 2.0], dtype=torch.float64, requires_grad=True)
    logps = make([1.0, -1.0], [0.0, 2.0])
    positive = replace(logps, policy_kl=ratios, reference_kl=torch.zeros(2, dtype=torch.float64))
    loss = mean_loss("kto", positive, 0.5)
    loss.backward()
    assert ratios.grad is None
    by_hand = [
        (1 - sigmoid(0.5 * (a - 3)) + 1 - sigmoid(0.5 * (3 - b))) / 2 for a, b in ((1.0, 0.0), (-1.0, 2.0))
    ]
    assert loss.item() == pytest.approx(sum(by_hand) / 2)
    below = replace(logps, policy_kl=-ratios.detach(), reference_kl=torch.zeros(2, dtype=torch.float64))
    zero = replace(below, policy_kl=torch.zeros(2, dtype=torch.float64))
    assert torch.equal(mean_loss("kto", below, 0.5), mean_loss("kto", zero, 0.5))


def test_bco_shift_moves_both_sides() -> None:
    loss = mean_loss("bco", make([2.0], [1.0], delta=0.3), 0.5)
    assert loss.item() == pytest.approx(-math.log(sigmoid(1.0 - 0.3)) - math.log(sigmoid(-(0.5 - 0.3))))


def test_aot_compares_sorted_batches() -> None:
    logps = make([3.0, -1.0, 0.5], [0.0, 2.0, -0.5])
    logps = replace(
        logps, reference_rejected=logps.reference_rejected + torch.tensor([5.0, 0.0, -3.0]).double()
    )
    u = sorted((logps.policy_chosen - logps.policy_rejected).tolist())
    v = sorted((logps.reference_chosen - logps.reference_rejected).tolist())
    by_hand = sum(-math.log(sigmoid(0.2 * (x - y))) for x, y in zip(u, v, strict=True)) / 3
    assert mean_loss("aot", logps, 0.2).item() == pytest.approx(by_hand)
    a, b = sorted(logps.chosen_logratios.tolist()), sorted(logps.rejected_logratios.tolist())
    apart = sum(-math.log(sigmoid(0.2 * (x - y))) for x, y in zip(a, b, strict=True)) / 3
    assert mean_loss("aot_unpaired", logps, 0.2).item() == pytest.approx(apart)


def test_aot_of_equal_pairs_is_dpo() -> None:
    logps = make([2.0, 2.0], [0.5, 0.5])
    assert mean_loss("aot", logps, 0.3).item() == pytest.approx(mean_loss("dpo", logps, 0.3).item())
