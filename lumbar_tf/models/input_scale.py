"""The intensities that a backbone's weights expect, from images in [0, 1]."""

from dataclasses import dataclass

import keras
import numpy as np


@dataclass(frozen=True)
class InputScale:
    """Scaled image = (image - mean) / deviation, for each of three colours.

    Attributes:
        mean: of the weights' training images in [0, 1], red, green, blue.
        deviation: likewise.
    """

    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]

    def layer(self, channels: int = 3) -> keras.Layer:
        """Makes the layer that scales.

        Args:
            channels: 3, or 1 for grey images, which get the mean of the three colours' numbers.
        """
        mean, deviation = np.array(self.mean), np.array(self.deviation)
        if channels == 1:
            mean, deviation = mean.mean(keepdims=True), deviation.mean(keepdims=True)
        # Plain lists: a layer's configuration must be JSON.
        return keras.layers.Rescaling((1 / deviation).tolist(), (-mean / deviation).tolist())


#: [0, 1] to [-1, 1] (`imagenet_utils.preprocess_input` in `tf` mode), and all that start from nothing.
SYMMETRIC = InputScale((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
#: Zero mean and unit variance on ImageNet (`imagenet_utils.preprocess_input` in `torch` mode).
TORCH = InputScale((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
#: EfficientNetV2-S, -M and -L: image / 128 - 1, where the image is in [0, 255].
OVER_128 = InputScale((128 / 255,) * 3, (128 / 255,) * 3)
