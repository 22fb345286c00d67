import keras
import numpy as np
import pytest

from lumbar_tf.config import CropConfig, GraderConfig, TrainingConfig
from lumbar_tf.data.anchors import CropLayout
from lumbar_tf.labels import Family, Plane, mirror_indices
from lumbar_tf.models.grader import build_grader, log_probabilities

CANAL = CropLayout(Plane.SAGITTAL_T2, (Family.CANAL,))
AXIAL = CropLayout(Plane.AXIAL_T2, (Family.CANAL, Family.SUBARTICULAR))
SWAPPED = np.arange(10).reshape(5, 2)[:, ::-1].ravel()


def _build(layout: CropLayout, num_slices: int = 3) -> keras.Model:
    config = GraderConfig(
        backbones=("csp_darknet_narrow",),
        targets=layout.targets,
        crop=CropConfig(side_mm=40.0, side_px=32, num_slices=num_slices),
        dropout=0.5,
        training=TrainingConfig(epochs=1, batch_studies=2, learning_rate=1e-3),
    )
    keras.utils.set_random_seed(0)
    model = build_grader("csp_darknet_narrow", config, layout)
    _settle(model, _inputs(layout, num_slices))
    return model


def _settle(model: keras.Model, inputs: dict[str, np.ndarray]) -> None:
    """Takes batch normalisation's statistics from one batch: with fresh ones features fade with depth."""
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(inputs, training=True)


@pytest.fixture(scope="module")
def axial() -> keras.Model:
    return _build(AXIAL)


@pytest.fixture(scope="module")
def canal() -> keras.Model:
    return _build(CANAL)


def _inputs(layout: CropLayout, num_slices: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    crops = len(layout.sides)
    # Each crop has a pattern and a brightness of its own.
    image = rng.random((2, crops, num_slices, 32, 32)) ** rng.uniform(0.2, 4, (2, crops, num_slices, 1, 1))
    offset = np.arange(num_slices) * 4.0 - 2.0 * (num_slices - 1) + rng.normal(0, 1, (2, crops, 1))
    return {
        "image": image.astype(np.float32),
        "mask": np.ones((2, crops, num_slices), np.bool_),
        "offset_mm": offset.astype(np.float32),
    }


def _answer(model: keras.Model, inputs: dict[str, np.ndarray]) -> np.ndarray:
    return model(inputs, training=False).numpy()


@pytest.mark.parametrize(("name", "layout"), [("axial", AXIAL), ("canal", CANAL)])
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


def test_mirrored_inputs_swap_left_and_right_and_keep_the_canal(axial: keras.Model) -> None:
    inputs = _inputs(AXIAL)
    inputs["mask"][0, 3, 0] = False
    swapped = {name: value[:, SWAPPED] for name, value in inputs.items()}
    plain, mirrored = _answer(axial, inputs), _answer(axial, swapped)
    rows = {row: place for place, row in enumerate(AXIAL.rows)}
    other = [rows[mirror_indices()[row]] for row in AXIAL.rows]
    np.testing.assert_allclose(mirrored, plain[:, other], atol=1e-5)
    assert np.abs(plain[:, 5:10] - plain[:, 10:15]).max() > 1e-3  # the sides differ


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


def test_a_single_slice_needs_no_attention() -> None:
    model = _build(CANAL, num_slices=1)
    assert not [layer for layer in model.layers if layer.name.startswith("attention")]
    assert _answer(model, _inputs(CANAL, 1)).shape == (2, 5, 3)


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
