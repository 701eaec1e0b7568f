"""Logistic regression against scikit-learn, sign limits, text models and their storage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from safepref.judges.linear import TextModel, fit_logistic, load_state, out_of_fold, save_state, sigmoid


def planted(seed: int = 0, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 4))
    labels = (features @ [1.5, -1.0, 0.5, 0.0] + rng.normal(size=n) > 0.3).astype(float)
    return features, labels


def test_equals_scikit_learn_with_balanced_classes() -> None:
    features, labels = planted()
    ours = fit_logistic(features, labels, np.ones(len(labels)), 0.7)
    theirs = LogisticRegression(C=0.7, class_weight="balanced", tol=1e-9, max_iter=5000).fit(features, labels)
    assert np.allclose(ours.weights, theirs.coef_[0], atol=2e-4)
    assert ours.bias == pytest.approx(theirs.intercept_[0], abs=2e-4)


def test_a_soft_target_equals_two_weighted_rows() -> None:
    features, labels = planted(1, 60)
    soft = np.clip(labels * 0.6 + 0.2, 0, 1)
    twice = np.r_[features, features]
    both = np.r_[np.ones(60), np.zeros(60)]
    weights = np.r_[soft, 1 - soft]
    one = fit_logistic(features, soft, np.ones(60), 1.0)
    # Class balance scales by the number of rows, so the doubled set is given half the strength.
    two = fit_logistic(twice, both, weights, 0.5)
    assert np.allclose(one.weights, two.weights, atol=1e-3)


def test_signs_hold_a_coefficient_on_its_side() -> None:
    features, labels = planted()
    free = fit_logistic(features, labels, np.ones(len(labels)), 1.0)
    held = fit_logistic(features, labels, np.ones(len(labels)), 1.0, np.asarray([-1, -1, 1, 0]))
    assert free.weights[0] > 0.5
    assert held.weights[0] == 0 and held.weights[1] < 0 and held.weights[2] > 0


def test_out_of_fold_never_scores_a_group_by_a_model_that_saw_it() -> None:
    groups = [f"g{i % 7}" for i in range(70)]

    def fit(train: np.ndarray):  # type: ignore[no-untyped-def]
        seen = {groups[i] for i in train}
        return lambda test: np.asarray([float(groups[i] in seen) for i in test])

    assert out_of_fold(fit, groups).max() == 0


def test_text_model_learns_and_survives_storage_exactly(tmp_path: Path) -> None:
    texts = ["red apple", "red cherry", "red rose", "blue sky", "blue sea", "blue whale"] * 3
    targets = np.asarray([1.0, 1, 1, 0, 0, 0] * 3)
    for characters in (False, True):
        model = TextModel(characters, 5.0).fit(texts, targets, np.ones(18))
        assert model.logits(["a red car"])[0] > 0 > model.logits(["a blue car"])[0]
        save_state(tmp_path / str(characters), *model.state("m"))
        state = load_state(tmp_path / str(characters))
        assert state is not None
        again = TextModel.restore("m", *state)
        assert np.array_equal(model.logits([*texts, "green"]), again.logits([*texts, "green"]))


def test_a_state_without_its_json_is_not_there(tmp_path: Path) -> None:
    save_state(tmp_path, {"a": np.ones(2)}, {"x": 1})
    (tmp_path / "meta.json").unlink()
    assert load_state(tmp_path) is None


def test_sigmoid_is_safe_at_the_ends() -> None:
    assert np.array_equal(sigmoid(np.asarray([-1e4, 0.0, 1e4])), [0.0, 0.5, 1.0])
