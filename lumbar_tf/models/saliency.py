"""Which places of its crops speak for stenosis in a grader's answer: gradient times activation.

A cell's part in a finding's log-odds "moderate or severe against normal or mild" is the sum over channels of
activation times derivative at a feature map of the backbone, through all that follows: its last stages, the
pooling over slices, the context of other levels and the head. At the last map of a backbone that is averaged
this is Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391, equations 1 and 2), whose weights are the means of
the derivatives; at an earlier, finer map, where they differ from cell to cell, it is HiResCAM (Draelos and
Carin 2020, arXiv:2011.08891), which takes each cell's own.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lumbar_tf.inputs.crop_layout import CropLayout
from lumbar_tf.labels import FINDINGS, Severity
from lumbar_tf.models.feature_cut import MIN_CELLS, cut_backbone


def log_odds(logits: tf.Tensor) -> tf.Tensor:
    """Returns the log-odds of moderate or severe against normal or mild, float32 [...] of logits [..., 3]."""
    sick = tf.reduce_logsumexp(logits[..., Severity.MODERATE :], axis=-1)
    return sick - logits[..., Severity.NORMAL_MILD]


class SplitGrader:
    """A grader in three parts, which share its layers and so its weights.

    Attributes:
        cells: of the feature map, along an edge.
    """

    def __init__(self, model: keras.Model, layout: CropLayout, *, min_cells: int = MIN_CELLS) -> None:
        """Takes a grader apart.

        Args:
            model: of `grader.build_grader`.
            layout: its crops and rows.
            min_cells: see `feature_cut.cut_backbone`.
        """
        kinds = (keras.layers.Rescaling, keras.Model, keras.layers.GlobalAveragePooling2D)
        scale, base, self._average = (_only(model, kind) for kind in kinds)
        first, self._rest = cut_backbone(base, min_cells=min_cells)
        given = model.input
        self._front = keras.Model(given["image"], first(scale.output))
        self.cells = int(self._front.output.shape[1])
        # In a list: a dict's keys must be the names of the tensors, and a tensor in the middle has none.
        self._heads = keras.Model([self._average.output, given["mask"], given["offset_mm"]], model.output)
        self._layout, self._crop_shape = layout, given["mask"].shape[1:]
        self._own = _own_crops(layout)

    def explain(self, image: tf.Tensor, mask: tf.Tensor, offset_mm: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Answers, and says what each cell of the map has to do with it.

        Args:
            image: float32 [study, crop, slice, px, px], as all inputs are of `grader_dataset.grader_inputs`.
            mask: bool [study, crop, slice].
            offset_mm: float32 [study, crop, slice].

        Returns:
            The grader's logits, float32 [study, rows, 3], and the parts, float32 [study, family, crop, slice,
            cells, cells], families as in the layout's targets. Their mean over the cells is what the slice of
            that crop adds to the log-odds of its own finding of that family, to first order; what crops add
            to findings of other levels is left out.
        """
        features = self._front(image)
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(features)
            averages = self._average(self._rest(features))
        parts = [
            tf.reduce_sum(features * tape.gradient(averages, features, output_gradients=each), axis=-1)
            for each in tf.unstack(self._pull(averages, mask, offset_mm))
        ]
        shape = [-1, *self._crop_shape, self.cells, self.cells]
        # In parts of the whole crop: the number of cells does not change the scale.
        scaled = tf.stack([tf.reshape(each, shape) for each in parts], axis=1) * float(self.cells**2)
        return self._heads([averages, mask, offset_mm]), scaled

    def _pull(self, averages: tf.Tensor, mask: tf.Tensor, offset_mm: tf.Tensor) -> tf.Tensor:
        """Returns the derivatives of each crop's own answers, float32 [family, study * crop * slice, d]."""
        places = self._layout.answered
        copies, studies = len(places), tf.shape(mask)[0]

        def repeat(each: tf.Tensor) -> tf.Tensor:
            return tf.tile(each, [copies, *([1] * (each.shape.rank - 1))])

        # A copy for each finding: where levels see each other, one sum of all answers would mix them.
        repeated = repeat(averages)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(repeated)
            odds = log_odds(self._heads([repeated, repeat(mask), repeat(offset_mm)]))
            odds = tf.reshape(odds, [copies, studies, len(self._layout.rows)])
            wanted = tf.one_hot(places, len(self._layout.rows))[:, tf.newaxis]
            total = tf.reduce_sum(odds * wanted)
        slope = tf.reshape(
            tape.gradient(total, repeated), [copies, studies, *self._crop_shape, averages.shape[-1]]
        )
        pull = tf.einsum("frp,rnpsd->fnpsd", tf.constant(self._own), slope)
        return tf.reshape(pull, [len(self._own), -1, averages.shape[-1]])


def _own_crops(layout: CropLayout) -> Any:
    """Tells which crops show which of a family's answered findings, float32 [family, answered, crop]."""
    families = [FINDINGS[layout.rows[place]].condition.family for place in layout.answered]
    views = np.array([layout.row_views[place] for place in layout.answered], np.float32)
    is_in = np.array([[each is family for each in families] for family in layout.targets], np.float32)
    return is_in[..., np.newaxis] * views


def _only(model: keras.Model, kind: type) -> Any:
    """Returns the one layer of a kind that a model itself holds."""
    (found,) = (each for each in model.layers if isinstance(each, kind))
    return found
