"""Metrics of predicted landmarks: distances, levels, level shifts and axial slices."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lumbar_tf.inputs.crop_layout import localizer_rows
from lumbar_tf.inputs.record_source import RecordSource, attach_points, wanted_records, without_autograph
from lumbar_tf.inputs.slice_selection import Record, select_slices, slice_normals
from lumbar_tf.labels import FINDINGS, NUM_FINDINGS, NUM_LEVELS, Level, Plane
from lumbar_tf.tables.landmarks import Points

#: Errors beyond this are wrong levels rather than noise, and are excluded from the model of the jitter, mm.
_OUTLIER_MM = 10.0
#: Boundaries of the distance shares of a level, mm; the last share is of greater distances. A disc and the
#: body below it are about 40 mm high, so beyond 20 mm another level is nearer.
EDGES_MM = (2.0, 5.0, 10.0, 20.0)
_AXIAL_ROWS = list(localizer_rows(Plane.AXIAL_T2))
#: Tolerance for an annotated point in the plane of its slice, mm: float32 rounding and tilted blocks. Slices
#: of one stack are at least 2.8 mm apart.
_IN_PLANE_MM = 0.5
#: Default of `CropConfig.max_distance_mm`, mm.
_MAX_DISTANCE_MM = 10.0


@dataclass(frozen=True)
class LandmarkAccuracy:
    """Error of predicted landmarks against annotated ones.

    Attributes:
        num_points: compared points.
        num_withheld: annotated points of these studies and of predicted conditions without a prediction.
        median_mm: median distance.
        within_10_mm: share of points within 10 mm.
        own_level: share of points nearest to their own level's annotated point.
        sd_mm: standard deviation of the error along x, y, z, without outliers.
    """

    num_points: int
    num_withheld: int
    median_mm: float
    within_10_mm: float
    own_level: float
    sd_mm: tuple[float, float, float]


def measure_landmark_accuracy(
    predicted: Mapping[str, Points], annotated: Mapping[str, Points]
) -> LandmarkAccuracy:
    """Measures the error of landmarks.

    Args:
        predicted: float32 [25, 3] by study, LPS mm, NaN where missing.
        annotated: the same; studies and points in only one of the two are ignored.

    Returns:
        The error; without common points NaN and a standard deviation of 0.
    """
    pairs = [(predicted[study], annotated[study]) for study in predicted if study in annotated]
    if not pairs:
        return LandmarkAccuracy(0, 0, float("nan"), float("nan"), float("nan"), (0.0, 0.0, 0.0))
    found, truth = (np.stack(points).astype(np.float64) for points in zip(*pairs, strict=True))
    is_annotated, is_found = np.isfinite(truth).all(-1), np.isfinite(found).all(-1)
    known = is_annotated & is_found
    # A condition without any prediction is not one of this localizer's.
    is_predicted = is_found.reshape(len(found), -1, NUM_LEVELS).any(axis=(0, 2)).repeat(NUM_LEVELS)
    num_withheld = int((is_annotated & ~is_found & is_predicted).sum())
    if not known.any():
        return LandmarkAccuracy(0, num_withheld, float("nan"), float("nan"), float("nan"), (0.0, 0.0, 0.0))
    residual = (found - truth)[known]
    distance = np.linalg.norm(residual, axis=-1)
    near = residual[distance <= _OUTLIER_MM]
    deviation = np.sqrt(np.mean(near**2, axis=0)) if len(near) else np.zeros(3)
    return LandmarkAccuracy(
        num_points=len(distance),
        num_withheld=num_withheld,
        median_mm=float(np.median(distance)),
        within_10_mm=float(np.mean(distance <= _OUTLIER_MM)),
        own_level=float(np.mean(_is_own_level(found, truth)[known])),
        sd_mm=(float(deviation[0]), float(deviation[1]), float(deviation[2])),
    )


def _is_own_level(found: NDArray[np.floating], truth: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Returns whether points [n, 25, 3] are nearest to their own level of their condition, bool [n, 25]."""
    by_condition = (len(found), NUM_FINDINGS // NUM_LEVELS, NUM_LEVELS, 3)
    found, truth = found.reshape(by_condition), truth.reshape(by_condition)
    distance = np.linalg.norm(found[:, :, :, None] - truth[:, :, None], axis=-1)
    nearest = np.argmin(np.where(np.isfinite(distance), distance, np.inf), axis=-1)
    own: NDArray[np.bool_] = nearest == np.arange(NUM_LEVELS)
    return own.reshape(len(found), NUM_FINDINGS)


@dataclass(frozen=True)
class LevelShiftCounts:
    """Counts of studies with shifted levels and of studies flagged by their doubt.

    Attributes:
        num_studies: studies with annotated and predicted points.
        num_shifted: studies with at least two points nearest to another level's annotated point.
        num_flagged: studies with at least one point of more doubt than the threshold.
        num_caught: studies that are both.
    """

    num_studies: int
    num_shifted: int
    num_flagged: int
    num_caught: int


def count_level_shifts(
    predicted: Mapping[str, Points],
    doubt: Mapping[str, Points],
    annotated: Mapping[str, Points],
    *,
    threshold: float,
) -> LevelShiftCounts:
    """Counts shifted and flagged studies.

    Args:
        predicted: float32 [25, 3] by study, LPS mm.
        doubt: float32 [25] by study, 0 to 1.
        annotated: float32 [25, 3] by study; studies without a point in both are ignored.
        threshold: a greater doubt flags the study.

    Returns:
        The counts.
    """
    shifted, flagged = [], []
    for study in sorted(set(predicted) & set(annotated)):
        found, truth = predicted[study][np.newaxis], annotated[study][np.newaxis]
        known = (np.isfinite(found) & np.isfinite(truth)).all(axis=-1)
        if known.any():
            shifted.append(int((~_is_own_level(found, truth))[known].sum()) >= 2)
            flagged.append(bool(((doubt[study] > threshold) & np.isfinite(found[0]).all(axis=-1)).any()))
    return LevelShiftCounts(len(shifted), sum(shifted), sum(flagged), sum(map(min, shifted, flagged)))


@dataclass(frozen=True)
class LevelError:
    """Distances of predicted from annotated points at one level, of all conditions.

    Attributes:
        level: the level.
        num_points: compared points.
        median_mm: median distance; NaN without points.
        ninetieth_mm: 90th percentile of the distance; NaN without points.
        shares: shares of the points up to each of `EDGES_MM` and beyond the last; NaN without points.
    """

    level: Level
    num_points: int
    median_mm: float
    ninetieth_mm: float
    shares: tuple[float, ...]


def measure_level_errors(
    predicted: Mapping[str, Points], annotated: Mapping[str, Points]
) -> tuple[LevelError, ...]:
    """Measures the distances at each level, L1/L2 first.

    Args:
        predicted: float32 [25, 3] by study, LPS mm, NaN where missing.
        annotated: the same; studies and points in only one of the two are ignored.

    >>> errors = measure_level_errors({"1": np.zeros((25, 3))}, {"1": np.full((25, 3), 3.0)})
    >>> errors[0].num_points, round(errors[0].median_mm, 2), errors[0].shares
    (5, 5.2, (0.0, 0.0, 1.0, 0.0, 0.0))
    """
    studies = sorted(set(predicted) & set(annotated))
    distances = np.array(
        [np.linalg.norm(np.float64(predicted[study]) - annotated[study], axis=-1) for study in studies]
    ).reshape(-1, len(FINDINGS))
    return tuple(_level_error(level, distances) for level in Level)


def _level_error(level: Level, distances: NDArray[np.float64]) -> LevelError:
    columns = [row for row, finding in enumerate(FINDINGS) if finding.level is level]
    known = distances[:, columns]
    known = known[np.isfinite(known)]
    if not known.size:
        nan = float("nan")
        return LevelError(level, 0, nan, nan, (nan,) * (len(EDGES_MM) + 1))
    counts = np.bincount(np.searchsorted(EDGES_MM, known), minlength=len(EDGES_MM) + 1)
    return LevelError(
        level=level,
        num_points=int(known.size),
        median_mm=float(np.median(known)),
        ninetieth_mm=float(np.quantile(known, 0.9)),
        shares=tuple((counts / known.size).tolist()),
    )


@dataclass(frozen=True)
class SliceAgreement:
    """Agreement of the axial slices nearest to predicted points with the annotated slices.

    Attributes:
        num_points: annotated subarticular points with a prediction.
        num_withheld: annotated subarticular points without one.
        same: share of `num_points` whose nearest slice is the annotated one.
        within_one: share whose nearest slice is the annotated one or its neighbour. Where two series overlap,
            a slice of the other series counts if the annotated point lies between its neighbours.
    """

    num_points: int
    num_withheld: int
    same: float
    within_one: float

    def __str__(self) -> str:
        """Returns a summary of one line."""
        if self.num_points == 0:
            return f"no point is both annotated and predicted, {self.num_withheld} withheld"
        return (
            f"the nearest axial slice is the annotated one at {self.same:.1%} of {self.num_points} points, "
            f"within one of it at {self.within_one:.1%}, {self.num_withheld} withheld"
        )


def measure_slice_agreement(source: RecordSource, predicted: Mapping[str, Points]) -> SliceAgreement:
    """Measures how often the axial slice nearest to a predicted point is the annotated one.

    Args:
        source: axial records.
        predicted: float32 [25, 3] by study, LPS mm; only the subarticular rows are used, which from
            `complete_points` are the level points.

    Returns:
        The agreement; shares are NaN without points.
    """
    records = wanted_records(source).map(without_autograph(attach_points(predicted)))
    records = records.map(without_autograph(_compare_slices))
    found = list(records.as_numpy_iterator())
    if not found:
        return SliceAgreement(0, 0, float("nan"), float("nan"))
    is_annotated, is_predicted, is_same, is_within = (np.stack(parts) for parts in zip(*found, strict=True))
    known = is_annotated & is_predicted
    return SliceAgreement(
        num_points=int(known.sum()),
        num_withheld=int((is_annotated & ~is_predicted).sum()),
        same=float(is_same[known].mean()) if known.any() else float("nan"),
        within_one=float(is_within[known].mean()) if known.any() else float("nan"),
    )


def _compare_slices(record: Record) -> tuple[tf.Tensor, ...]:
    """Returns whether points are annotated, predicted, in the nearest slice, within one of it; bool [10]."""
    annotated, predicted = (tf.gather(record[name], _AXIAL_ROWS) for name in ("points", "landmarks"))
    selection = select_slices(
        record,
        predicted,
        num_slices=3,
        max_distance_mm=_MAX_DISTANCE_MM,
        plane=Plane.AXIAL_T2,
        reverse=tf.zeros(len(_AXIAL_ROWS), tf.bool),
    )
    position = tf.gather(record["slices/position"], selection.index)
    normal = tf.gather(slice_normals(record), selection.index)
    above = tf.reduce_sum((annotated[:, tf.newaxis] - position) * normal, axis=-1)
    # Comparisons with NaN, a point without annotation, are False.
    is_below_one = tf.reduce_any(selection.mask & (above <= _IN_PLANE_MM), axis=-1)
    is_above_one = tf.reduce_any(selection.mask & (above >= -_IN_PLANE_MM), axis=-1)
    return (
        tf.reduce_all(tf.math.is_finite(annotated), axis=-1),
        tf.reduce_all(tf.math.is_finite(predicted), axis=-1),
        selection.mask[:, 1] & (tf.abs(above[:, 1]) <= _IN_PLANE_MM),
        is_below_one & is_above_one,
    )
