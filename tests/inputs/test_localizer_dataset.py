from collections.abc import Callable

import numpy as np
import pytest

from lumbar_tf.config import AugmentationConfig, LocalizerConfig, TrainingConfig
from lumbar_tf.dicom.study import Slice
from lumbar_tf.inputs.crop_layout import localizer_rows
from lumbar_tf.inputs.localizer_dataset import make_localizer_eval_dataset, make_localizer_train_dataset
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
def test_localizer_batches_hold_fields_and_points(cohort: Cohort, plane: Plane, count: int) -> None:
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


def test_a_mirrored_stack_is_the_same_field_from_the_other_end(cohort: Cohort) -> None:
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
