import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from lumbar_tf.config import AugmentationConfig, LocalizerConfig, TrainingConfig
from lumbar_tf.dicom.geometry import pixel_to_patient
from lumbar_tf.dicom.study import Slice
from lumbar_tf.inputs.augmentation import random_warp
from lumbar_tf.inputs.crop_layout import localizer_rows
from lumbar_tf.inputs.crops import identity_warp
from lumbar_tf.inputs.localizer_dataset import (
    FieldOfView,
    cut_localizer_inputs,
    make_localizer_eval_dataset,
    make_localizer_train_dataset,
    select_stack,
)
from lumbar_tf.inputs.slice_decoding import decode_slices
from lumbar_tf.labels import Plane
from tests.inputs.made_records import Cohort, write_cohort

TRAINING = TrainingConfig(
    epochs=1, batch_studies=2, learning_rate=1e-3, augmentation=AugmentationConfig(shift_mm=2, drop_slice=0.2)
)
LOCALIZER = LocalizerConfig(
    backbone="csp_darknet_narrow", side_mm=64.0, side_px=32, supersample=1, num_slices=5, training=TRAINING
)


@pytest.fixture(scope="module")
def cohort(
    tmp_path_factory: pytest.TempPathFactory,
    make_stack: Callable[..., list[Slice]],
    mirror: Callable[[Slice], Slice],
) -> Cohort:
    return write_cohort(tmp_path_factory.mktemp("records"), make_stack, mirror)


@pytest.mark.parametrize(("plane", "count"), [(Plane.SAGITTAL_T2, 5), (Plane.SAGITTAL_T1, 10)])
def test_localizer_batches_contain_inputs_and_points(cohort: Cohort, plane: Plane, count: int) -> None:
    rows = localizer_rows(plane)
    train = make_localizer_train_dataset(
        cohort.source(plane, "10", "11", "12"), rows=rows, config=LOCALIZER, seed=0
    )
    inputs, points = train.element_spec
    assert inputs["image"].shape == (2, 5, 32, 32)
    assert inputs["mask"].shape == inputs["lateral_mm"].shape == (2, 5)
    assert inputs["origin"].shape == inputs["right"].shape == inputs["down"].shape == (2, 5, 3)
    assert points.shape == (2, count, 3)
    assert len(list(train.take(3))) == 3
    evaluation = make_localizer_eval_dataset(
        cohort.source(plane, "10", "11", "12", "14"), rows=rows, config=LOCALIZER, batch_studies=2
    )
    batches = [(points.numpy(), studies.numpy().tolist()) for _, points, studies in evaluation]
    assert [studies for _, studies in batches] == [[b"10", b"11"], [b"12"]]
    expected = cohort.points["12"].copy()
    expected[3] = np.nan
    np.testing.assert_array_equal(batches[1][0][0], expected[list(rows)])


def test_mirrored_stack_gives_the_inputs_in_reverse_order(cohort: Cohort) -> None:
    rows = localizer_rows(Plane.SAGITTAL_T2)
    source = cohort.source(Plane.SAGITTAL_T2, "10", "mirrored")
    ((field, _, _),) = make_localizer_eval_dataset(source, rows=rows, config=LOCALIZER, batch_studies=2)
    plain, mirrored = (
        {name: value[study].numpy()[:: 1 - 2 * study] for name, value in field.items()} for study in range(2)
    )
    np.testing.assert_allclose(mirrored["image"], plain["image"], atol=1e-5)
    np.testing.assert_allclose(mirrored["lateral_mm"], -plain["lateral_mm"], atol=1e-4)
    for name in ("origin", "right", "down"):
        np.testing.assert_allclose(mirrored[name], plain[name] * [-1, 1, 1], atol=1e-4)


Stacks = Callable[..., list[Slice]]
Store = Callable[[Slice, str], Slice]
Records = Callable[[Plane, list[Slice]], dict[str, tf.Tensor]]

ORDERS = ("plain", "columns", "rows", "transposed")


@pytest.mark.parametrize(
    ("count", "num_slices"), [(18, 13), (17, 13), (30, 13), (8, 1), (7, 1), (20, 4), (9, 9), (5, 9)]
)
def test_reversed_stack_gives_the_same_slices(
    make_stack: Stacks,
    mirror: Callable[[Slice], Slice],
    make_record: Records,
    count: int,
    num_slices: int,
) -> None:
    slices = [
        Slice(
            type(image_slice.geometry)(
                (image_slice.geometry.position[0] + 1.25, *image_slice.geometry.position[1:]),
                image_slice.geometry.row_direction,
                image_slice.geometry.column_direction,
                1.3,
                1.1,
                4,
                4,
            ),
            image_slice.pixels,
            "1",
            1,
        )
        for image_slice in make_stack(Plane.SAGITTAL_T2, size=4, count=count)
    ]
    index, mask = select_stack(make_record(Plane.SAGITTAL_T2, slices), num_slices)
    other, _ = select_stack(
        make_record(Plane.SAGITTAL_T2, [mirror(image_slice) for image_slice in slices]), num_slices
    )
    chosen = index.numpy()[mask]
    assert len(chosen) == min(count, num_slices)
    assert len(set(chosen.tolist())) == len(chosen)
    assert chosen.tolist() == (count - 1 - other.numpy()[mask])[::-1].tolist()


def test_the_largest_stack_is_chosen(make_stack: Stacks, make_record: Records) -> None:
    slices = [
        *make_stack(Plane.SAGITTAL_T2, size=4, count=2, series_id="1"),
        *make_stack(Plane.SAGITTAL_T2, size=4, count=5, series_id="2"),
    ]
    index, mask = select_stack(make_record(Plane.SAGITTAL_T2, slices), 7)
    assert index.numpy()[mask].tolist() == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("seed", [None, 1, 2])
def test_bright_spot_lies_at_its_patient_position(
    make_stack: Stacks, store: Store, make_record: Records, order: str, seed: int | None
) -> None:
    spec = FieldOfView(side_mm=64.0, side_px=32, supersample=2, num_slices=5)
    slices, column, row = make_stack(Plane.SAGITTAL_T2, tilt=9.0, size=48, count=5), 30.0, 19.0
    truth = pixel_to_patient(slices[3].geometry, (column, row))
    along, across = np.mgrid[:48, :48]
    spot = np.rint(1000 * np.exp(-((across - column) ** 2 + (along - row) ** 2) / (2 * 2.5**2)))
    painted = [
        Slice(image_slice.geometry, (spot if place == 3 else spot * 0).astype(np.float32), "1", 1)
        for place, image_slice in enumerate(slices)
    ]
    record = make_record(Plane.SAGITTAL_T2, [store(image_slice, order) for image_slice in painted])
    config = AugmentationConfig(rotation_deg=25, zoom=0.2, shift_mm=5)
    warp = identity_warp() if seed is None else random_warp(tf.constant([seed, 0]), config)
    field = cut_localizer_inputs(decode_slices(record, tf.range(5)), field=spec, warp=warp)
    assert field.image.shape == (5, 32, 32)
    bright = np.maximum(field.image.numpy() - 0.05, 0)
    assert bright.sum(axis=(1, 2)).argmax() == 3
    offset = np.arange(32) - 31 / 2
    i = (bright[3].sum(axis=0) * offset).sum() / bright[3].sum()
    j = (bright[3].sum(axis=1) * offset).sum() / bright[3].sum()
    found = field.origin[3].numpy() + i * field.right[3].numpy() + j * field.down[3].numpy()
    np.testing.assert_allclose(found, truth, atol=0.5)


def test_lateral_offsets_are_patient_x_from_the_middle_of_the_stack(
    make_stack: Stacks, make_record: Records
) -> None:
    record = make_record(Plane.SAGITTAL_T1, make_stack(Plane.SAGITTAL_T1, count=3, size=8))
    spec = FieldOfView(side_mm=32.0, side_px=32, supersample=1, num_slices=5)
    field = cut_localizer_inputs(decode_slices(record, tf.range(3)), field=spec, warp=identity_warp())
    assert field.mask.numpy().tolist() == [True, True, True, False, False]
    np.testing.assert_allclose(field.lateral_mm, [-4, 0, 4, 0, 0], atol=1e-4)
    assert not field.image.numpy()[3:].any()


def test_more_slices_on_one_side_do_not_move_the_middle_of_the_stack(
    make_stack: Stacks, make_record: Records
) -> None:
    stack = make_stack(Plane.SAGITTAL_T1, count=9, size=8)
    record = make_record(Plane.SAGITTAL_T1, [stack[place] for place in (0, 1, 2, 8)])
    spec = FieldOfView(side_mm=32.0, side_px=32, supersample=1, num_slices=5)
    field = cut_localizer_inputs(decode_slices(record, tf.range(4)), field=spec, warp=identity_warp())
    np.testing.assert_allclose(field.lateral_mm, [-16, -12, -8, 16, 0], atol=1e-4)


def test_covers_image_is_independent_of_the_pixel_spacing(make_stack: Stacks, make_record: Records) -> None:
    spec = FieldOfView(side_mm=10.0, side_px=32, supersample=2, num_slices=1, covers_image=True)
    (plain,) = make_stack(Plane.SAGITTAL_T2, size=48, count=1)
    pixels = np.random.default_rng(0).random((48, 48)).astype(np.float32) * 900
    fields = []
    for scale in (1.0, 2.5):
        geometry = dataclasses.replace(
            plain.geometry,
            row_spacing_mm=plain.geometry.row_spacing_mm * scale,
            column_spacing_mm=plain.geometry.column_spacing_mm * scale,
        )
        record = make_record(
            Plane.SAGITTAL_T2, [dataclasses.replace(plain, geometry=geometry, pixels=pixels)]
        )
        fields.append(
            cut_localizer_inputs(decode_slices(record, tf.range(1)), field=spec, warp=identity_warp())
        )
    np.testing.assert_allclose(fields[0].image, fields[1].image, atol=1e-3)
    np.testing.assert_allclose(fields[1].right, 2.5 * fields[0].right, rtol=1e-5)
    longest = 48 * max(plain.geometry.row_spacing_mm, plain.geometry.column_spacing_mm)
    assert float(tf.norm(fields[0].down[0])) == pytest.approx(longest / 32, rel=1e-5)
