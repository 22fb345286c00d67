import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize

from lumbar_tf.ensemble.candidates import CANDIDATES, Candidate, Fit, Rows, fit_candidate
from lumbar_tf.ensemble.stacker import Head


def make_rows(num_rows: int = 400, num_members: int = 2, seed: int = 0) -> Rows:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, num_rows)
    features = np.eye(3)[labels][:, None] + generator.normal(size=(num_rows, num_members, 3))
    context = generator.normal(size=(num_rows, 5, 3))
    studies = np.arange(num_rows) // 5
    return Rows(
        features=features - features.mean(axis=-1, keepdims=True),
        context=context - context.mean(axis=-1, keepdims=True),
        levels=np.arange(num_rows) % 5,
        labels=labels,
        studies=studies,
        folds=studies % 5,
    )


@pytest.mark.parametrize("candidate", CANDIDATES[Head.COMPETITION])
def test_without_rows_every_candidate_is_the_plain_mean(candidate: Candidate) -> None:
    fit = fit_candidate(make_rows(0, num_members=4), candidate)
    assert_allclose(fit.weights, np.broadcast_to(np.eye(3) / 4, (4, 3, 3)), atol=1e-12)
    assert_allclose(fit.bias, np.zeros((5, 3)), atol=1e-12)
    assert_allclose(fit.context, np.zeros((5, 3, 3)), atol=1e-12)


def test_an_infinite_ridge_on_deviations_is_the_scaled_mean() -> None:
    rows = make_rows()
    mean = fit_candidate(rows, Candidate(25.0))
    shrunk = fit_candidate(rows, Candidate(25.0, members=1e9, context=1e9))
    assert_allclose(mean.weights[0], mean.weights[1])
    assert_allclose(shrunk.weights, mean.weights, atol=1e-5)
    assert_allclose(shrunk.bias, mean.bias, atol=1e-5)


def _stated(rows: Rows, candidate: Candidate) -> np.ndarray:
    """The candidate's logits by another road: its parameters as the docstring names them, one ridge each."""
    num_members = rows.features.shape[1]
    shapes = {
        "temperature": (),
        "bias": (3,),
        "levels": (5, 3),
        "scales": (num_members,),
        "deviations": (num_members, 3, 3),
        "gains": (5,),
        "mixed_context": (5, 3, 3),
    }
    ridges = {
        "temperature": 1.0,
        "bias": 0.1,
        "levels": candidate.level,
        "scales": candidate.members,
        "deviations": 4 * candidate.members,
        "gains": candidate.context,
        "mixed_context": 4 * candidate.context,
    }
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])

    def logits(q: np.ndarray) -> np.ndarray:
        parts = np.split(q, ends[:-1])
        p = {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
        mean = rows.features.mean(axis=1)
        own = np.einsum("m,nmi->ni", p["scales"], rows.features)
        own += np.einsum("mij,nmj->ni", p["deviations"], rows.features)
        around = np.einsum("k,nki->ni", p["gains"], rows.context)
        around += np.einsum("kij,nkj->ni", p["mixed_context"], rows.context)
        bias = p["bias"] + p["levels"][rows.levels]
        return (1 + p["temperature"]) * mean + own + around + bias

    precision = np.concatenate([np.full(int(np.prod(shape)), ridges[name]) for name, shape in shapes.items()])

    def objective(q: np.ndarray) -> float:
        z = logits(q)
        log_sums = np.log(np.exp(z).sum(axis=1))
        return (log_sums - z[np.arange(len(z)), rows.labels]).sum() + 0.5 * precision @ q**2

    found = minimize(objective, np.zeros(ends[-1]), method="L-BFGS-B", options={"maxfun": 10**6})
    return logits(found.x)


def test_the_prior_is_the_one_that_its_ridges_state() -> None:
    rows = make_rows(60)
    candidate = Candidate(5.0, members=3.0, context=6.0)
    expected, found = _stated(rows, candidate), fit_candidate(rows, candidate).logits(rows)
    centred = [logits - logits.mean(axis=1, keepdims=True) for logits in (found, expected)]
    assert_allclose(*centred, atol=2e-3)


def test_a_start_changes_only_the_time() -> None:
    rows, candidate = make_rows(), Candidate(5.0, members=10.0)
    starts: dict = {}
    fit_candidate(rows, Candidate(25.0, members=100.0), starts)
    warm, cold = fit_candidate(rows, candidate, starts), fit_candidate(rows, candidate)
    assert_allclose(warm.weights, cold.weights, atol=1e-8)


def test_logits_are_the_formula() -> None:
    rows, generator = make_rows(30, num_members=3), np.random.default_rng(1)
    fit = Fit(
        generator.normal(size=(3, 3, 3)), generator.normal(size=(5, 3)), generator.normal(size=(5, 3, 3))
    )
    row = 7
    expected = sum(fit.weights[m] @ rows.features[row, m] for m in range(3)) + fit.bias[rows.levels[row]]
    expected = expected + sum(fit.context[k] @ rows.context[row, k] for k in range(5))
    assert_allclose(fit.logits(rows)[row], expected)
