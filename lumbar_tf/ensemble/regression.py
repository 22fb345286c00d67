"""Multinomial logistic regression with a Gaussian prior around any centre, by Newton's method.

scikit-learn's `LogisticRegression` shrinks to zero only and ties every coefficient to one strength. A
stacker must shrink to the plain mean of its members instead, so that little data leaves the mean; the
tests hold this solver to scikit-learn's answers where the two can state the same problem.

Three logits have two degrees of freedom: adding a number to all of them changes no probability. All work is
done on the two, logits = CONTRASTS @ coefficients @ features, which is exact and more than halves the cost.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Orthonormal columns, both orthogonal to (1, 1, 1): [3, 2].
CONTRASTS: Floats = np.array([[1.0, 1.0], [-1.0, 1.0], [0.0, -2.0]]) / np.sqrt([2.0, 6.0])

_MAX_STEPS = 50
#: Newton's decrement (twice the expected gain, in nats over all rows) at which the search ends.
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
    weights: Floats,
    *,
    centre: Floats,
    precision: Floats,
    start: Floats | None = None,
) -> Floats:
    """Minimises sum_n w_n -ln softmax(CONTRASTS @ v @ features_n)[label_n] + 1/2 (v-c)' precision (v-c).

    Convex, and strictly so with a positive definite precision, so the answer is the only one.

    Args:
        features: float64 [num_rows, num_features].
        labels: class of each row, int [num_rows], 0 to 2.
        weights: of each row, [num_rows].
        centre: c, what the coefficients are shrunk to, [2, num_features]; the answer where there is no row.
        precision: of the coefficients in C order, symmetric and positive definite,
            [2 * num_features, 2 * num_features].
        start: where to begin, or None for the centre; the answer is the same within the tolerance.

    Returns:
        The coefficients v, float64 [2, num_features].
    """
    rows = np.arange(len(labels))
    v = (centre if start is None else start).astype(np.float64)

    def parts(v: Floats) -> tuple[Floats, float]:
        logits = CONTRASTS @ (v @ features.T)
        p, log_sums = _probabilities(logits)
        shift = (v - centre).ravel()
        loss = weights @ (log_sums - logits[labels, rows]) + 0.5 * shift @ precision @ shift
        return p, float(loss)

    p, loss = parts(v)
    for _ in range(_MAX_STEPS):
        residual = CONTRASTS.T @ p - CONTRASTS[labels].T  # [2, num_rows]
        gradient = ((residual * weights) @ features).ravel() + precision @ (v - centre).ravel()
        step = np.linalg.solve(_hessian(features, p, weights) + precision, gradient)
        decrement = float(gradient @ step)
        scale = 1.0
        while True:
            trial = v - scale * step.reshape(v.shape)
            trial_p, trial_loss = parts(trial)
            # Armijo's rule; at the tolerance rounding may hide the gain, and a full step is safe.
            if trial_loss <= loss - 0.25 * scale * decrement or decrement < _TOLERANCE:
                break
            scale /= 2
            if scale < _SMALLEST_SCALE:
                return v
        v, p, loss = trial, trial_p, trial_loss
        if decrement < _TOLERANCE:
            break
    return v


def _hessian(features: Floats, p: Floats, weights: Floats) -> Floats:
    """Returns the losses' Hessian: sum_n w_n (C' (diag p_n - p_n p_n') C) kron features_n features_n'."""
    mean = CONTRASTS.T @ p
    blocks = {}
    for i, j in ((0, 0), (0, 1), (1, 1)):
        curvature = weights * ((CONTRASTS[:, i] * CONTRASTS[:, j]) @ p - mean[i] * mean[j])
        blocks[i, j] = (features * curvature[:, None]).T @ features
    return np.block([[blocks[0, 0], blocks[0, 1]], [blocks[0, 1], blocks[1, 1]]])
