"""Reading of tensors that another program wrote, with a limit on their size."""

from math import prod
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

#: A tensor of equal elements is sent once, whatever its shape: one of a few bytes can fill any memory. The
#: saliency of a study has some hundred thousand elements.
_MAX_ELEMENTS = 1 << 26


def read_tensor(tensor: Any) -> NDArray[Any]:
    """Returns the array of a `TensorProto`.

    Raises:
        ValueError: its shape has a negative size or more than 2**26 elements, or does not fit its content.
        TypeError: its type has no array.
    """
    shape = [dimension.size for dimension in tensor.tensor_shape.dim]
    if tensor.tensor_shape.unknown_rank or min(shape, default=0) < 0 or prod(shape) > _MAX_ELEMENTS:
        raise ValueError(f"A tensor must have at most {_MAX_ELEMENTS} elements. Received: shape {shape[:8]}.")
    return np.asarray(tf.make_ndarray(tensor))
