"""One fold of a small grader on real records, for tests that kill it: `python -m tests.training.fold_run`."""

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from lumbar_tf.config import AugmentationConfig, CropConfig, TrainingConfig
from lumbar_tf.dicom.geometry import SliceGeometry
from lumbar_tf.dicom.study import Slice
from lumbar_tf.inputs.crop_layout import CropLayout
from lumbar_tf.inputs.grader_dataset import make_grader_eval_dataset, make_grader_train_dataset
from lumbar_tf.inputs.record_source import RecordSource
from lumbar_tf.inputs.study_batches import batches_per_epoch
from lumbar_tf.labels import Family, Plane
from lumbar_tf.models.losses import WeightedSeverityLoss
from lumbar_tf.records.schema import encode_plane
from lumbar_tf.training.fitter import Fitter, FoldData

EPOCHS = 14
STUDIES = tuple(str(number) for number in range(7))
LAYOUT = CropLayout(Plane.SAGITTAL_T1, (Family.FORAMINAL,))
CROP = CropConfig(side_mm=20.0, side_px=16, num_slices=3, max_distance_mm=8.0)
TRAINING = TrainingConfig(
    epochs=EPOCHS,
    batch_studies=2,
    learning_rate=3e-3,
    ema_momentum=0.9,
    augmentation=AugmentationConfig(shift_mm=2, drop_slice=0.2, cutout=0.3, noise=0.05, mixup=0.3),
)


def write_shard(path: Path) -> None:
    """Writes studies with random images, points and labels."""
    rng = np.random.default_rng(5)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for study in STUDIES:
            slices = [
                Slice(
                    SliceGeometry((4.0 * (k - 3), -20, 20), (0, 1, 0), (0, 0, -1), 1.3, 1.1, 36, 36),
                    rng.integers(0, 900, (36, 36)).astype(np.float32),
                    "1",
                    k + 1,
                )
                for k in range(7)
            ]
            points = rng.uniform(-8, 8, (25, 3)).astype(np.float32)
            writer.write(
                encode_plane(study, Plane.SAGITTAL_T1, slices, labels=rng.integers(-1, 3, 25), points=points)
            )


def build() -> keras.Model:
    """A network with batch statistics and dropout."""
    inputs = {
        "image": keras.Input((10, 3, 16, 16), name="image"),
        "mask": keras.Input((10, 3), name="mask", dtype="bool"),
        "offset_mm": keras.Input((10, 3), name="offset_mm"),
    }
    x = ops.reshape(ops.transpose(inputs["image"], (0, 1, 3, 4, 2)), (-1, 16, 16, 3))
    x = keras.layers.Conv2D(8, 3, strides=2)(x)
    x = keras.layers.Activation("relu")(keras.layers.BatchNormalization(momentum=0.9)(x))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8, 3)(x))
    x = keras.layers.Dropout(0.2)(x)
    return keras.Model(inputs, ops.reshape(keras.layers.Dense(3)(x), (-1, 10, 3)))


def main(shard: Path, folder: Path, cache: bool) -> None:
    """Fits the remaining epochs of the fold."""
    training = TRAINING.model_copy(update={"cache": cache})
    source = RecordSource((shard,), STUDIES[:5])
    held_out = RecordSource((shard,), STUDIES[5:])

    def train(start_epoch: int) -> tf.data.Dataset:
        return make_grader_train_dataset(
            source,
            {},
            layout=LAYOUT,
            crop=CROP,
            training=training,
            jitter_mm=(1.0, 1.0, 1.0),
            seed=11,
            start_epoch=start_epoch,
        )

    evaluation = make_grader_eval_dataset(held_out, {}, layout=LAYOUT, crop=CROP, batch_studies=2)
    fitter = Fitter(
        build,
        training=training,
        loss=WeightedSeverityLoss(LAYOUT.rows),
        strategy=tf.distribute.get_strategy(),
    )
    data = FoldData(
        train, batches_per_epoch(5, 2), evaluation.map(lambda inputs, targets, _: (inputs, targets))
    )
    fitter.fit(data, folder, seed=11)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "cached")
