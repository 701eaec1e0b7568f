"""What holds for every loss: invariances, finite values, refused inputs; none of it needs another library."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_inputs import make, means
from torch import Tensor

from safepref.errors import InputError
from safepref.methods import METHODS, Logps, Method

floats = st.floats(-30, 30)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@settings(max_examples=25, deadline=None)
@given(rows=st.lists(st.tuples(floats, floats, floats), min_size=2, max_size=6), seed=st.integers(0, 99))
def test_mean_does_not_depend_on_the_order_of_pairs(
    method: Method, rows: list[tuple[float, float, float]], seed: int
) -> None:
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    logps = make([r[0] for r in rows], [r[1] for r in rows], kl=[r[2] for r in rows])
    if method.length_normalised:
        logps = means(logps)
    values = {
        name: value[order]
        for name in Logps.__dataclass_fields__
        if isinstance(value := getattr(logps, name), Tensor)
    }
    before, after = method(logps).losses.mean(), method(Logps(**values)).losses.mean()
    assert after.item() == pytest.approx(before.item(), rel=1e-9, abs=1e-9)


UNPAIRED = [method for method in METHODS.values() if not method.paired]


@pytest.mark.parametrize("method", UNPAIRED, ids=lambda method: method.name)
@settings(max_examples=25, deadline=None)
@given(rows=st.lists(st.tuples(floats, floats), min_size=2, max_size=6))
def test_unpaired_methods_do_not_care_which_rejected_goes_with_which_chosen(
    method: Method, rows: list[tuple[float, float]]
) -> None:
    together = make([r[0] for r in rows], [r[1] for r in rows])
    shuffled = make([r[0] for r in rows], [r[1] for r in reversed(rows)])
    assert method(shuffled).losses.mean().item() == pytest.approx(method(together).losses.mean().item())


REFERENCED = [method for method in METHODS.values() if method.needs_reference]


@pytest.mark.parametrize("method", REFERENCED, ids=lambda method: method.name)
def test_only_ratios_to_the_reference_matter(method: Method) -> None:
    """Making each text less likely under policy and reference alike changes nothing."""
    logps = make([1.0, -2.0, 0.0], [0.5, 3.0, -1.0])
    shift_w, shift_l = torch.tensor([-3.0, 4.0, 0.5]).double(), torch.tensor([2.0, 0.0, -7.0]).double()
    moved = replace(
        logps,
        policy_chosen=logps.policy_chosen + shift_w,
        reference_chosen=logps.reference_chosen + shift_w,
        policy_rejected=logps.policy_rejected + shift_l,
        reference_rejected=logps.reference_rejected + shift_l,
    )
    if method.name == "aot":  # it compares unnormalised margins, sorted apart: only common shifts cancel
        moved = replace(
            logps,
            policy_chosen=logps.policy_chosen - 4,
            reference_chosen=logps.reference_chosen - 4,
        )
    assert method(moved).losses.mean().item() == pytest.approx(method(logps).losses.mean().item())


def test_orpo_does_not_read_the_reference() -> None:
    logps = means(make([1.0, 2.0], [0.0, -1.0]))
    other = replace(logps, reference_chosen=logps.reference_chosen * 3)
    assert torch.equal(METHODS["orpo"](logps).losses, METHODS["orpo"](other).losses)


COUPLED = {name for name, method in METHODS.items() if method.batch_coupled}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_batch_coupled_says_whether_the_others_in_the_batch_matter(method: Method) -> None:
    """A batch's mean equals the mean of its halves exactly where the table says that pairs are apart."""
    logps = make([4.0, -6.0, 1.0, 9.0], [2.0, 7.0, -8.0, 0.0], kl=[1.0, 3.0, 9.0, 2.0])
    logps = replace(logps, reference_rejected=logps.reference_rejected + torch.arange(4.0).double() ** 2)
    if method.length_normalised:
        logps = means(logps)
    halves = [
        Logps(
            **{
                name: value[part]
                for name in Logps.__dataclass_fields__
                if isinstance(value := getattr(logps, name), Tensor)
            }
        )
        for part in (slice(0, 2), slice(2, 4))
    ]
    whole = method(logps).losses.mean().item()
    parts = sum(method(half).losses.mean().item() for half in halves) / 2
    assert (whole != pytest.approx(parts, rel=1e-9)) == method.batch_coupled


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("scale", [0.0, 1e-6, 30.0, 1e4])
def test_extreme_log_probs_give_finite_losses_and_gradients(method: Method, scale: float) -> None:
    signs = torch.tensor([0.0, -1.0, -0.5, -1.0])
    chosen = (scale * signs).requires_grad_()
    rejected = (scale * signs.flip(0)).requires_grad_()
    logps = Logps(
        policy_chosen=chosen,
        policy_rejected=rejected,
        reference_chosen=scale * signs.roll(1),
        reference_rejected=scale * signs.roll(2),
        policy_kl=scale * signs,
        reference_kl=scale * signs.roll(1),
        chosen_nll=-chosen,
    )
    output = method(logps)
    output.losses.mean().backward()
    assert chosen.grad is not None and rejected.grad is not None
    for value in (*output, chosen.grad, rejected.grad):
        assert torch.isfinite(value).all()


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_rewards_are_detached_and_scale_with_beta(method: Method) -> None:
    logps = make([1.0, 2.0], [0.0, -1.0])
    if method.length_normalised:
        logps = means(logps)
    once, twice = method(logps, beta=0.2), method(logps, beta=0.4)
    assert not once.chosen_rewards.requires_grad and not once.rejected_rewards.requires_grad
    assert once.losses.requires_grad and once.losses.shape == (2,)
    assert twice.chosen_rewards.tolist() == pytest.approx((2 * once.chosen_rewards).tolist())


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_descent_on_any_loss_prefers_the_chosen_answer(method: Method) -> None:
    logps = make([0.0, 0.0], [0.0, 0.0])
    method(logps if not method.length_normalised else means(logps)).losses.mean().backward()
    assert logps.policy_chosen.grad is not None and logps.policy_rejected.grad is not None
    assert (logps.policy_chosen.grad < logps.policy_rejected.grad).all()


def test_weights_scale_each_pair() -> None:
    logps = make([1.0, -1.0, 2.0], [0.0, 0.5, 0.0])
    weights = torch.tensor([1.0, 0.0, 2.5]).double()
    plain, weighted = METHODS["nca"](logps), METHODS["nca"](replace(logps, weights=weights))
    assert torch.equal(weighted.losses, plain.losses * weights)
    assert torch.equal(weighted.chosen_rewards, plain.chosen_rewards)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy_chosen": torch.zeros(2, 1)}, "shape"),
        ({"policy_rejected": torch.zeros(3)}, "policy_rejected has 3 values"),
        ({"reference_chosen": torch.zeros(2, dtype=torch.bfloat16)}, "float32"),
        ({"policy_kl": torch.zeros(2)}, "belong together"),
        ({"policy_kl": torch.zeros(2), "reference_kl": torch.zeros(3)}, "same mismatched pairs"),
        ({"weights": torch.ones(1)}, "weights has 1 values"),
    ],
)
def test_malformed_log_probs_are_refused(change: dict[str, Tensor], message: str) -> None:
    good = {
        name: torch.zeros(2)
        for name in ("policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected")
    }
    with pytest.raises(InputError, match=message):
        Logps(**{**good, **change})


@pytest.mark.parametrize(("name", "field"), [("kto", "policy_kl"), ("orpo", "chosen_nll")])
def test_missing_inputs_are_named(name: str, field: str) -> None:
    bare = Logps(*(torch.zeros(2) - 1 for _ in range(4)))
    with pytest.raises(InputError, match=field):
        METHODS[name](bare)
    with pytest.raises(InputError, match="chosen_nll"):
        METHODS["slic"](bare, reference_free=True)
