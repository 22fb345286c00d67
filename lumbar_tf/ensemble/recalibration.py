"""Recalibration of a family's probabilities to the labelled studies of a site. NumPy only.

With z the centred logarithm of the stacker's probabilities for a finding, a family gets

    logits = scale * z + (0, moderate, severe)

If the grades have other frequencies at the site, and findings of each grade look as before, the two offsets
change and the scale stays 1; other images, or readers with other thresholds, may change all three. They are
the maximum of the penalised likelihood, with a Gaussian prior around the identity (scale 1, offsets 0) whose
strength is chosen by cross-validation over patients.

A family is recalibrated only where that is a gain: each patient is predicted with numbers that were fitted,
and whose penalty was chosen, without the patient's fold. The gain is the decrease of the mean log loss,
averaged over several partitions into folds, and its lower bound from a paired bootstrap over patients must be
above 0. `recalibrated_stacker.py` puts the numbers into the stacker's coefficients.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.cli.progress import Advance
from lumbar_tf.ensemble.regression import CONTRASTS, fit_contrasts
from lumbar_tf.ensemble.search import row_losses
from lumbar_tf.labels import NUM_SEVERITIES

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Patients with a label below which nothing is fitted. With 10 studies the loss rose on simulated sites with
#: once or twice the severe findings, and nothing can be checked.
MIN_PATIENTS = 25
#: Probability that the gain is above the lower bound that must be positive (tests/benchmarks/recalibration.py
#: has the losses and gains; it was chosen on other seeds than those that are reported).
CONFIDENCE = 0.9
_NUM_FOLDS = 5
#: Partitions into folds that the gain is averaged over.
NUM_REPEATS = 3
_NUM_RESAMPLES = 2000
#: Ridges on the offsets, in nats for a deviation of 1, from the freest.
_RIDGES = (1.0, 4.0, 16.0, 64.0)
#: The scale of a calibrated stacker is trusted more than the frequencies of its training studies.
_SCALE_FACTOR = 40.0
#: Precision of a deviation that is not allowed.
_RIGID = 1e8
#: A scale of 0 would discard the images.
_MIN_SCALE = 0.1


@dataclass(frozen=True)
class Calibration:
    """Transformation of a family's logits: scale * logits + (0, moderate, severe)."""

    scale: float = 1.0
    moderate: float = 0.0
    severe: float = 0.0

    @property
    def offsets(self) -> Floats:
        """The offsets of the three grades, float64 [3]."""
        return np.array([0.0, self.moderate, self.severe])

    @property
    def description(self) -> str:
        """Description in `Coefficients.choices`."""
        return f"scale {self.scale:.3f}, moderate {self.moderate:+.3f}, severe {self.severe:+.3f}"

    def apply(self, logits: Floats) -> Floats:
        """Returns transformed logits, float64 [..., 3].

        >>> Calibration(0.5, severe=1.0).apply(np.array([2.0, 0.0, -2.0])).tolist()
        [1.0, 0.0, 0.0]
        """
        transformed: Floats = self.scale * logits + self.offsets
        return transformed


@dataclass(frozen=True)
class LocalRows:
    """Labelled findings of one family.

    Attributes:
        logits: centred logarithms of the stacker's probabilities, float64 [num_rows, 3].
        labels: int64 [num_rows], 0 to 2.
        patients: index of each row's patient, int64 [num_rows].
    """

    logits: Floats
    labels: Ints
    patients: Ints

    def where(self, chosen: NDArray[np.bool_]) -> "LocalRows":
        """Returns the rows selected by a mask."""
        return LocalRows(self.logits[chosen], self.labels[chosen], self.patients[chosen])

    def losses(self, calibration: Calibration | None = None) -> Floats:
        """Returns the log loss of each row, with a calibration or as it is, float64 [num_rows]."""
        calibration = calibration or Calibration()
        return row_losses(calibration.apply(self.logits), self.labels)


@dataclass(frozen=True)
class FamilyCheck:
    """Outcome of the nested check of one family.

    Attributes:
        num_patients: patients with a label.
        num_labels: labels of each grade.
        loss_before: mean log loss of the bundle's probabilities; NaN without labels.
        loss_after: the same after recalibration, nested.
        gain_bound: lower bound of the difference, with the probability `CONFIDENCE`.
        calibration: the calibration fitted to all patients; None where the family keeps the bundle's.
        fold_calibrations: the calibration without each fold of the first partition.
        patient_folds: fold of each patient in it, int64 [num_patients of the site].
    """

    num_patients: int
    num_labels: tuple[int, ...]
    loss_before: float = float("nan")
    loss_after: float = float("nan")
    gain_bound: float = float("nan")
    calibration: Calibration | None = None
    fold_calibrations: tuple[Calibration, ...] = ()
    patient_folds: Ints = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def reason(self) -> str:
        """Reason why the family keeps the bundle's calibration; empty where it is recalibrated."""
        if self.calibration is not None:
            return ""
        if self.num_patients < MIN_PATIENTS:
            return f"labels of {self.num_patients} patients; at least {MIN_PATIENTS} are needed"
        return (
            f"no reliable gain: log loss {self.loss_before:.4f}, recalibrated {self.loss_after:.4f} on "
            f"patients that it was not fitted to, and the lower bound of the gain is {self.gain_bound:.4f}"
        )


def fit_calibration(rows: LocalRows, ridge: float) -> Calibration:
    """Returns the calibration with the largest penalised likelihood; the identity without rows.

    Args:
        rows: labelled findings.
        ridge: on the offsets, in nats for a deviation of 1.
    """
    features = np.concatenate([rows.logits @ CONTRASTS, np.ones((len(rows.labels), 1))], axis=1)
    # Coefficients [2, 3] in C order: a matrix that may only be a multiple of the identity, and the offsets.
    identity = np.array([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
    precision = np.diag([_RIGID, _RIGID, ridge] * 2)
    precision += (_SCALE_FACTOR * ridge / 2 - _RIGID) * np.outer(identity, identity) / 2
    fitted = fit_contrasts(features, rows.labels, centre=identity.reshape(2, 3), precision=precision)
    offsets = CONTRASTS @ fitted[:, 2]
    moderate, severe = (offsets[1:] - offsets[0]).tolist()
    return Calibration(max(float(fitted[0, 0]), _MIN_SCALE), moderate, severe)


def choose_ridge(rows: LocalRows, folds: Ints) -> float:
    """Returns the ridge with the smallest held-out loss, over the folds that the rows have, [num_rows]."""
    losses = np.zeros(len(_RIDGES))
    for fold in np.unique(folds):
        inside = folds == fold
        others, own = rows.where(~inside), rows.where(inside)
        losses += [own.losses(fit_calibration(others, ridge)).sum() for ridge in _RIDGES]
    # Of equal ones the strongest, which stays nearest to the bundle.
    return _RIDGES[len(_RIDGES) - 1 - int(np.argmin(losses[::-1]))]


def check_family(rows: LocalRows, num_patients: int, *, seed: int = 0, advance: Advance) -> FamilyCheck:
    """Fits the calibration of a family, and decides whether it is a gain.

    Args:
        rows: labelled findings of the family.
        num_patients: patients of the site; `rows.patients` are indices of them.
        seed: seed of the folds and of the bootstrap.
        advance: called after each of the `NUM_REPEATS` partitions.
    """
    labelled = np.unique(rows.patients)
    counts = tuple(np.bincount(rows.labels, minlength=NUM_SEVERITIES).tolist())
    if len(labelled) < MIN_PATIENTS:
        advance(NUM_REPEATS)
        return FamilyCheck(len(labelled), counts)
    generator = np.random.default_rng(seed)
    before, after = rows.losses(), np.zeros(len(rows.labels))
    partitions = []
    for _ in range(NUM_REPEATS):
        patient_folds = generator.permutation(np.arange(num_patients) % _NUM_FOLDS)
        calibrations = _fit_without_folds(rows, patient_folds)
        for fold, calibration in enumerate(calibrations):
            inside = patient_folds[rows.patients] == fold
            after[inside] += rows.where(inside).losses(calibration) / NUM_REPEATS
        partitions.append((calibrations, patient_folds))
        advance(1)
    bound = gain_bound(before - after, rows.patients, generator)
    calibrations, patient_folds = partitions[0]
    ridge = choose_ridge(rows, patient_folds[rows.patients])
    return FamilyCheck(
        len(labelled),
        counts,
        float(before.mean()),
        float(after.mean()),
        bound,
        fit_calibration(rows, ridge) if bound > 0 else None,
        calibrations,
        patient_folds,
    )


def _fit_without_folds(rows: LocalRows, patient_folds: Ints) -> tuple[Calibration, ...]:
    """Returns the calibration without each fold; its ridge is chosen without the fold, too."""
    folds = patient_folds[rows.patients]
    calibrations = []
    for fold in range(_NUM_FOLDS):
        others = rows.where(folds != fold)
        calibrations.append(fit_calibration(others, choose_ridge(others, folds[folds != fold])))
    return tuple(calibrations)


def gain_bound(gains: Floats, patients: Ints, generator: np.random.Generator) -> float:
    """Returns the lower bound of the mean gain by a bootstrap over patients.

    Args:
        gains: decrease of each row's loss, float64 [num_rows].
        patients: index of each row's patient.
        generator: draws the resamples.
    """
    _, places = np.unique(patients, return_inverse=True)
    sums, counts = np.bincount(places, weights=gains), np.bincount(places)
    drawn = generator.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), _NUM_RESAMPLES)
    return float(np.quantile(drawn @ sums / (drawn @ counts), 1 - CONFIDENCE))
