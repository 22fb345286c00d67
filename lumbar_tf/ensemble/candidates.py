"""The ways in which one pattern of members may be fitted, and the choice between them.

Starting point and centre of the ridge is the plain mean of the members' log-probabilities with one
temperature and a bias a level; how far levels and single members may deviate from it is chosen by
cross-validation over the given folds, and more freedom has to earn its place.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.ensemble.regression import fit_softmax
from lumbar_tf.ensemble.stacking import Head
from lumbar_tf.labels import NUM_LEVELS, NUM_SEVERITIES, Severity

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CLASS_WEIGHTS: Floats = np.array([severity.weight for severity in Severity])

#: A deviation that mixes classes is shrunk this many times harder than one that scales a member as a whole.
_MIXING_FACTOR = 4.0
_TEMPERATURE_PRECISION = 1.0
#: The bias of a family is all but free: it has the class frequencies to learn, and many rows.
_BIAS_PRECISION = 0.1
#: A later candidate must beat an earlier one by this many standard errors of the difference.
_REQUIRED_STANDARD_ERRORS = 0.5

#: Places of the parameters of `_design`, behind the inverse of the temperature.
_BIASES = slice(1, 1 + NUM_SEVERITIES)
_LEVEL_BIASES = slice(_BIASES.stop, _BIASES.stop + NUM_LEVELS * NUM_SEVERITIES)


@dataclass(frozen=True)
class Rows:
    """Labelled rows of a family.

    Attributes:
        features: x of `stacking.py`, float64 [num_rows, num_members, 3].
        levels: int64 [num_rows], 0 to 4.
        labels: int64 [num_rows], 0 to 2.
        studies: index of each row's study, [num_rows].
        folds: fold of each row, [num_rows].
        patterns: available sources, [num_rows].
    """

    features: Floats
    levels: Ints
    labels: Ints
    studies: Ints
    folds: Ints
    patterns: Ints

    def where(self, chosen: NDArray[np.bool_]) -> "Rows":
        """Returns the rows chosen by a mask."""
        return Rows(
            self.features[chosen],
            self.levels[chosen],
            self.labels[chosen],
            self.studies[chosen],
            self.folds[chosen],
            self.patterns[chosen],
        )


@dataclass(frozen=True)
class Candidate:
    """One way to fit a pattern.

    Attributes:
        level_precision: ridge on a level's bias, in nats for a bias of 1; None fits nothing at all: the
            mean of the members' log-probabilities as it comes.
        deviation_precision: ridge on a member's deviation from the mean, likewise; None allows none.
        is_weighted: whether rows carry the competition's weights while fitting. If not, the competition
            head adds ln 1, 2, 4 to the bias, which is the same with infinite data and steadier with little.
    """

    level_precision: float | None
    deviation_precision: float | None = None
    is_weighted: bool = False

    @property
    def words(self) -> str:
        """How `Coefficients.choices` tells it."""
        if self.level_precision is None:
            return "plain mean as it comes"
        members = (
            "mean" if self.deviation_precision is None else f"members (ridge {self.deviation_precision:g})"
        )
        weights = ", weighted" if self.is_weighted else ""
        return f"{members}, level bias (ridge {self.level_precision:g}){weights}"


#: What a head may choose from; the first stays unless another earns its place. The order and the ridges were
#: found on synthetic tables of 100 studies: a ridge of 1 on the levels' biases cost 0.006 of the score beside
#: 25, and a weighted fit 0.001 against an unweighted one.
_UNWEIGHTED = (
    Candidate(25.0),
    Candidate(None),
    Candidate(1000.0),
    Candidate(5.0),
    Candidate(25.0, 100.0),
    Candidate(25.0, 30.0),
    Candidate(5.0, 30.0),
    Candidate(5.0, 10.0),
)
CANDIDATES: dict[Head, tuple[Candidate, ...]] = {
    Head.PROBABILITY: _UNWEIGHTED,
    Head.COMPETITION: (
        *_UNWEIGHTED,
        Candidate(25.0, is_weighted=True),
        Candidate(25.0, 100.0, is_weighted=True),
        Candidate(5.0, 30.0, is_weighted=True),
        Candidate(5.0, 10.0, is_weighted=True),
    ),
}


def _design(features: Floats, levels: Ints, *, deviates: bool) -> tuple[Floats, Floats, Floats]:
    """Returns (design [num_rows, 3, num_parameters], centre, precision factors of its parameters).

    Parameters: temperature's inverse, 3 biases, 5 x 3 level biases, then if `deviates` a scale for each
    member and a 3 x 3 mixture for each member; the candidate multiplies the latter groups' precisions.
    """
    num_rows, num_members, _ = features.shape
    eye = np.eye(NUM_SEVERITIES)
    level_columns = np.einsum("nl,ik->nilk", np.eye(NUM_LEVELS)[levels], eye).reshape(
        num_rows, NUM_SEVERITIES, NUM_LEVELS * NUM_SEVERITIES
    )
    blocks = [features.mean(axis=1)[:, :, None], np.broadcast_to(eye, (num_rows, *eye.shape)), level_columns]
    precision = [_TEMPERATURE_PRECISION, *[_BIAS_PRECISION] * NUM_SEVERITIES]
    precision += [1.0] * (NUM_LEVELS * NUM_SEVERITIES)
    if deviates:
        mixtures = np.einsum("nmj,ik->nimkj", features, eye).reshape(
            num_rows, NUM_SEVERITIES, num_members * NUM_SEVERITIES**2
        )
        blocks += [features.transpose(0, 2, 1), mixtures]
        precision += [1.0] * num_members + [_MIXING_FACTOR] * (num_members * NUM_SEVERITIES**2)
    centre = np.zeros(len(precision))
    centre[0] = 1.0
    return np.concatenate(blocks, axis=2), centre, np.array(precision)


def fit_candidate(rows: Rows, candidate: Candidate) -> tuple[Floats, Floats]:
    """Fits one candidate.

    Args:
        rows: labelled rows whose `features` hold the pattern's members only.
        candidate: how to fit.

    Returns:
        W float64 [num_members, 3, 3] and b float64 [5, 3]; with no rows, the plain mean and no bias.
    """
    num_members = rows.features.shape[1]
    eye = np.eye(NUM_SEVERITIES)
    plain = np.broadcast_to(eye / num_members, (num_members, *eye.shape))
    if candidate.level_precision is None:
        return plain.copy(), np.zeros((NUM_LEVELS, NUM_SEVERITIES))
    deviates = candidate.deviation_precision is not None
    design, centre, precision = _design(rows.features, rows.levels, deviates=deviates)
    precision[_LEVEL_BIASES] *= candidate.level_precision
    precision[_LEVEL_BIASES.stop :] *= candidate.deviation_precision or 1.0
    weights = CLASS_WEIGHTS[rows.labels] if candidate.is_weighted else np.ones(len(rows.labels))
    if weights.size:
        weights = weights / weights.mean()  # so that a precision means the same to both heads
    fitted = fit_softmax(design, rows.labels, weights, centre=centre, precision=precision)
    matrices = fitted[0] * plain
    if deviates:
        scales, mixtures = np.split(fitted[_LEVEL_BIASES.stop :], [num_members])
        matrices = matrices + scales[:, None, None] * eye + mixtures.reshape(num_members, *eye.shape)
    return matrices, fitted[_BIASES] + fitted[_LEVEL_BIASES].reshape(NUM_LEVELS, -1)


def _row_losses(rows: Rows, fitted: tuple[Floats, Floats], log_weights: Floats) -> Floats:
    """Returns -ln p(label) of each row, [num_rows], with `log_weights` [3] added to the logits."""
    matrices, bias = fitted
    logits = np.einsum("mij,nmj->ni", matrices, rows.features) + bias[rows.levels] + log_weights
    top = logits.max(axis=1)
    log_sums = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return log_sums - logits[np.arange(len(rows.labels)), rows.labels]


def log_weights(head: Head, candidate: Candidate) -> Floats:
    """Returns what the head adds to the logits of an unweighted fit, [3]."""
    is_tilted = (
        head is Head.COMPETITION and not candidate.is_weighted and candidate.level_precision is not None
    )
    return np.log(CLASS_WEIGHTS) if is_tilted else np.zeros(NUM_SEVERITIES)


def _cross_validate(rows: Rows) -> dict[Head, dict[Candidate, Floats]]:
    """Returns for each head and candidate the held-out loss of each row, [num_rows]."""
    losses: dict[Head, dict[Candidate, Floats]] = {
        head: {each: np.zeros(len(rows.labels)) for each in CANDIDATES[head]} for head in Head
    }
    for fold in np.unique(rows.folds):
        held_out = rows.folds == fold
        training, testing = rows.where(~held_out), rows.where(held_out)
        for candidate in CANDIDATES[Head.COMPETITION]:  # the other head's are among them
            fitted = fit_candidate(training, candidate)
            for head, tables in losses.items():
                if candidate in tables:
                    tables[candidate][held_out] = _row_losses(testing, fitted, log_weights(head, candidate))
    return losses


def choose(losses: dict[Candidate, Floats], weights: Floats, studies: Ints) -> Candidate:
    """Returns the first candidate that no later one beats by half a standard error, over studies.

    Args:
        losses: held-out loss of each row, by candidate in the order of preference.
        weights: of each row, [num_rows].
        studies: study of each row: rows of one study are not independent.
    """
    candidates = list(losses)
    chosen = candidates[0]
    for candidate in candidates[1:]:
        gains = np.bincount(studies, weights=weights * (losses[chosen] - losses[candidate]))
        gains = gains[np.unique(studies)]
        standard_error = gains.std() * np.sqrt(len(gains))
        if gains.sum() > _REQUIRED_STANDARD_ERRORS * standard_error:
            chosen = candidate
    return chosen


def default_candidates() -> dict[Head, Candidate]:
    """Returns what each head takes where there is nothing to choose by."""
    return {head: candidates[0] for head, candidates in CANDIDATES.items()}


def choose_heads(rows: Rows) -> dict[Head, Candidate]:
    """Returns each head's candidate by cross-validation over the rows' folds."""
    if len(np.unique(rows.folds)) < 2:
        return default_candidates()
    losses = _cross_validate(rows)
    weights = {Head.PROBABILITY: np.ones(len(rows.labels)), Head.COMPETITION: CLASS_WEIGHTS[rows.labels]}
    return {head: choose(losses[head], weights[head], rows.studies) for head in Head}
