"""Multinomial logistic regression with a ridge around any centre, by Newton's method.

scikit-learn's `LogisticRegression` shrinks to zero only and ties every coefficient to one strength. A
stacker must shrink to the plain mean of its members instead, so that little data leaves the mean; the
tests hold this solver to scikit-learn's answers where the two can state the same problem.
"""

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.ensemble.calibration import softmax

Floats = NDArray[np.float64]

_MAX_STEPS = 50
#: Newton's decrement (twice the expected gain, in nats over all rows) at which the search ends.
_TOLERANCE = 1e-8
#: A full Newton step is halved down to this.
_SMALLEST_SCALE = 1e-6


def _objective(logits: Floats, onehot: Floats, weights: Floats, shift: Floats, precision: Floats) -> float:
    """Returns the objective at logits [num_rows, 3] and `shift` = parameters less centre."""
    top = logits.max(axis=-1)
    log_sums = top + np.log(np.exp(logits - top[:, None]).sum(axis=-1))
    losses = log_sums - (logits * onehot).sum(axis=-1)
    return float(weights @ losses + 0.5 * (precision * shift) @ shift)


def fit_softmax(
    design: Floats, labels: NDArray[np.integer], weights: Floats, *, centre: Floats, precision: Floats
) -> Floats:
    """Minimises sum_n w_n -ln softmax(design_n @ q)[label_n] + 1/2 precision @ (q - centre)^2 over q.

    Convex, and strictly so with every precision above 0, so the answer is the only one.

    Args:
        design: float64 [num_rows, 3, num_parameters].
        labels: class of each row, int [num_rows], 0 to 2.
        weights: of each row, [num_rows].
        centre: what the parameters are shrunk to, [num_parameters]; the answer where there is no row.
        precision: strength of the ridge for each parameter, [num_parameters], above 0.

    Returns:
        The parameters, float64 [num_parameters].
    """
    num_rows, num_classes, num_parameters = design.shape
    onehot = np.eye(num_classes)[labels]
    flat = design.reshape(num_rows * num_classes, num_parameters)
    parameters = centre.astype(np.float64)
    logits = design @ parameters
    for _ in range(_MAX_STEPS):
        probability = softmax(logits)
        residual = (weights[:, None] * (probability - onehot)).reshape(-1)
        gradient = residual @ flat + precision * (parameters - centre)
        # Hessian of a row: sum_k p_k phi_k phi_k' - mean mean', with mean = sum_k p_k phi_k.
        mean = np.einsum("nk,nkp->np", probability, design) * np.sqrt(weights)[:, None]
        scaled = flat * np.sqrt(weights[:, None] * probability).reshape(-1, 1)
        hessian = scaled.T @ scaled - mean.T @ mean + np.diag(precision)
        step = np.linalg.solve(hessian, gradient)
        decrement = float(gradient @ step)
        if decrement < _TOLERANCE:
            break
        step_logits = design @ step
        start = _objective(logits, onehot, weights, parameters - centre, precision)
        scale = 1.0
        while scale > _SMALLEST_SCALE:
            shift = parameters - scale * step - centre
            trial = _objective(logits - scale * step_logits, onehot, weights, shift, precision)
            if trial <= start - 0.25 * scale * decrement:  # Armijo's rule
                break
            scale /= 2
        parameters, logits = parameters - scale * step, logits - scale * step_logits
    return parameters
