"""The train step of both networks compiles with XLA."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from lumbar_tf.config import CropConfig, GraderConfig, LocalizerConfig, TrainingConfig
from lumbar_tf.inputs.crop_layout import CropLayout
from lumbar_tf.labels import Family, Plane
from lumbar_tf.models.grader import build_grader
from lumbar_tf.models.localizer import build_localizer
from lumbar_tf.models.losses import build_loss
from lumbar_tf.training.fitter import Fitter, FoldData

TRAINING = TrainingConfig(
    epochs=1,
    batch_studies=2,
    learning_rate=1e-3,
    ema_momentum=0.9,
    validate_every=0,
    board_pictures=False,
)
BACKBONE = "densenet_tiny"


def _grader(training: TrainingConfig) -> tuple[Fitter, tf.data.Dataset]:
    layout = CropLayout(Plane.SAGITTAL_T2, (Family.CANAL,))
    config = GraderConfig(
        backbones=(BACKBONE,),
        targets=(Family.CANAL,),
        crop=CropConfig(side_mm=40, side_px=32, num_slices=3),
        dropout=0.0,  # XLA draws other numbers
        training=training,
    )
    fitter = Fitter(
        lambda: build_grader(BACKBONE, config, layout),
        training=training,
        loss=build_loss("metric", layout.rows),
        strategy=tf.distribute.get_strategy(),
    )
    rng = np.random.default_rng(0)
    shape = (4, len(layout.sides), 3)
    inputs = {
        "image": rng.random((*shape, 32, 32)).astype(np.float32),
        "mask": np.ones(shape, np.bool_),
        "offset_mm": np.zeros(shape, np.float32),
    }
    targets = np.eye(3, dtype=np.float32)[rng.integers(0, 3, (4, len(layout.rows)))]
    return fitter, tf.data.Dataset.from_tensor_slices((inputs, targets))


def _localizer(training: TrainingConfig) -> tuple[Fitter, tf.data.Dataset]:
    config = LocalizerConfig(
        backbone=BACKBONE, side_px=32, num_slices=3, decoder_channels=8, training=training
    )
    fitter = Fitter(
        lambda: build_localizer(config, Plane.SAGITTAL_T1),
        training=training,
        loss=None,
        strategy=tf.distribute.get_strategy(),
    )
    rng = np.random.default_rng(0)
    inputs = {
        "image": rng.random((4, 3, 32, 32)).astype(np.float32),
        "mask": np.ones((4, 3), np.bool_),
        **{name: rng.normal(size=(4, 3, 3)).astype(np.float32) for name in ("origin", "right", "down")},
        "lateral_mm": np.zeros((4, 3), np.float32),
    }
    points = rng.normal(size=(4, 10, 3)).astype(np.float32)
    return fitter, tf.data.Dataset.from_tensor_slices((inputs, points))


@pytest.mark.slow
@pytest.mark.parametrize("make", [_grader, _localizer])
def test_compiled_step_equals_the_plain_step(make: object, tmp_path: Path) -> None:
    losses = {}
    for is_compiled in (False, True):
        fitter, examples = make(TRAINING.model_copy(update={"jit_compile": is_compiled}))  # type: ignore[operator]
        assert fitter.model.jit_compile is is_compiled
        batches = examples.batch(2, drop_remainder=True).repeat()
        folder = tmp_path / str(is_compiled)
        fitter.fit(FoldData(lambda _, batches=batches: batches, 2, None), folder, seed=0)
        losses[is_compiled] = json.loads((folder / "history.json").read_text())[0]["loss"]
    assert np.isfinite(losses[True])
    # Of two steps: the order of sums differs, and Adam makes whole steps of the rounding.
    assert losses[True] == pytest.approx(losses[False], rel=5e-3)
