"""Losses of the first steps of a network on one or two devices: `python -m tests.training.mirrored_run`."""

import json
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from lumbar_tf.config import LocalizerConfig, TrainingConfig
from lumbar_tf.labels import Plane
from lumbar_tf.models.localizer import build_localizer
from lumbar_tf.models.losses import MetricLoss
from lumbar_tf.training.devices import StrategyName, choose_strategy
from lumbar_tf.training.fitter import Fitter, FoldData

NUM_STEPS = 5
BATCH = 4
TRAINING = TrainingConfig(
    # One step an epoch, so that the history has every step's loss; a norm that clips every step.
    epochs=NUM_STEPS,
    batch_studies=BATCH,
    learning_rate=0.02,
    clip_norm=0.05,
    ema_momentum=0.9,
    warmup_fraction=0.0,
    validate_every=0,
    board_pictures=False,
)
#: Adam turns the rounding of gradients that are 0 (a bias before a normalisation) into whole steps: in a deep
#: network the rate must be small for rounding to stay small.
LOCALIZER = LocalizerConfig(
    backbone="densenet_tiny",
    side_px=32,
    num_slices=3,
    decoder_channels=8,
    training=TRAINING.model_copy(update={"learning_rate": 1e-3}),
)


def _grader() -> keras.Model:
    """Returns a network with batch normalisation, whose statistics are of the whole batch."""
    inputs = keras.Input((6,))
    x = keras.layers.Dense(16)(inputs)
    x = keras.layers.Activation("relu")(keras.layers.BatchNormalization(momentum=0.5)(x))
    return keras.Model(inputs, keras.layers.Reshape((25, 3))(keras.layers.Dense(75)(x)))


def _grades(_: int) -> tf.data.Dataset:
    """Returns studies with different numbers of labels, so that replicas have different weights."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(NUM_STEPS * BATCH, 6)).astype(np.float32)
    targets = np.eye(3, dtype=np.float32)[rng.integers(0, 3, (len(x), 25))]
    targets[rng.random((len(x), 25)) < rng.random((len(x), 1))] = 0.0
    return tf.data.Dataset.from_tensor_slices((x, targets)).batch(BATCH, drop_remainder=True).repeat()


def _fields(_: int) -> tf.data.Dataset:
    """Returns random localizer inputs around the origin; some points are not annotated."""
    rng = np.random.default_rng(1)
    count, slices, side = NUM_STEPS * BATCH, LOCALIZER.num_slices, LOCALIZER.side_px
    unit = np.zeros((count, slices, 3), np.float32)
    inputs = {
        "image": rng.random((count, slices, side, side)).astype(np.float32),
        "mask": np.ones((count, slices), np.bool_),
        "lateral_mm": np.broadcast_to(np.float32([-5, 0, 5]), (count, slices)),
        "origin": unit + np.float32([[-5, 0, 0], [0, 0, 0], [5, 0, 0]]),
        "right": unit + np.float32([0, 4, 0]),
        "down": unit + np.float32([0, 0, -4]),
    }
    points = rng.uniform(-40, 40, (count, 5, 3)).astype(np.float32)
    points[rng.random((count, 5)) < rng.random((count, 1))] = np.nan
    return tf.data.Dataset.from_tensor_slices((inputs, points)).batch(BATCH, drop_remainder=True).repeat()


def main(kind: str, num_devices: int) -> None:
    """Prints the losses and a sum over the weights."""
    if num_devices > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration() for _ in range(num_devices)]
        )
        names = [device.name for device in tf.config.list_logical_devices("CPU")]
        strategy: tf.distribute.Strategy = tf.distribute.MirroredStrategy(names)
    else:
        strategy = choose_strategy(StrategyName.AUTO)
    is_grader = kind == "grader"
    fitter = Fitter(
        _grader if is_grader else lambda: build_localizer(LOCALIZER, Plane.SAGITTAL_T2),
        training=TRAINING if is_grader else LOCALIZER.training,
        loss=MetricLoss(range(25)) if is_grader else None,
        strategy=strategy,
    )
    data = FoldData(_grades if is_grader else _fields, num_batches=1, validation=None)
    with tempfile.TemporaryDirectory() as folder:
        fitter.fit(data, Path(folder), seed=3)
        losses = [row["loss"] for row in json.loads((Path(folder) / "history.json").read_text())]
    total = float(sum(np.abs(array).sum() for array in fitter.model.get_weights()))
    print(json.dumps({"losses": losses, "weights": total, "replicas": strategy.num_replicas_in_sync}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
