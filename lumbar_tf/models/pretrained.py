"""Weights that a backbone starts from: a download, a file, and three colours folded into one."""

from pathlib import Path

import keras
import numpy as np

from lumbar_tf.models.architectures import Builder, Shape
from lumbar_tf.models.input_scale import InputScale


def build_pretrained(name: str, build: Builder, shape: Shape, weights: str) -> keras.Model:
    """Builds a network with the weights of a download or of a file.

    Args:
        name: of the backbone, for messages.
        build: its builder.
        shape: [size, size, 3].
        weights: `imagenet` (downloads) or a file that `keras.Model.load_weights` reads.

    Raises:
        ValueError: the download failed, or the file is absent or of another network.
    """
    if weights == "imagenet":
        try:
            return build(input_shape=shape, weights="imagenet")
        except Exception as error:
            # Keras raises a bare Exception when a download fails.
            raise ValueError(
                f"The ImageNet weights of {name} could not be downloaded ({error}). Without a network, "
                "pass the path of a weights file (--weights=FILE) or --weights=none."
            ) from error
    path = Path(weights)
    if not path.is_file():
        raise ValueError(f"weights must be none, imagenet or an existing file. Received: {path}.")
    model = build(input_shape=shape, weights=None)
    try:
        model.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        raise ValueError(f"{path} does not hold weights of {name}: {error}") from error
    return model


def load_initial(model: keras.Model, path: Path) -> None:
    """Starts a whole network from a file of its own kind; see `lumbar_tf.training.warm_start`.

    Raises:
        ValueError: the file is of another network.
    """
    try:
        model.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        raise ValueError(f"{path} does not hold weights of {model.name}: {error}") from error


def fold_colours(colour: keras.Model, grey: keras.Model, scale: InputScale) -> None:
    """Gives a one-channel network the weights of its three-channel twin.

    The twin is asked with the grey image repeated: sum over colours c of W_c * (x - m_c) / s_c. With the
    grey scale (x - m) / s that is the kernel sum of W_c * s / s_c, and what is left over,
    W_c * (m - m_c) / s_c, goes into the bias, or into the mean of the batch normalisation that follows.
    Where the colours share one scale nothing is left over. Otherwise the answer is the same but where a
    kernel reaches beyond the image, since what lies there is 0 after scaling.

    Args:
        colour: with weights; its first kernel takes [size, size, 3].
        grey: the same architecture for [size, size, 1]; is overwritten.
        scale: of the backbone.
    """
    mean, deviation = np.array(scale.mean), np.array(scale.deviation)
    for source, target in zip(colour.weights, grey.weights, strict=True):
        if source.shape == target.shape:
            target.assign(source)
        else:
            first, grey_first = _owner(colour, source), _owner(grey, target)
    # [h, w, pixels, colours, filters]: CSPDarkNet lays four neighbouring pixels side by side first.
    height, width, _, filters = first.kernel.shape
    kernel = np.asarray(first.kernel, np.float64).reshape(height, width, -1, mean.size, filters)
    grey_first.kernel.assign(np.einsum("hwpcf,c->hwpf", kernel, deviation.mean() / deviation))
    left_over = np.einsum("hwpcf,c->f", kernel, (mean.mean() - mean) / deviation)
    if first.use_bias:
        grey_first.bias.assign(np.asarray(first.bias) + left_over)
    elif np.any(left_over):
        norm = next(each for each in grey.layers if isinstance(each, keras.layers.BatchNormalization))
        norm.moving_mean.assign(np.asarray(norm.moving_mean) - left_over)


def _owner(model: keras.Model, kernel: keras.Variable) -> keras.layers.Conv2D:
    """Returns the convolution that a kernel is of."""
    layers = (each for each in model._flatten_layers() if isinstance(each, keras.layers.Conv2D))
    return next(each for each in layers if each.kernel is kernel)
