"""Share of a grader's held-out loss that is due to its points: their place in the slice, and the slice.

The same network grades the same held-out findings at three places: at the annotated points, at the predicted
points moved along the normal into the annotated slice, and at the predicted points. The differences of the
three losses are what the localizer costs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from lumbar_tf.inputs.crop_layout import CropLayout
from lumbar_tf.inputs.grader_dataset import NUM_PLACEMENTS
from lumbar_tf.models.losses import WeightedSeverityLoss


@dataclass(frozen=True)
class LossAttribution:
    """Weighted log loss of the findings whose point is both annotated and predicted, and that have a label.

    Attributes:
        num_findings: number of these findings.
        at_annotated: loss at the annotated points.
        in_annotated_slice: loss at the predicted points, moved into the annotated slices.
        at_predicted: loss at the predicted points.
        slice_offsets: number of findings whose predicted slice is the annotated one, the next, the second
            next, and farther away.
    """

    num_findings: int
    at_annotated: float
    in_annotated_slice: float
    at_predicted: float
    slice_offsets: tuple[int, int, int, int]

    def __str__(self) -> str:
        """Returns a sentence."""
        same, *others = (count / self.num_findings for count in self.slice_offsets)
        lost = self.at_predicted - self.at_annotated
        return (
            f"{f'{lost:.3f}' if lost > 0 else 'nothing'} of {self.at_predicted:.3f} is lost to points: "
            f"{self.in_annotated_slice - self.at_annotated:.3f} in the slice, "
            f"{self.at_predicted - self.in_annotated_slice:.3f} to the choice of the slice, which is the "
            f"annotated one for {same:.1%} of {self.num_findings} findings, one off for {others[0]:.1%}, two "
            f"for {others[1]:.1%}, more for {others[2]:.1%}"
        )


def attribute_loss(
    model: keras.Model, dataset: tf.data.Dataset, layout: CropLayout
) -> LossAttribution | None:
    """Grades held-out studies at the three places.

    Args:
        model: grader.
        dataset: from `make_placement_dataset`.
        layout: crops and rows of the grader.

    Returns:
        The losses of the target families; None if no finding can be compared.
    """
    places = list(layout.target_places)
    loss = WeightedSeverityLoss([layout.rows[place] for place in places])
    logits: list[list[tf.Tensor]] = [[] for _ in range(NUM_PLACEMENTS)]
    targets, offsets = [], []
    for inputs, target, _ in dataset:
        offsets.append(tf.gather(inputs.pop("slice_offset"), places, axis=1))
        targets.append(tf.gather(target, places, axis=1))
        parts = {name: tf.split(values, NUM_PLACEMENTS, axis=1) for name, values in inputs.items()}
        for placement, answers in enumerate(logits):
            answer = model({name: values[placement] for name, values in parts.items()}, training=False)
            answers.append(tf.gather(answer, places, axis=1))
    target = tf.concat(targets, axis=0)
    known = tf.reduce_any(target > 0, axis=-1)
    offset = tf.boolean_mask(tf.concat(offsets, axis=0), known)
    if not tf.size(offset):
        return None
    counts = tf.math.bincount(tf.minimum(offset, 3), minlength=4).numpy().tolist()
    annotated, moved, predicted = (float(loss.call(target, tf.concat(answers, axis=0))) for answers in logits)
    return LossAttribution(int(tf.size(offset)), annotated, moved, predicted, tuple(counts))


def read_attribution(content: dict[str, Any]) -> LossAttribution:
    """Returns an attribution from its content in `fold.json`."""
    return LossAttribution(**{**content, "slice_offsets": tuple(content["slice_offsets"])})


def mean_attribution(folds: Sequence[LossAttribution]) -> LossAttribution | None:
    """Returns the mean over folds, weighted by their findings, with the summed counts; None without folds."""
    total = sum(fold.num_findings for fold in folds)
    if not total:
        return None

    def mean(name: str) -> float:
        return sum(getattr(fold, name) * fold.num_findings for fold in folds) / total

    same, one, two, more = (
        sum(counts) for counts in zip(*(fold.slice_offsets for fold in folds), strict=True)
    )
    return LossAttribution(
        total, mean("at_annotated"), mean("in_annotated_slice"), mean("at_predicted"), (same, one, two, more)
    )
