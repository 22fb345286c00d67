"""Recalibration of a fitted stacker to a site: its coefficients, intervals and prediction sets. NumPy only.

The calibration of a family (`recalibration.py`) is linear in the logits, so it becomes part of the stacker's
coefficients, and everything that applies a stacker applies a recalibrated one:

    probability:  W, V, b  ->  scale * W, scale * V, scale * b + offsets
    competition:  the same around the tilt ln w, w = (1, 2, 4), that the head adds to calibrated logits:
                  W, V, b  ->  scale * W, scale * V, scale * (b - ln w) + offsets + ln w
    level prior:  b  ->  b + offsets in both heads: other frequencies, and no image whose scale could differ

The variance between members is a function of the ensemble's log-odds, and moves with them. The thresholds of
the prediction sets are fitted again for each grade with at least `FEW_ROWS` local labels, to probabilities
that did not use the label's fold. Other grades keep the bundle's threshold, moved so far that every finding
which reached it before still does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.cli.progress import ProgressMaker, silent_progress
from lumbar_tf.ensemble.candidates import CLASS_WEIGHTS
from lumbar_tf.ensemble.features import centred_logs, softmax
from lumbar_tf.ensemble.prediction_sets import FEW_ROWS, SetThresholds, fit_thresholds
from lumbar_tf.ensemble.recalibration import (
    MIN_PATIENTS,
    NUM_REPEATS,
    Calibration,
    FamilyCheck,
    LocalRows,
    check_family,
)
from lumbar_tf.ensemble.stacker import (
    Coefficients,
    FamilyStacker,
    Head,
    MemberVariance,
    StackerCoefficients,
    apply_stacker,
    family_findings,
)
from lumbar_tf.labels import MISSING_LABEL, NUM_SEVERITIES, Family, Severity

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_LOG_WEIGHTS = np.log(CLASS_WEIGHTS)


@dataclass(frozen=True)
class Recalibration:
    """Outcome of a recalibration.

    Attributes:
        stacker: the recalibrated stacker; None where no family gains.
        checks: outcome for each family.
        few_labels: grades of recalibrated families whose set threshold is the bundle's, for want of labels.
    """

    stacker: StackerCoefficients | None
    checks: dict[Family, FamilyCheck]
    few_labels: dict[Family, tuple[Severity, ...]]


def recalibrate_stacker(
    stacker: StackerCoefficients,
    probabilities: Floats,
    labels: NDArray[np.integer],
    patients: Sequence[str],
    *,
    seed: int = 0,
    progress: ProgressMaker = silent_progress,
) -> Recalibration:
    """Fits a stacker's calibration to the labelled studies of a site.

    Args:
        stacker: the stacker as it was fitted, not a recalibrated one.
        probabilities: the members' predictions, float64 [num_members, num_studies, 25, 3], NaN where missing.
        labels: int [num_studies, 25], -1 where missing.
        patients: patient of each study; studies of one patient stay in one fold.
        seed: seed of the folds and of the bootstrap.
        progress: progress display.

    Raises:
        ValueError: fewer than `MIN_PATIENTS` patients have a label.
    """
    is_labelled = (labels != MISSING_LABEL).any(axis=1)
    names, indices = np.unique(np.array(patients, object), return_inverse=True)
    num_labelled = len(np.unique(indices[is_labelled]))
    if num_labelled < MIN_PATIENTS:
        raise ValueError(
            f"A recalibration must have labelled studies of at least {MIN_PATIENTS} patients: fewer cannot "
            f"show whether it is a gain. Received: {num_labelled}."
        )
    site = _Site(stacker, probabilities, labels.astype(np.int64), indices.astype(np.int64))
    checks: dict[Family, FamilyCheck] = {}
    with progress(NUM_REPEATS * len(Family)) as advance:
        for family in Family:
            checks[family] = check_family(site.rows(family), len(names), seed=seed, advance=advance)
    if all(check.calibration is None for check in checks.values()):
        return Recalibration(None, checks, {})
    parts, few_labels = [], {}
    for part in stacker.families:
        calibration = checks[part.family].calibration
        if calibration is not None:
            part = apply_calibration(part, calibration)
            if part.set_thresholds is not None:
                part, few_labels[part.family] = site.fit_sets(part, checks[part.family])
        parts.append(part)
    return Recalibration(replace(stacker, families=tuple(parts)), checks, few_labels)


def apply_calibration(part: FamilyStacker, calibration: Calibration) -> FamilyStacker:
    """Returns a family's stacker with calibrated heads and the variance between its members.

    The thresholds of the prediction sets are not changed.
    """
    # A stacker that had no labels to fit has no tilt.
    untilted = np.zeros(NUM_SEVERITIES)
    tilt = _LOG_WEIGHTS if part.num_labels else untilted
    heads = {
        Head.PROBABILITY: _calibrated(part.heads[Head.PROBABILITY], calibration, untilted, untilted),
        Head.COMPETITION: _calibrated(part.heads[Head.COMPETITION], calibration, tilt, _LOG_WEIGHTS),
    }
    variance = part.member_variance
    return replace(part, heads=heads, member_variance=variance and _moved_variance(variance, calibration))


def _calibrated(
    head: Coefficients, calibration: Calibration, old_tilt: Floats, new_tilt: Floats
) -> Coefficients:
    bias = calibration.apply(head.bias - old_tilt) + new_tilt
    bias[0] = head.bias[0] - old_tilt + calibration.offsets + new_tilt  # pattern 0 is the level prior
    return Coefficients(
        head.weights * calibration.scale,
        head.context * calibration.scale,
        bias,
        tuple(f"{choice}; recalibrated: {calibration.description}" for choice in head.choices),
    )


def _moved_variance(variance: MemberVariance, calibration: Calibration) -> MemberVariance:
    """Returns the variance as a function of the new log-odds, scale * old ones + the grade's mean shift.

    With t = (u - shift) / scale, the variance scale^2 exp(a + b t + c t^2) is again the exponential of a
    polynomial, in u.
    """
    scale, shift = calibration.scale, _shifts(calibration).mean(axis=0)
    a, b, c = np.moveaxis(variance.log_variance, -1, 0)
    moved = [
        a - b * shift / scale + c * (shift / scale) ** 2 + 2 * np.log(scale),
        b / scale - 2 * c * shift / scale**2,
        c / scale**2,
    ]
    bounds = variance.bounds * scale + shift[:, None]
    return replace(variance, log_variance=np.stack(moved, axis=-1), bounds=bounds)


def _shifts(calibration: Calibration) -> Floats:
    """Returns the offset of each grade against each of the two others, [2, 3], the smaller first."""
    offsets = calibration.offsets
    others = np.stack([np.roll(offsets, -1), np.roll(offsets, -2)])
    return np.sort(offsets - others, axis=0)


def carried_thresholds(thresholds: Floats, calibration: Calibration) -> Floats:
    """Returns thresholds that every finding reaches which reached the old ones before the calibration.

    The new log-odds of a grade are scale * old ones + a shift that depends on the probabilities of the other
    two grades and is at least that of `_shifts`; with a scale below 1 also less (1 - scale) ln 2. Thresholds
    of 0, and from 1 on, where a grade is in the set only as the nearest one, stay.

    Args:
        thresholds: float64 [3].
        calibration: of the probabilities.
    """
    shift = _shifts(calibration)[0] - max(0.0, 1 - calibration.scale) * np.log(2)
    is_inside = (thresholds > 0) & (thresholds < 1)
    odds = np.log(np.where(is_inside, thresholds / np.where(is_inside, 1 - thresholds, 1), 1.0))
    return np.where(is_inside, 1 / (1 + np.exp(-(calibration.scale * odds + shift))), thresholds)


class _Site:
    """Predictions and labels of a site, as arrays."""

    def __init__(
        self, stacker: StackerCoefficients, probabilities: Floats, labels: Ints, patients: Ints
    ) -> None:
        self._stacker, self._probabilities = stacker, probabilities
        self._labels, self._patients = labels, patients
        self._stacked = apply_stacker(stacker, probabilities)

    def rows(self, family: Family) -> LocalRows:
        """Returns the labelled findings of a family that an image contributed to."""
        findings, _ = family_findings(family)
        labels = self._labels[:, findings]
        is_used = (labels != MISSING_LABEL) & (self._stacked.pattern[:, findings] > 0)
        logits = centred_logs(self._stacked.probability[:, findings][is_used])
        return LocalRows(logits, labels[is_used], self._patients[np.nonzero(is_used)[0]])

    def fit_sets(self, part: FamilyStacker, check: FamilyCheck) -> tuple[FamilyStacker, tuple[Severity, ...]]:
        """Returns the family with thresholds for its new probabilities, and the grades with few labels.

        The grades are those of findings with all sources of the family.
        """
        old = part.set_thresholds
        if old is None or check.calibration is None:
            raise ValueError(f"Sets must be fitted where there are some. Received: {part.family.value}.")
        thresholds, num_rows = old.thresholds.copy(), old.num_rows.copy()
        few: tuple[Severity, ...] = tuple(Severity)
        for pattern in range(1, part.num_patterns):
            probability, labels = self._held_out(part, check, pattern)
            counts = np.bincount(labels, minlength=NUM_SEVERITIES)
            few = tuple(grade for grade in Severity if counts[grade] < FEW_ROWS)
            carried = carried_thresholds(old.thresholds[pattern], check.calibration)
            given = {grade: float(carried[grade]) for grade in few}
            thresholds[pattern] = fit_thresholds(probability, labels, old.coverage, given=given)
            is_fitted = counts >= FEW_ROWS
            num_rows[pattern] = np.where(is_fitted, counts, num_rows[pattern])
        return replace(part, set_thresholds=SetThresholds(old.coverage, thresholds, num_rows)), few

    def _held_out(self, part: FamilyStacker, check: FamilyCheck, pattern: int) -> tuple[Floats, Ints]:
        """Returns probabilities of the labelled findings with a pattern's sources, and their labels.

        Other sources are hidden, and each patient's calibration was fitted without the patient's fold.
        """
        hidden = {source for bit, source in enumerate(part.sources) if not pattern >> bit & 1}
        is_hidden = np.array([source in hidden for source in self._stacker.sources])
        visible = np.where(is_hidden[:, None, None, None], np.nan, self._probabilities)
        findings, _ = family_findings(part.family)
        stacked = apply_stacker(self._stacker, visible)
        labels = self._labels[:, findings]
        is_used = (labels != MISSING_LABEL) & (stacked.pattern[:, findings] == pattern)
        folds = check.patient_folds[self._patients[np.nonzero(is_used)[0]]]
        logits = centred_logs(stacked.probability[:, findings][is_used])
        for fold, calibration in enumerate(check.fold_calibrations):
            logits[folds == fold] = calibration.apply(logits[folds == fold])
        return softmax(logits), labels[is_used]
