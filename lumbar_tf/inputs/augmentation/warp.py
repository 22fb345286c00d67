"""The geometric change of a study, composed into the crops' one interpolation."""

import math

import tensorflow as tf

from lumbar_tf.config import AugmentationConfig
from lumbar_tf.inputs.augmentation.draws import Draw, uniform
from lumbar_tf.inputs.crops import Warp


def random_warp(seed: tf.Tensor, config: AugmentationConfig) -> Warp:
    """Draws one rotation, zoom and shift for a whole study."""
    turn = config.rotation_deg * math.pi / 180
    angle = uniform(seed, Draw.ROTATION, -turn, turn)
    stretch = math.log1p(config.zoom)
    zoom = tf.exp(uniform(seed, Draw.ZOOM, -stretch, stretch))
    rotation = tf.stack([tf.cos(angle), -tf.sin(angle), tf.sin(angle), tf.cos(angle)])
    return Warp(
        matrix=tf.reshape(rotation, [2, 2]) * zoom,
        shift_mm=uniform(seed, Draw.SHIFT, -config.shift_mm, config.shift_mm, (2,)),
    )
