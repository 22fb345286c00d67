from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from lumbar_tf.config import CropConfig, GraderConfig, TrainingConfig
from lumbar_tf.inputs.crop_layout import CropLayout
from lumbar_tf.labels import Family, Plane, mirror_indices
from lumbar_tf.models.backbones import load_weights
from lumbar_tf.models.fold_ensemble import FoldEnsemble
from lumbar_tf.models.grader import build_grader, freeze_features, log_probabilities
from lumbar_tf.models.keras_compat import flatten_layers
from lumbar_tf.models.losses import build_loss

T1_CANAL = CropLayout(Plane.SAGITTAL_T1, (Family.CANAL, Family.FORAMINAL))
CANAL = CropLayout(Plane.SAGITTAL_T2, (Family.CANAL,))
AXIAL = CropLayout(Plane.AXIAL_T2, (Family.CANAL, Family.SUBARTICULAR))
SWAPPED = np.arange(10).reshape(5, 2)[:, ::-1].ravel()


def _config(layout: CropLayout, num_slices: int = 3, **changes: Any) -> GraderConfig:
    usual = {
        "backbones": ("densenet_tiny",),
        "targets": layout.targets,
        "crop": CropConfig(side_mm=40.0, side_px=32, num_slices=num_slices),
        "dropout": 0.5,
        "training": TrainingConfig(epochs=1, batch_studies=2, learning_rate=1e-3),
    }
    return GraderConfig(**{**usual, **changes})


def _fresh(layout: CropLayout, num_slices: int = 3, **changes: Any) -> keras.Model:
    keras.utils.set_random_seed(0)
    return build_grader("densenet_tiny", _config(layout, num_slices, **changes), layout)


def _build(layout: CropLayout, **changes: Any) -> keras.Model:
    model = _fresh(layout, **changes)
    _settle(model, _inputs(layout))
    return model


def _settle(model: keras.Model, inputs: dict[str, np.ndarray]) -> None:
    """Takes batch normalisation's statistics from one batch: with fresh ones features fade with depth."""
    for layer in flatten_layers(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(inputs, training=True)


@pytest.fixture(scope="module")
def axial() -> keras.Model:
    return _build(AXIAL)


@pytest.fixture(scope="module")
def canal() -> keras.Model:
    return _build(CANAL)


@pytest.fixture(scope="module")
def wired() -> keras.Model:
    """One input channel, a recurrent network over slices, and context across levels that says something."""
    model = _build(T1_CANAL, pooling="recurrent", level_context=True, channels=1)
    last = model.get_layer("context_out")
    last.kernel.assign(np.random.default_rng(0).normal(0, 0.3, last.kernel.shape))
    return model


def _inputs(layout: CropLayout, num_slices: int = 3, *, side_px: int = 32) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    crops = len(layout.sides)
    # Each crop has a pattern and a brightness of its own.
    shape = (2, crops, num_slices, side_px, side_px)
    image = rng.random(shape) ** rng.uniform(0.2, 4, (2, crops, num_slices, 1, 1))
    offset = np.arange(num_slices) * 4.0 - 2.0 * (num_slices - 1) + rng.normal(0, 1, (2, crops, 1))
    return {
        "image": image.astype(np.float32),
        "mask": np.ones((2, crops, num_slices), np.bool_),
        "offset_mm": offset.astype(np.float32),
    }


def _answer(model: keras.Model, inputs: dict[str, np.ndarray]) -> np.ndarray:
    return model(inputs, training=False).numpy()


@pytest.mark.parametrize(("name", "layout"), [("axial", AXIAL), ("canal", CANAL), ("wired", T1_CANAL)])
def test_a_masked_slice_does_not_change_the_answer(
    request: pytest.FixtureRequest, name: str, layout: CropLayout
) -> None:
    model = request.getfixturevalue(name)
    inputs = _inputs(layout)
    inputs["mask"][:, :, 2] = False
    before = _answer(model, inputs)
    inputs["image"][:, :, 2] = 0.9
    inputs["offset_mm"][:, :, 2] = 500.0
    np.testing.assert_array_equal(_answer(model, inputs), before)
    inputs["mask"][:, :, 2] = True
    assert np.abs(_answer(model, inputs) - before).max() > 1e-3


@pytest.mark.parametrize(("name", "layout"), [("axial", AXIAL), ("wired", T1_CANAL)])
def test_mirrored_inputs_swap_left_and_right_and_keep_the_canal(
    request: pytest.FixtureRequest, name: str, layout: CropLayout
) -> None:
    model = request.getfixturevalue(name)
    inputs = _inputs(layout)
    inputs["mask"][0, 3, 0] = False
    inputs["mask"][1, 4] = False
    swapped = {name: value[:, SWAPPED] for name, value in inputs.items()}
    plain, mirrored = _answer(model, inputs), _answer(model, swapped)
    rows = {row: place for place, row in enumerate(layout.rows)}
    other = [rows[mirror_indices()[row]] for row in layout.rows]
    np.testing.assert_allclose(mirrored, plain[:, other], atol=1e-5)
    assert np.abs(plain[:, 5:10] - plain[:, 10:15]).max() > 1e-3  # the sides differ


@pytest.mark.parametrize("name", ["axial", "wired"])
def test_a_side_without_a_slice_tells_the_canal_nothing(request: pytest.FixtureRequest, name: str) -> None:
    layout = AXIAL if name == "axial" else T1_CANAL
    model = request.getfixturevalue(name)
    inputs = _inputs(layout)
    inputs["mask"][:, 6] = False  # L4/L5, the left side
    before = _answer(model, inputs)
    inputs["image"][:, 6] = 0.7
    inputs["offset_mm"][:, 6] = 33.0
    np.testing.assert_array_equal(_answer(model, inputs)[:, :5], before[:, :5])
    rows = log_probabilities(before, inputs["mask"], layout).numpy()
    assert np.isfinite(rows[:, 3]).all()
    left = {row for row in layout.rows if row % 5 == 3 and row in (8, 18)}
    assert np.isnan(rows[:, list(left)]).all()
    # With the other side alone, the canal is graded on that side's view.
    inputs["mask"][:, 6], inputs["mask"][:, 7] = True, True
    for key in inputs:
        inputs[key][:, 6] = inputs[key][:, 7]
    if name == "axial":
        np.testing.assert_allclose(_answer(model, inputs)[:, 3], before[:, 3], atol=1e-5)


def test_a_canal_seen_from_the_other_end_of_the_stack_is_the_same(canal: keras.Model) -> None:
    inputs = _inputs(CANAL)
    inputs["mask"][1, 2, 0] = False
    turned = {name: value[:, :, ::-1] for name, value in inputs.items()}
    turned["offset_mm"] = -turned["offset_mm"]
    np.testing.assert_allclose(_answer(canal, turned), _answer(canal, inputs), atol=1e-5)


def test_levels_do_not_look_at_each_other(canal: keras.Model) -> None:
    inputs = _inputs(CANAL)
    before = _answer(canal, inputs)
    inputs["image"][:, 3] = 0.1
    changed = np.abs(_answer(canal, inputs) - before).max(axis=(0, 2)) > 1e-5
    assert changed.tolist() == [False, False, False, True, False]


def test_with_context_levels_look_at_their_neighbours_alone(wired: keras.Model) -> None:
    inputs = _inputs(T1_CANAL)
    before = _answer(wired, inputs)
    inputs["image"][:, 0] = 0.1  # L1/L2, the left side
    changed = np.abs(_answer(wired, inputs) - before).max(axis=(0, 2)).reshape(3, 5) > 1e-5
    # The neighbour below and the other side hear of it; L3/L4 and further down do not.
    assert changed.tolist() == [[True, True, False, False, False]] * 3


def test_untrained_context_changes_nothing(canal: keras.Model) -> None:
    context = _fresh(CANAL, level_context=True)
    for layer in (layer for layer in canal.layers if layer.weights and not isinstance(layer, keras.Model)):
        context.get_layer(layer.name).set_weights(layer.get_weights())
    backbones = [
        next(layer for layer in model.layers if isinstance(layer, keras.Model)) for model in (context, canal)
    ]
    backbones[0].set_weights(backbones[1].get_weights())
    np.testing.assert_allclose(_answer(context, _inputs(CANAL)), _answer(canal, _inputs(CANAL)), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["axial", "wired"])
def test_every_variable_learns_in_a_compiled_graph_with_static_shapes(
    request: pytest.FixtureRequest, name: str
) -> None:
    layout = AXIAL if name == "axial" else T1_CANAL
    model = request.getfixturevalue(name)
    inputs = {key: tf.constant(value) for key, value in _inputs(layout).items()}
    targets = tf.one_hot(np.arange(2 * len(layout.rows)).reshape(2, -1) % 3, 3)
    loss = build_loss("metric", layout.rows)

    @tf.function(jit_compile=True)
    def step() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            value = loss(targets, model(inputs, training=False))
        return tape.gradient(value, model.trainable_variables)

    gradients = step()
    still = [
        variable.path
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True)
        if gradient is None or not np.any(gradient) or not np.isfinite(gradient).all()
    ]
    assert not still


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["densenet_tiny", "mit_b0"])
def test_a_grader_with_everything_answers_the_same_from_a_saved_model(backbone: str, tmp_path: Path) -> None:
    # As the ensemble is exported: two folds' weights under one traced graph.
    config = _config(
        T1_CANAL,
        pooling="recurrent",
        level_context=True,
        channels=1,
        crop=CropConfig(side_mm=40.0, side_px=48, num_slices=3),
    )
    model = build_grader(backbone, config, T1_CANAL)
    paths = [tmp_path / f"{fold}.weights.h5" for fold in range(2)]
    inputs = {key: tf.constant(value) for key, value in _inputs(T1_CANAL, side_px=48).items()}
    expected = []
    for path in paths:
        for weight in model.weights:
            weight.assign(np.asarray(weight) * 1.1)
        model.save_weights(path)
        expected.append(_answer(model, inputs))
    assert np.abs(expected[0] - expected[1]).max() > 1e-3
    folded = FoldEnsemble(model, paths)
    module = tf.Module()
    module.parameters = folded.parameters
    module.ask = tf.function(
        lambda image, mask, offset_mm: folded({"image": image, "mask": mask, "offset_mm": offset_mm}),
        input_signature=[tf.TensorSpec([None, *value.shape[1:]], value.dtype) for value in inputs.values()],
    )
    tf.saved_model.save(module, str(tmp_path / "model"))
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    np.testing.assert_allclose(loaded.ask(**inputs), expected, atol=1e-4)


def test_with_frozen_features_the_heads_alone_learn(axial: keras.Model, tmp_path: Path) -> None:
    path = tmp_path / "first.weights.h5"
    axial.save_weights(path)
    model = freeze_features(_fresh(AXIAL))
    load_weights(model, path)
    model.compile(keras.optimizers.SGD(0.1), loss=build_loss("weighted", AXIAL.rows), jit_compile=False)
    targets = np.eye(3, dtype=np.float32)[np.arange(30).reshape(2, 15) % 3]
    model.fit(_inputs(AXIAL), targets, batch_size=2, epochs=1, verbose=0)
    moved = {
        after.path
        for before, after in zip(axial.weights, model.weights, strict=True)
        if np.any(before.numpy() != after.numpy())
    }
    assert {path.split("/")[-2] for path in moved} == {"head_canal", "head_subarticular"}


def test_a_grader_does_not_start_from_another_ones_weights(axial: keras.Model, tmp_path: Path) -> None:
    path = tmp_path / "other.weights.h5"
    axial.save_weights(path)
    with pytest.raises(
        ValueError, match=r"other\.weights\.h5 does not hold weights of sagittal_t2_densenet_tiny"
    ):
        load_weights(_fresh(CANAL, num_slices=1), path)


def test_three_channel_weights_serve_a_one_channel_grader(canal: keras.Model, tmp_path: Path) -> None:
    path = tmp_path / "colour.weights.h5"
    base = next(layer for layer in canal.layers if isinstance(layer, keras.Model))
    base.save_weights(path)
    grey = build_grader("densenet_tiny", _config(CANAL, channels=1), CANAL, weights=str(path))
    for layer in grey.layers:
        if not isinstance(layer, keras.Model):
            layer.set_weights(canal.get_layer(layer.name).get_weights() if layer.weights else [])
    np.testing.assert_allclose(_answer(grey, _inputs(CANAL)), _answer(canal, _inputs(CANAL)), atol=1e-4)


def test_an_auxiliary_head_learns_and_never_answers() -> None:
    layout = CropLayout(Plane.AXIAL_T2, (Family.SUBARTICULAR,), (Family.CANAL,))
    model, inputs = _build(layout, auxiliary=layout.auxiliary), _inputs(layout)
    with tf.GradientTape() as tape:
        logits = model(inputs, training=True)
        loss = build_loss("weighted", layout.rows)(tf.one_hot(tf.ones(logits.shape[:2], tf.int32), 3), logits)
    assert logits.shape == (2, 15, 3)
    gradient = tape.gradient(loss, model.get_layer("head_canal").kernel.value)
    assert np.abs(gradient).max() > 0
    answered = np.isfinite(log_probabilities(logits, inputs["mask"], layout)).all(axis=(0, 2))
    np.testing.assert_array_equal(np.flatnonzero(answered), range(15, 25))


def test_answers_go_to_their_rows_and_unseen_ones_are_nan(axial: keras.Model) -> None:
    inputs = _inputs(AXIAL)
    inputs["mask"][0, 4:6] = False  # L3/L4, both sides
    inputs["mask"][1, 9] = False  # L5/S1, the right side
    logits = _answer(axial, inputs)
    rows = log_probabilities(logits, inputs["mask"], AXIAL).numpy()
    assert rows.shape == (2, 25, 3)
    seen = np.isfinite(rows).all(axis=-1)
    expected = np.zeros((2, 25), np.bool_)
    expected[:, list(AXIAL.rows)] = True
    expected[0, [2, 17, 22]] = False
    expected[1, 24] = False
    np.testing.assert_array_equal(seen, expected)
    np.testing.assert_allclose(np.exp(rows[seen]).sum(axis=-1), 1, atol=1e-5)
    exponentials = np.exp(logits[1, 6])
    np.testing.assert_allclose(np.exp(rows[1, 16]), exponentials / exponentials.sum(), atol=1e-5)
