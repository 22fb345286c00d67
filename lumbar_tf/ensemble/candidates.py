"""Candidate models for one pattern of members.

The starting point and the centre of the ridge are the plain mean of the members' log-probabilities, with one
temperature and one bias for each level. Candidates differ in how far the levels, single members and the
context may deviate from it; `search.py` chooses between them.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.ensemble.regression import CONTRASTS, fit_contrasts
from lumbar_tf.ensemble.stacker import Head
from lumbar_tf.labels import NUM_LEVELS, NUM_SEVERITIES, Severity

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CLASS_WEIGHTS: Floats = np.array([severity.weight for severity in Severity])

#: Factor by which a deviation that mixes classes is shrunk harder than one that scales a member as a whole.
_MIXING_FACTOR = 4.0
_TEMPERATURE_PRECISION = 1.0
#: The bias of a family is nearly free: it learns the class frequencies, from many rows.
_BIAS_PRECISION = 0.1
#: Precision of a deviation that is not allowed.
_RIGID = 1e8


@dataclass(frozen=True)
class Rows:
    """Labelled rows of a family.

    Attributes:
        features: x of `stacker.py`, float64 [num_rows, num_members, 3].
        context: c of `stacker.py`, float64 [num_rows, num_slots, 3].
        levels: int64 [num_rows], 0 to 4.
        labels: int64 [num_rows], 0 to 2.
        studies: index of each row's study, [num_rows].
        folds: fold of each row, [num_rows].
    """

    features: Floats
    context: Floats
    levels: Ints
    labels: Ints
    studies: Ints
    folds: Ints

    def where(self, chosen: NDArray[np.bool_]) -> "Rows":
        """Returns the rows selected by a mask."""
        return Rows(*(getattr(self, field.name)[chosen] for field in fields(self)))


@dataclass(frozen=True)
class Candidate:
    """A model for one pattern. Ridges are in nats for a deviation of 1; None allows no deviation.

    Attributes:
        level: ridge on the bias of a level; None fits nothing: the plain mean of the members'
            log-probabilities.
        members: ridge on the deviation of a single member from the mean.
        context: ridge on the coefficients of the context.

    The mean has temperature scaling (Guo et al. 2017, "On Calibration of Modern Neural Networks"). Rows have
    equal weights: the competition head adds ln 1, 2, 4 to the bias, which is equivalent to fitting with these
    weights where data are infinite, and has less variance where they are few.
    """

    level: float | None
    members: float | None = None
    context: float | None = None

    @property
    def description(self) -> str:
        """Description in `Coefficients.choices`."""
        if self.level is None:
            return "plain mean as it comes"
        parts = ["mean" if self.members is None else f"members (ridge {self.members:g})"]
        parts += [f"level bias (ridge {self.level:g})"]
        parts += [] if self.context is None else [f"context (ridge {self.context:g})"]
        return ", ".join(parts)


@dataclass(frozen=True)
class Fit:
    """Fitted coefficients of a candidate.

    Attributes:
        weights: W, float64 [num_members, 3, 3].
        bias: b, float64 [5, 3].
        context: V, float64 [num_slots, 3, 3].
    """

    weights: Floats
    bias: Floats
    context: Floats

    def logits(self, rows: Rows) -> Floats:
        """Returns the logits of rows, [num_rows, 3]."""
        flat = rows.features.reshape(len(rows.labels), self.weights.shape[0] * NUM_SEVERITIES)
        logits = flat @ self.weights.transpose(0, 2, 1).reshape(-1, NUM_SEVERITIES)
        if self.context.any():
            around = rows.context.reshape(len(rows.labels), self.context.shape[0] * NUM_SEVERITIES)
            logits = logits + around @ self.context.transpose(0, 2, 1).reshape(-1, NUM_SEVERITIES)
        biased: Floats = logits + self.bias[rows.levels]
        return biased

    def shrunk(self, share: float) -> "Fit":
        """Returns share * this fit + (1 - share) * the plain mean of the members."""
        plain = np.eye(NUM_SEVERITIES) / len(self.weights)
        return Fit(share * self.weights + (1 - share) * plain, share * self.bias, share * self.context)


_PLAIN = Candidate(None)
_DEFAULT = Candidate(25.0)
_FREER = (
    Candidate(5.0),
    Candidate(25.0, members=100.0),
    Candidate(25.0, members=30.0),
    Candidate(5.0, members=30.0),
    Candidate(5.0, members=10.0),
    Candidate(5.0, members=30.0, context=100.0),
    Candidate(5.0, members=10.0, context=20.0),
)
#: Candidates of each head in the order of preference. The competition head starts from the plain mean,
#: because its score must not be worse than the mean's; the probability head starts from a calibrated
#: candidate.
CANDIDATES: dict[Head, tuple[Candidate, ...]] = {
    Head.PROBABILITY: (_DEFAULT, _PLAIN, Candidate(1000.0), *_FREER),
    Head.COMPETITION: (_PLAIN, Candidate(1000.0), _DEFAULT, *_FREER),
}


def default_candidates() -> dict[Head, Candidate]:
    """Returns the candidate of each head where there is no data to choose by."""
    return dict.fromkeys(Head, _DEFAULT)


def log_weights(head: Head, candidate: Candidate) -> Floats:
    """Returns the offset that the head adds to the logits of a fit, [3]."""
    is_tilted = head is Head.COMPETITION and candidate.level is not None
    return np.log(CLASS_WEIGHTS) if is_tilted else np.zeros(NUM_SEVERITIES)


#: Prior covariances of a 2 x 2 matrix on the contrasts, [2, 2, 2, 2]. Here a multiple of the identity:
_SCALING: Floats = np.einsum("ij,kl->ijkl", np.eye(2), np.eye(2))
#: Four free entries:
_FREE: Floats = np.einsum("ik,jl->ijkl", np.eye(2), np.eye(2))


def _deviation(ridge: float) -> Floats:
    """Returns the covariance of a matrix with this ridge on its scale and a harder one on its entries."""
    return _SCALING / ridge + _FREE / (_MIXING_FACTOR * ridge)


def _members_covariance(num_blocks: int, candidate: Candidate) -> Floats:
    """Returns the prior covariance of the members' matrices, [blocks, 2, 2, blocks, 2, 2].

    The matrix of a member is temperature * I / num_blocks + its own deviation.
    """
    shared = _SCALING / _TEMPERATURE_PRECISION + _FREE / _RIGID
    same = np.eye(num_blocks)
    covariance = np.einsum("ab,ijkl->aijbkl", np.ones_like(same) / num_blocks**2, shared)
    if candidate.members is not None:
        covariance += np.einsum("ab,ijkl->aijbkl", same, _deviation(candidate.members))
    return covariance


def _place(precision: Floats, columns: Ints, covariance: Floats) -> None:
    """Writes the inverse covariance of a group into the precision of the coefficients [2, num_features].

    Args:
        precision: precision of all coefficients, changed in place.
        columns: feature indices of the group, [blocks, width].
        covariance: [blocks, 2, width, blocks, 2, width].
    """
    size = columns.size * 2
    num_features = len(precision) // 2
    index = (np.arange(2)[None, :, None] * num_features + columns[:, None, :]).ravel()
    precision[np.ix_(index, index)] = np.linalg.inv(covariance.reshape(size, size))


def _problem(num_blocks: int, num_slots: int, candidate: Candidate) -> tuple[Floats, Floats]:
    """Returns (centre [2, num_features], precision) over blocks of members, levels and context slots."""
    num_own = 2 * num_blocks
    num_features = num_own + NUM_LEVELS + 2 * num_slots
    centre = np.zeros((2, num_features))
    centre[:, :num_own] = np.tile(np.eye(2) / num_blocks, num_blocks)
    precision = np.zeros((2 * num_features, 2 * num_features))
    columns = np.arange(num_features)
    _place(precision, columns[:num_own].reshape(-1, 2), _members_covariance(num_blocks, candidate))
    level = 1.0 / _BIAS_PRECISION + np.eye(NUM_LEVELS) / (candidate.level or _RIGID)
    level_columns = columns[num_own : num_own + NUM_LEVELS, None]
    _place(precision, level_columns, np.einsum("ab,ij->aibj", level, np.eye(2))[:, :, None, :, :, None])
    if num_slots:
        covariance = np.einsum("ab,ijkl->aijbkl", np.eye(num_slots), _deviation(candidate.context or _RIGID))
        _place(precision, columns[num_own + NUM_LEVELS :].reshape(-1, 2), covariance)
    return centre, precision


def fit_candidate(
    rows: Rows, candidate: Candidate, starts: dict[tuple[int, ...], Floats] | None = None
) -> Fit:
    """Fits one candidate.

    Args:
        rows: labelled rows whose `features` hold the pattern's members only.
        candidate: the model.
        starts: solutions of other candidates on the same rows, by shape, used as initial values; this fit's
            solution is added.

    Returns:
        The coefficients; with no rows, the plain mean and no bias.
    """
    num_rows, num_members, _ = rows.features.shape
    num_slots = rows.context.shape[1]
    eye = np.eye(NUM_SEVERITIES)
    nothing = np.zeros((num_slots, *eye.shape))
    plain = np.broadcast_to(eye / num_members, (num_members, *eye.shape))
    if candidate.level is None:
        return Fit(plain.copy(), np.zeros((NUM_LEVELS, NUM_SEVERITIES)), nothing)
    own = rows.features if candidate.members is not None else rows.features.mean(axis=1, keepdims=True)
    num_blocks, num_used = own.shape[1], num_slots if candidate.context is not None else 0
    parts = [(own @ CONTRASTS).reshape(num_rows, 2 * num_blocks), np.eye(NUM_LEVELS)[rows.levels]]
    parts += [(rows.context @ CONTRASTS).reshape(num_rows, 2 * num_slots)] if num_used else []
    centre, precision = _problem(num_blocks, num_used, candidate)
    starts = {} if starts is None else starts
    fitted = fit_contrasts(
        np.concatenate(parts, axis=1),
        rows.labels,
        centre=centre,
        precision=precision,
        start=starts.get(centre.shape),
    )
    starts[centre.shape] = fitted
    return _unpack(fitted - centre, plain, num_blocks, nothing)


def _unpack(shift: Floats, plain: Floats, num_blocks: int, nothing: Floats) -> Fit:
    """Returns the fit with the coefficients' differences from their centre, [2, num_features]."""
    num_own = 2 * num_blocks
    blocks = shift[:, :num_own].reshape(2, num_blocks, 2).transpose(1, 0, 2)
    deviation = CONTRASTS @ blocks @ CONTRASTS.T
    if num_blocks != len(plain):  # one block for the mean: each member gets an equal share
        deviation = deviation / len(plain)
    bias = (CONTRASTS @ shift[:, num_own : num_own + NUM_LEVELS]).T
    around = shift[:, num_own + NUM_LEVELS :]
    if not around.size:
        return Fit(plain + deviation, bias, nothing)
    slots = around.reshape(2, len(nothing), 2).transpose(1, 0, 2)
    return Fit(plain + deviation, bias, CONTRASTS @ slots @ CONTRASTS.T)
