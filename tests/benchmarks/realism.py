"""Distance of synthetic from real sagittal T2 slices in the features of a network trained on photographs.

    python -m lumbar_tf.build_records --data=SPIDER/midsagittal,SPIDER/t2space --out=REAL
    python -m lumbar_tf.synthetic --out=COHORT --studies=150 --variety=configs/pretrained/variety.yaml
    python -m lumbar_tf.build_records --data=COHORT --out=VARIED
    python tests/benchmarks/realism.py --weights=FILE --real=REAL VARIED [PLAIN ...]

For each folder of records it prints the kernel distance (Binkowski et al. 2018, "Demystifying MMD GANs",
cubic kernel, unbiased, times 1000) of MobileNetV2's features, of whole middle slices and of crops of 80 mm
around the annotated points, and the same between two random halves of the real studies, which is 0 up to
noise.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lumbar_tf.config import LocalizerConfig, TrainingConfig
from lumbar_tf.inputs.crop_layout import localizer_rows
from lumbar_tf.inputs.localizer_dataset import make_localizer_eval_dataset
from lumbar_tf.inputs.record_source import RecordSource, find_records
from lumbar_tf.labels import Plane

Array = NDArray[np.floating]

_SIDE_MM, _SIDE_PX, _CROP_MM = 290.0, 224, 80.0
_MAX_STUDIES = 150
#: Canal points of synthetic studies lie behind the discs, whose centres SPIDER's points are, mm.
_CANAL_TO_DISC_MM = 24.0


def pictures(records: Path, *, shift_mm: float) -> tuple[Array, Array]:
    """Returns middle slices [n, 224, 224] and crops around the points [m, 96, 96], 0 to 1."""
    shards = tuple(sorted((records / Plane.SAGITTAL_T2.value).glob("*.tfrecord")))
    ids = tuple(sorted({position.study_id for position in find_records(shards)}))[:_MAX_STUDIES]
    config = LocalizerConfig(
        backbone="mobilenet_v2",
        side_mm=_SIDE_MM,
        side_px=_SIDE_PX,
        num_slices=1,
        training=TrainingConfig(epochs=1, batch_studies=1, learning_rate=1e-3),
    )
    dataset = make_localizer_eval_dataset(
        RecordSource(shards, ids), rows=localizer_rows(Plane.SAGITTAL_T2), config=config, batch_studies=1
    )
    slices, crops = [], []
    half = int(_CROP_MM / _SIDE_MM * _SIDE_PX / 2)
    for inputs, points, _ in dataset:
        image, origin, right, down = (
            inputs[name].numpy()[0, 0] for name in ("image", "origin", "right", "down")
        )
        slices.append(image)
        for point in points.numpy()[0]:
            offset = point - origin - np.array([0, shift_mm, 0])
            column, row = ((offset @ axis / (axis @ axis)) + (_SIDE_PX - 1) / 2 for axis in (right, down))
            if not np.isfinite(column) or not half <= min(column, row) <= max(column, row) < _SIDE_PX - half:
                continue
            first_row, first_column = round(row) - half, round(column) - half
            crop = image[first_row : first_row + 2 * half, first_column : first_column + 2 * half]
            crops.append(tf.image.resize(crop[..., None], (96, 96))[..., 0].numpy())
    return np.stack(slices), np.stack(crops)


def features(images: Array, weights: Path) -> Array:
    """Returns MobileNetV2's features [n, 1280] of images in 0 to 1, stretched to their own range."""
    low, high = (np.quantile(images, share, axis=(1, 2), keepdims=True) for share in (0.01, 0.99))
    stretched = np.clip((images - low) / np.maximum(high - low, 1e-3), 0, 1) * 2 - 1
    model = keras.applications.MobileNetV2(
        include_top=False, weights=None, pooling="avg", input_shape=(*images.shape[1:], 3)
    )
    model.load_weights(weights)
    return model.predict(np.repeat(stretched[..., None], 3, axis=-1), batch_size=32, verbose=0)


def kernel_distance(first: Array, second: Array) -> float:
    """Returns the unbiased squared MMD with the kernel (x.y / d + 1)^3, times 1000."""

    def kernel(a: Array, b: Array) -> Array:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a: Array) -> float:
        gram = kernel(a, a)
        return float((gram.sum() - np.trace(gram)) / (len(a) * (len(a) - 1)))

    return 1000 * (within(first) + within(second) - 2 * float(kernel(first, second).mean()))


def main() -> None:
    """Prints a line for the real halves and for each folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--real", type=Path, required=True)
    parser.add_argument("synthetic", type=Path, nargs="+")
    words = parser.parse_args()
    real = [features(images, words.weights) for images in pictures(words.real, shift_mm=0.0)]
    halves = []
    for values in real:
        order = np.random.default_rng(0).permutation(len(values))
        halves.append(kernel_distance(values[order[::2]], values[order[1::2]]))
    print(f"two halves of the real studies: slices {halves[0]:.1f}, crops {halves[1]:.1f}", flush=True)
    for folder in words.synthetic:
        made = [features(images, words.weights) for images in pictures(folder, shift_mm=_CANAL_TO_DISC_MM)]
        slices, crops = (kernel_distance(a, b) for a, b in zip(real, made, strict=True))
        print(f"{folder.name}: slices {slices:.1f}, crops {crops:.1f}", flush=True)


if __name__ == "__main__":
    main()
