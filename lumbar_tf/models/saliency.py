"""Saliency of a grader: gradient times activation at a feature map of its backbone.

The contribution of a cell to a finding's log-odds of "moderate or severe" against "normal or mild" is the sum
over channels of activation times derivative. The derivative passes through the remaining stages of the
backbone, the pooling over slices, the context of other levels and the head. At the last, averaged map of a
backbone this is Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391, equations 1 and 2), which averages the
derivatives over cells. At an earlier, finer map, where the derivatives differ between cells, it is HiResCAM
(Draelos and Carin 2020, arXiv:2011.08891), which uses the derivative of each cell.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lumbar_tf.inputs.crop_layout import CropLayout
from lumbar_tf.labels import FINDINGS, Severity
from lumbar_tf.models.keras_compat import producing_operation, source_tensors

#: Least number of cells along an edge of the map, if the backbone has such a map: a cell is then 5 to 10 mm
#: of a crop of 45 to 60 mm. The last map of a small crop may have only two cells.
MIN_CELLS = 6


def log_odds(logits: tf.Tensor) -> tf.Tensor:
    """Returns the log-odds of moderate or severe against normal or mild, float32 [...] of logits [..., 3]."""
    abnormal = tf.reduce_logsumexp(logits[..., Severity.MODERATE :], axis=-1)
    return abnormal - logits[..., Severity.NORMAL_MILD]


class SplitGrader:
    """A grader split in three models, which share its layers and therefore its weights.

    Attributes:
        cells: number of cells along an edge of the feature map.
        front: from images [study, crop, slice, px, px] to feature maps [study * crop * slice, cells, cells,
            d].
        rest: the remaining stages of the backbone.
        average: the global average pooling after the backbone.
        heads: from the averages, `mask` and `offset_mm` to the logits.
    """

    def __init__(self, model: keras.Model, layout: CropLayout, *, min_cells: int = MIN_CELLS) -> None:
        """Splits a grader.

        Args:
            model: from `grader.build_grader`.
            layout: its crops and rows.
            min_cells: see `cut_backbone`.
        """
        kinds = (keras.layers.Rescaling, keras.Model, keras.layers.GlobalAveragePooling2D)
        scale, base, self.average = (_only_layer(model, kind) for kind in kinds)
        first, self.rest = cut_backbone(base, min_cells=min_cells)
        inputs = model.input
        self.front = keras.Model(inputs["image"], first(scale.output))
        self.cells = int(self.front.output.shape[1])
        # A list, because the keys of a dict must be the names of input tensors, which inner tensors do not
        # have.
        self.heads = keras.Model([self.average.output, inputs["mask"], inputs["offset_mm"]], model.output)
        self._layout, self._crop_shape = layout, inputs["mask"].shape[1:]
        self._own = _own_crops(layout)

    def logits_and_saliency(
        self, image: tf.Tensor, mask: tf.Tensor, offset_mm: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Computes the logits, and the contribution of each cell to them.

        Args:
            image: float32 [study, crop, slice, px, px]; all inputs are those of
                `inputs.crops.Crops`.
            mask: bool [study, crop, slice].
            offset_mm: float32 [study, crop, slice].

        Returns:
            The grader's logits, float32 [study, rows, 3], and the contributions, float32 [study, family,
            crop, slice, cells, cells], with the families of the layout's targets. Their mean over the cells
            is, to first order, the contribution of a slice to the log-odds of its crop's own finding of the
            family; contributions to findings of other levels are left out.
        """
        features = self.front(image)
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(features)
            averages = self.average(self.rest(features))
        contributions = [
            tf.reduce_sum(features * tape.gradient(averages, features, output_gradients=gradient), axis=-1)
            for gradient in tf.unstack(self._gradients(averages, mask, offset_mm))
        ]
        shape = [-1, *self._crop_shape, self.cells, self.cells]
        # Scaled so that the mean over cells, not the sum, is the contribution of the whole slice.
        scaled = tf.stack([tf.reshape(family, shape) for family in contributions], axis=1) * float(
            self.cells**2
        )
        return self.heads([averages, mask, offset_mm]), scaled

    def _gradients(self, averages: tf.Tensor, mask: tf.Tensor, offset_mm: tf.Tensor) -> tf.Tensor:
        """Returns the derivatives of each crop's own findings, float32 [family, study * crop * slice, d]."""
        places = self._layout.target_places
        copies, studies = len(places), tf.shape(mask)[0]

        def repeat(values: tf.Tensor) -> tf.Tensor:
            return tf.tile(values, [copies, *([1] * (values.shape.rank - 1))])

        # One copy per finding: with context between levels, the gradient of a sum would mix the findings.
        repeated = repeat(averages)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(repeated)
            odds = log_odds(self.heads([repeated, repeat(mask), repeat(offset_mm)]))
            odds = tf.reshape(odds, [copies, studies, len(self._layout.rows)])
            wanted = tf.one_hot(places, len(self._layout.rows))[:, tf.newaxis]
            total = tf.reduce_sum(odds * wanted)
        slope = tf.reshape(
            tape.gradient(total, repeated), [copies, studies, *self._crop_shape, averages.shape[-1]]
        )
        gradients = tf.einsum("frp,rnpsd->fnpsd", tf.constant(self._own), slope)
        return tf.reshape(gradients, [len(self._own), -1, averages.shape[-1]])


def _own_crops(layout: CropLayout) -> Any:
    """Returns which crops show which findings of a family, 0 or 1, float32 [family, finding, crop]."""
    families = [FINDINGS[layout.rows[place]].condition.family for place in layout.target_places]
    views = np.array([layout.row_views[place] for place in layout.target_places], np.float32)
    is_in = np.array(
        [[row_family is family for row_family in families] for family in layout.targets], np.float32
    )
    return is_in[..., np.newaxis] * views


def _only_layer(model: keras.Model, kind: type) -> Any:
    """Returns the only outermost layer of a kind."""
    (found,) = (layer for layer in model.layers if isinstance(layer, kind))
    return found


def cut_backbone(base: keras.Model, *, min_cells: int = MIN_CELLS) -> tuple[keras.Model, keras.Layer]:
    """Splits a backbone at its deepest feature map that is fine enough and that no path bypasses.

    Args:
        base: a functional model from an image to a feature map.
        min_cells: least number of cells along an edge of the map.

    Returns:
        The model from the image to the map, and the model from the map to the output. They share the layers
        of the backbone. If no map is fine enough, the split is at the output.
    """
    fine = [
        tensor for tensor in _bottlenecks(base.output) if _is_map(tensor) and tensor.shape[1] >= min_cells
    ]
    # The first one is the image.
    cut = fine[-1] if len(fine) > 1 else base.output
    rest = keras.layers.Identity() if cut is base.output else keras.Model(cut, base.output)
    return keras.Model(base.input, cut), rest


def _is_map(tensor: Any) -> bool:
    """Returns whether the cells of a tensor cover the image evenly, which those of a padded one do not."""
    is_padded = isinstance(producing_operation(tensor), keras.layers.ZeroPadding2D)
    return len(tensor.shape) == 4 and not is_padded


def _bottlenecks(output: Any) -> list[Any]:
    """Returns the tensors on every path from the input to the output, in order."""
    order = _topological_order(output)
    place = {id(tensor): number for number, tensor in enumerate(order)}
    last_use = list(range(len(order)))
    for number, tensor in enumerate(order):
        for source in source_tensors(tensor):
            last_use[place[id(source)]] = number
    found, reach = [], 0
    for number, tensor in enumerate(order):
        # No tensor after this one uses one before it.
        if reach <= number:
            found.append(tensor)
        reach = max(reach, last_use[number])
    return found


def _topological_order(output: Any) -> list[Any]:
    """Returns a tensor and everything that it was computed from, each tensor after its sources."""
    done: dict[int, Any] = {}
    waiting = [output]
    while waiting:
        tensor = waiting[-1]
        ahead = [source for source in source_tensors(tensor) if id(source) not in done]
        if ahead:
            waiting += ahead
        else:
            done[id(waiting.pop())] = tensor
    return list(done.values())
