"""How often the axial slice nearest to a predicted point is the one that the annotator chose."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from lumbar_tf.inputs.crop_layout import localizer_rows
from lumbar_tf.inputs.record_source import RecordSource, attach_points, wanted_records
from lumbar_tf.inputs.slice_selection import Record, select_slices, slice_normals
from lumbar_tf.labels import Plane
from lumbar_tf.tables.landmarks import Points

_ROWS = list(localizer_rows(Plane.AXIAL_T2))
#: An annotated point lies in its slice's plane; float32 and tilted blocks need some room, mm. Slices of one
#: stack are 2.8 mm apart and more.
_IN_PLANE_MM = 0.5
#: As far from a slice as `CropConfig.max_distance_mm` allows by default, mm.
_MAX_DISTANCE_MM = 10.0


@dataclass(frozen=True)
class SliceChoice:
    """Of the annotated subarticular points.

    Attributes:
        num_points: with a predicted point.
        num_withheld: without one.
        same: share of the former whose predicted point is nearest to the annotated slice.
        within_one: whose nearest slice is that, or its neighbour. Of two series that overlap, a slice of the
            other one counts where the annotated point lies between its neighbours.
    """

    num_points: int
    num_withheld: int
    same: float
    within_one: float

    def __str__(self) -> str:
        """How a command prints it."""
        if self.num_points == 0:
            return f"no point is both annotated and predicted, {self.num_withheld} withheld"
        return (
            f"the nearest axial slice is the annotated one at {self.same:.1%} of {self.num_points} points, "
            f"within one of it at {self.within_one:.1%}, {self.num_withheld} withheld"
        )


def measure_slice_choice(source: RecordSource, predicted: Mapping[str, Points]) -> SliceChoice:
    """Compares the slices that predicted points lead to with the annotator's.

    Args:
        source: axial records.
        predicted: float32 [25, 3] by study, LPS mm; the subarticular rows are looked at, which of
            `complete_points` are the level points.

    Returns:
        The shares; with no point, NaN.
    """
    records = wanted_records(source).map(attach_points(predicted)).map(_compare)
    found = list(records.as_numpy_iterator())
    if not found:
        return SliceChoice(0, 0, float("nan"), float("nan"))
    is_annotated, is_predicted, is_same, is_within = (np.stack(each) for each in zip(*found, strict=True))
    known = is_annotated & is_predicted
    return SliceChoice(
        num_points=int(known.sum()),
        num_withheld=int((is_annotated & ~is_predicted).sum()),
        same=float(is_same[known].mean()) if known.any() else float("nan"),
        within_one=float(is_within[known].mean()) if known.any() else float("nan"),
    )


def _compare(record: Record) -> tuple[tf.Tensor, ...]:
    """Returns bool [10] each: annotated, predicted, in the nearest slice, within one of it."""
    annotated, predicted = (tf.gather(record[name], _ROWS) for name in ("points", "landmarks"))
    selection = select_slices(
        record,
        predicted,
        num_slices=3,
        max_distance_mm=_MAX_DISTANCE_MM,
        plane=Plane.AXIAL_T2,
        reverse=tf.zeros(len(_ROWS), tf.bool),
    )
    position = tf.gather(record["slices/position"], selection.index)
    normal = tf.gather(slice_normals(record), selection.index)
    above = tf.reduce_sum((annotated[:, tf.newaxis] - position) * normal, axis=-1)
    # NaN, of a point that nobody annotated, compares as False.
    is_below_one = tf.reduce_any(selection.mask & (above <= _IN_PLANE_MM), axis=-1)
    is_above_one = tf.reduce_any(selection.mask & (above >= -_IN_PLANE_MM), axis=-1)
    return (
        tf.reduce_all(tf.math.is_finite(annotated), axis=-1),
        tf.reduce_all(tf.math.is_finite(predicted), axis=-1),
        selection.mask[:, 1] & (tf.abs(above[:, 1]) <= _IN_PLANE_MM),
        is_below_one & is_above_one,
    )
