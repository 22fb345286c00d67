"""Multinomial logistic regression with a Gaussian prior around any centre, by Newton's method.

scikit-learn's `LogisticRegression` shrinks all coefficients to zero, with one strength. A stacker must shrink
to the plain mean of its members instead, so that with little data it stays at the mean. The tests compare
this solver with scikit-learn on problems that both can state.

Three logits have two degrees of freedom, because adding a number to all of them changes no probability. The
solver works on these two, logits = CONTRASTS @ coefficients @ features, which is exact and more than halves
the cost.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Orthonormal columns, both orthogonal to (1, 1, 1): [3, 2].
CONTRASTS: Floats = np.array([[1.0, 1.0], [-1.0, 1.0], [0.0, -2.0]]) / np.sqrt([2.0, 6.0])

_MAX_STEPS = 50
#: Newton's decrement (twice the expected decrease of the loss, in nats over all rows) at which the search
#: ends.
_TOLERANCE = 1e-7
#: A full Newton step is halved down to this.
_SMALLEST_SCALE = 1e-6


def _probabilities(logits: Floats) -> tuple[Floats, Floats]:
    """Returns softmax [3, num_rows] of logits [3, num_rows], and the log of its denominator [num_rows]."""
    top = np.maximum(np.maximum(logits[0], logits[1]), logits[2])
    exponentials = np.exp(logits - top)
    sums = exponentials[0] + exponentials[1] + exponentials[2]
    return exponentials / sums, top + np.log(sums)


def fit_contrasts(
    features: Floats,
    labels: NDArray[np.integer],
    *,
    centre: Floats,
    precision: Floats,
    start: Floats | None = None,
) -> Floats:
    """Minimises sum_n -ln softmax(CONTRASTS @ v @ features_n)[label_n] + 1/2 (v-c)' precision (v-c).

    With a positive definite precision the problem is strictly convex, so the solution is unique.

    Args:
        features: float64 [num_rows, num_features].
        labels: class of each row, int [num_rows], 0 to 2.
        centre: c, the prior mean of the coefficients, [2, num_features]; the solution where there is no row.
        precision: prior precision of the coefficients in C order, symmetric and positive definite,
            [2 * num_features, 2 * num_features].
        start: initial coefficients, or None for the centre; the solution is the same within the tolerance.

    Returns:
        The coefficients v, float64 [2, num_features].
    """
    rows = np.arange(len(labels))
    v = (centre if start is None else start).astype(np.float64)

    def parts(v: Floats) -> tuple[Floats, float]:
        logits = CONTRASTS @ (v @ features.T)
        p, log_sums = _probabilities(logits)
        shift = (v - centre).ravel()
        loss = (log_sums - logits[labels, rows]).sum() + 0.5 * shift @ precision @ shift
        return p, float(loss)

    p, loss = parts(v)
    for _ in range(_MAX_STEPS):
        residual = CONTRASTS.T @ p - CONTRASTS[labels].T  # [2, num_rows]
        gradient = (residual @ features).ravel() + precision @ (v - centre).ravel()
        step = np.linalg.solve(_hessian(features, p) + precision, gradient)
        decrement = float(gradient @ step)
        scale = 1.0
        while True:
            trial = v - scale * step.reshape(v.shape)
            trial_p, trial_loss = parts(trial)
            # Armijo's rule; near the tolerance rounding may hide the decrease, and a full step is safe.
            if trial_loss <= loss - 0.25 * scale * decrement or decrement < _TOLERANCE:
                break
            scale /= 2
            if scale < _SMALLEST_SCALE:
                return v
        v, p, loss = trial, trial_p, trial_loss
        if decrement < _TOLERANCE:
            break
    return v


def _hessian(features: Floats, p: Floats) -> Floats:
    """Returns the Hessian: sum_n (C' (diag p_n - p_n p_n') C) kron features_n features_n'."""
    mean = CONTRASTS.T @ p
    blocks = {}
    for i, j in ((0, 0), (0, 1), (1, 1)):
        curvature = (CONTRASTS[:, i] * CONTRASTS[:, j]) @ p - mean[i] * mean[j]
        blocks[i, j] = (features * curvature[:, None]).T @ features
    return np.block([[blocks[0, 0], blocks[0, 1]], [blocks[0, 1], blocks[1, 1]]])
