"""Share of a loss that is due to points: their place in the slice, and the choice of the slice.

Predictions of the same findings at three places are compared: at the annotated points, at the predicted
points moved along the normal into the annotated slice, and at the predicted points. The differences of the
three losses are what the localizer costs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.ensemble.candidates import CLASS_WEIGHTS
from lumbar_tf.ensemble.stacker import family_findings
from lumbar_tf.labels import MISSING_LABEL, Family, Severity

Floats = NDArray[np.float64]
Labels = NDArray[np.integer]

#: Share of the loss at predicted points that must be lost to points before these are named as its cause.
LARGE_LOSS = 0.1
#: Share of what is lost to points that must be lost in the slice, or to its choice, to name only that one.
CLEAR_PART = 2 / 3
#: AUC at annotated points below which a network with a loss not below the prior's has learned nothing.
CHANCE_AUC = 0.6
#: The AUC is undefined with fewer positive, or fewer negative, labels.
MIN_LABELS = 10

#: Probabilities are clipped to this before their logarithm, as in the metric.
_LOG_CLIP = 1e-15


@dataclass(frozen=True)
class LossAttribution:
    """Weighted log loss of the findings whose point is both annotated and predicted, and that have a label.

    Attributes:
        num_findings: number of these findings.
        at_annotated: loss at the annotated points.
        in_annotated_slice: loss at the predicted points, moved into the annotated slices.
        at_predicted: loss at the predicted points.
        slice_offsets: number of findings whose predicted slice is the annotated one, the next, the second
            next, and farther away; None for a stack, whose members have slices of their own.
        prior: loss of the weighted frequencies of these labels by condition and level; None in older files.
        auc: area under the ROC curve of Moderate or Severe at the annotated points. Only studies at the same
            condition and level are compared, so that the levels' frequencies do not count. None with fewer
            than `MIN_LABELS` labels of either kind, and in older files.
    """

    num_findings: int
    at_annotated: float
    in_annotated_slice: float
    at_predicted: float
    slice_offsets: tuple[int, int, int, int] | None = None
    prior: float | None = None
    auc: float | None = None

    @property
    def lost(self) -> float:
        """Loss that is due to points; negative if the predicted points are better than the annotated ones."""
        return self.at_predicted - self.at_annotated

    @property
    def cause(self) -> str:
        """The likely cause of a large loss, with advice; "" if none is clear."""
        auc, prior = self.auc, self.prior
        if prior is not None and self.at_annotated >= prior and auc is not None and auc < CHANCE_AUC:
            return (
                "labels, crops or the grader, not the points: at the annotated points the loss is "
                f"{self.at_annotated:.3f} (prior {prior:.3f}) and the AUC of not normal, within a "
                f"condition and level, {auc:.2f}. Check that the labels belong to these studies and "
                "that the crops show the findings; too few epochs or studies, or a learning rate that is "
                "too high, look the same"
            )
        if self.lost <= 0 or self.lost < LARGE_LOSS * self.at_predicted:
            return ""
        part = (self.in_annotated_slice - self.at_annotated) / self.lost
        if part >= CLEAR_PART:
            return "the localizer's error within the slice: train it longer or on larger images"
        if part <= 1 - CLEAR_PART:
            return "the choice of the slice: give the graders more slices (grader.crop.num_slices)"
        return "the localizer's points, both within the slice and in the choice of the slice"

    def __str__(self) -> str:
        """Returns a sentence without its full stop."""
        text = (
            f"{f'{self.lost:.3f}' if self.lost > 0 else 'nothing'} of {self.at_predicted:.3f} is lost to "
            f"points: {self.in_annotated_slice - self.at_annotated:z.3f} in the slice, "
            f"{self.at_predicted - self.in_annotated_slice:z.3f} to the choice of the slice"
        )
        if self.slice_offsets is None:
            return f"{text} ({self.num_findings} findings)"
        same, *others = (count / self.num_findings for count in self.slice_offsets)
        return (
            f"{text}, which is the annotated one for {same:.1%} of {self.num_findings} findings, one off for "
            f"{others[0]:.1%}, two for {others[1]:.1%}, more for {others[2]:.1%}"
        )


def attribute_loss(
    labels: Labels, predictions: Floats, slice_offsets: NDArray[np.integer] | None = None
) -> LossAttribution | None:
    """Computes the losses at the three places.

    Args:
        labels: int [num_studies, 25], -1 where missing.
        predictions: float64 [3, num_studies, 25, 3], at the annotated points, in the annotated slice and at
            the predicted points; NaN at any of them leaves a finding out.
        slice_offsets: slices between the annotated and the predicted one, int [num_studies, 25].

    Returns:
        The losses; None if no finding can be compared. A loss is the mean over the families of findings, as
        in the metric, without its any-severe term.
    """
    known = (labels != MISSING_LABEL) & np.isfinite(predictions).all(axis=(0, -1))
    if not known.any():
        return None
    compared = np.where(known, labels, MISSING_LABEL)
    counts = None
    if slice_offsets is not None:
        same, one, two, more = np.bincount(np.minimum(slice_offsets[known], 3), minlength=4).tolist()
        counts = (same, one, two, more)
    annotated, moved, predicted = (_weighted_loss(compared, values) for values in predictions)
    return LossAttribution(
        num_findings=int(known.sum()),
        at_annotated=annotated,
        in_annotated_slice=moved,
        at_predicted=predicted,
        slice_offsets=counts,
        prior=_weighted_loss(compared, _prior(compared)),
        auc=_auc_within_findings(compared, 1 - predictions[0, ..., Severity.NORMAL_MILD]),
    )


def _weighted_loss(labels: Labels, probabilities: Floats) -> float:
    known = labels != MISSING_LABEL
    chosen = np.take_along_axis(probabilities, np.maximum(labels, 0)[..., np.newaxis], axis=-1)[..., 0]
    weights = np.where(known, CLASS_WEIGHTS[labels], 0.0)
    costs = weights * -np.log(np.clip(np.where(known, chosen, 1.0), _LOG_CLIP, 1.0))
    families = (family_findings(family)[0] for family in Family)
    return float(
        np.mean(
            [costs[:, rows].sum() / weights[:, rows].sum() for rows in families if weights[:, rows].any()]
        )
    )


def _prior(labels: Labels) -> Floats:
    """Returns the weighted class frequencies of each finding, float64 [num_studies, 25, 3]."""
    counts = (labels[..., np.newaxis] == list(Severity)).sum(axis=0) * CLASS_WEIGHTS
    shares = counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1.0)
    return np.broadcast_to(shares, (*labels.shape, len(Severity)))


def _auc_within_findings(labels: Labels, scores: Floats) -> float | None:
    """Returns the share of pairs of studies, positive and negative in a finding, that are in order."""
    in_order = num_pairs = num_positive = num_negative = 0.0
    for grades, values in zip(labels.T, scores.T, strict=True):
        positive, negative = values[grades > 0], np.sort(values[grades == 0])
        if positive.size and negative.size:
            below, up_to = (np.searchsorted(negative, positive, side) for side in ("left", "right"))
            in_order += float((below + up_to).sum()) / 2  # ties count half
            num_pairs += positive.size * negative.size
            num_positive += positive.size
            num_negative += negative.size
    return in_order / num_pairs if min(num_positive, num_negative) >= MIN_LABELS else None


def read_attribution(content: dict[str, Any]) -> LossAttribution:
    """Returns an attribution from its content in `fold.json`."""
    offsets = content["slice_offsets"]
    return LossAttribution(**{**content, "slice_offsets": None if offsets is None else tuple(offsets)})


def mean_attribution(folds: Sequence[LossAttribution]) -> LossAttribution | None:
    """Returns the mean over folds, weighted by their findings, with the summed counts; None without folds."""
    if not folds:
        return None
    counts = [fold.slice_offsets or (0, 0, 0, 0) for fold in folds]
    same, one, two, more = (sum(count) for count in zip(*counts, strict=True))
    return LossAttribution(
        num_findings=sum(fold.num_findings for fold in folds),
        at_annotated=_mean(folds, "at_annotated"),
        in_annotated_slice=_mean(folds, "in_annotated_slice"),
        at_predicted=_mean(folds, "at_predicted"),
        slice_offsets=(same, one, two, more),
        **{
            name: _mean(known, name)
            for name in ("prior", "auc")
            if (known := [fold for fold in folds if getattr(fold, name) is not None])
        },
    )


def _mean(folds: Sequence[LossAttribution], name: str) -> float:
    total = sum(fold.num_findings for fold in folds)
    return float(sum(getattr(fold, name) * fold.num_findings for fold in folds)) / total
