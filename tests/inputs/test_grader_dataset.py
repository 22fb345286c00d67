from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from lumbar_tf.config import AugmentationConfig, CropConfig, TrainingConfig
from lumbar_tf.dicom.study import Slice
from lumbar_tf.inputs.crop_layout import CropLayout
from lumbar_tf.inputs.grader_dataset import make_grader_eval_dataset, make_grader_train_dataset
from lumbar_tf.inputs.slice_decoding import PixelWindow, whole_window, window_around
from lumbar_tf.inputs.slice_selection import Record
from lumbar_tf.labels import Family, Plane, mirror_indices
from tests.inputs.made_records import Cohort, made_labels, write_cohort

CROP = CropConfig(side_mm=20.0, side_px=16, num_slices=3, max_distance_mm=8.0)
TRAINING = TrainingConfig(
    epochs=1, batch_studies=2, learning_rate=1e-3, augmentation=AugmentationConfig(shift_mm=2, drop_slice=0.2)
)
FORAMINA = CropLayout(Plane.SAGITTAL_T1, (Family.FORAMINAL,))
AXIAL = CropLayout(Plane.AXIAL_T2, (Family.CANAL, Family.SUBARTICULAR))


def _targets(place: int, layout: CropLayout) -> np.ndarray:
    """Returns one-hot labels of the target rows; all zeros for a missing label, -1."""
    return (made_labels(place)[list(layout.rows), None] == np.arange(3)).astype(np.float32)


@pytest.fixture(scope="module")
def cohort(
    tmp_path_factory: pytest.TempPathFactory,
    make_stack: Callable[..., list[Slice]],
    mirror: Callable[[Slice], Slice],
) -> Cohort:
    return write_cohort(tmp_path_factory.mktemp("records"), make_stack, mirror)


def _shape(tensor: tf.Tensor) -> list[int | None]:
    return tensor.shape.as_list()


def _train_dataset(cohort: Cohort, layout: CropLayout, *, seed: int) -> tf.data.Dataset:
    return make_grader_train_dataset(
        cohort.source(layout.plane, "11", "12", "13"),
        cohort.points,
        layout=layout,
        crop=CROP,
        training=TRAINING,
        jitter_mm=(1.0, 1.0, 1.0),
        seed=seed,
    )


@pytest.mark.parametrize(("layout", "rows"), [(FORAMINA, 10), (AXIAL, 15)])
def test_training_batches_are_full_static_and_of_the_wanted_studies(
    cohort: Cohort, layout: CropLayout, rows: int
) -> None:
    dataset = _train_dataset(cohort, layout, seed=3)
    inputs, labels = dataset.element_spec
    assert _shape(inputs["image"]) == [2, 10, 3, 16, 16]
    assert _shape(inputs["mask"]) == _shape(inputs["offset_mm"]) == [2, 10, 3]
    assert _shape(labels) == [2, rows, 3]
    allowed = [_targets(place, layout).tolist() for place in (1, 2, 3)]
    seen = []
    for inputs, labels in dataset.take(5):  # more than the three studies hold: it repeats
        assert np.isfinite(inputs["image"]).all()
        assert inputs["mask"].numpy().any()
        seen += labels.numpy().tolist()
    assert all(value in allowed for value in seen)
    assert all(value in seen for value in allowed)


def test_one_seed_gives_one_order_and_one_augmentation(cohort: Cohort) -> None:
    def first(seed: int) -> np.ndarray:
        dataset = _train_dataset(cohort, FORAMINA, seed=seed)
        return np.concatenate([inputs["image"] for inputs, _ in dataset.take(2)])

    np.testing.assert_array_equal(first(1), first(1))
    assert not np.array_equal(first(1), first(2))


def test_mixing_follows_the_batch_and_its_seed(cohort: Cohort) -> None:
    """With mixing the batches contain the same studies."""

    def first(**mixing: float) -> tuple[np.ndarray, np.ndarray]:
        augmentation = AugmentationConfig.nothing().model_copy(update=mixing)
        dataset = make_grader_train_dataset(
            cohort.source(Plane.AXIAL_T2, "11", "12", "13"),
            cohort.points,
            layout=AXIAL,
            crop=CROP,
            training=TRAINING.model_copy(update={"augmentation": augmentation}),
            jitter_mm=(0.0, 0.0, 0.0),
            seed=5,
        )
        inputs, targets = dataset.element_spec
        assert _shape(inputs["image"]) == [2, 10, 3, 16, 16]
        assert _shape(targets) == [2, 15, 3]
        ((inputs, targets),) = dataset.take(1)
        return inputs["image"].numpy(), targets.numpy()

    (plain, hard), (mixed, soft) = first(), first(mixup=1.0, mixup_alpha=5.0)
    for again, before in zip(first(mixup=1.0, mixup_alpha=5.0), (mixed, soft), strict=True):
        np.testing.assert_array_equal(again, before)
    # Of two studies each is the other's partner, and rows of one crop tell its share. The outer slices may
    # be one study's only.
    for row, views in enumerate(AXIAL.row_views):
        if sum(views) > 1:
            continue  # the canal, seen from both sides
        crop = views.index(True)
        (one, two), (own, other) = hard[:, row], plain[:, crop]
        if (one == two).all() or not one.any() or not two.any():
            continue
        share = soft[0, row] @ one
        assert 0 < share < 1
        np.testing.assert_allclose(soft[0, row], share * one + (1 - share) * two, atol=1e-5)
        np.testing.assert_allclose(mixed[0, crop, 1], (share * own + (1 - share) * other)[1], atol=1e-4)


def test_evaluation_keeps_every_wanted_study_with_slices_once(cohort: Cohort) -> None:
    dataset = make_grader_eval_dataset(
        cohort.source(Plane.AXIAL_T2, "14", "13", "10", "12"),
        cohort.points,
        layout=AXIAL,
        crop=CROP,
        batch_studies=2,
    )
    inputs, labels, _ = dataset.element_spec
    assert _shape(inputs["image"]) == [None, 10, 3, 16, 16]
    assert _shape(labels) == [None, 15, 3]
    batches = [(labels.numpy(), studies.numpy().tolist()) for _, labels, studies in dataset]
    assert [len(studies) for _, studies in batches] == [2, 1]
    rows = {
        study.decode(): row for labels, studies in batches for study, row in zip(studies, labels, strict=True)
    }
    assert set(rows) == {"10", "12", "13"}
    for place, study in ((0, "10"), (2, "12"), (3, "13")):
        np.testing.assert_array_equal(rows[study], _targets(place, AXIAL))
    assert any((row.sum(axis=-1) == 0).any() for row in rows.values())
    again = [studies.numpy().tolist() for _, _, studies in dataset]
    assert again == [studies for _, studies in batches], "the order depends on the files alone"


@pytest.mark.parametrize("layout", [FORAMINA, AXIAL])
def test_decoded_window_covers_augmented_crops(
    cohort: Cohort, layout: CropLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jittered, rotated and zoomed crops from windows equal those from whole slices."""
    changes = AugmentationConfig.nothing().model_copy(update={"rotation_deg": 90, "zoom": 0.5, "shift_mm": 2})
    windows = []

    def images(*, is_whole: bool) -> np.ndarray:
        def window(record: Record, points: tf.Tensor, **limits: float) -> PixelWindow:
            whole = whole_window(record)
            windows.append(limits["reach_mm"])
            return whole if is_whole else window_around(record, points, **limits)

        monkeypatch.setattr("lumbar_tf.inputs.slice_decoding.window_around", window)
        dataset = make_grader_train_dataset(
            cohort.source(layout.plane, "11", "12", "13"),
            cohort.points,
            layout=layout,
            crop=CROP.model_copy(update={"side_mm": 6.0}),
            training=TRAINING.model_copy(update={"augmentation": changes}),
            jitter_mm=(1.0, 1.0, 1.0),
            seed=3,
        )
        return np.stack([inputs["image"] for inputs, _ in dataset.take(12)])

    np.testing.assert_allclose(images(is_whole=False), images(is_whole=True), atol=3e-5)
    # Half a diagonal of 6 mm, half as much again, a shift along both axes, and four deviations along three.
    assert windows == [pytest.approx(np.sqrt(18) * 1.5 + np.sqrt(8) + 4 * np.sqrt(3))] * len(windows)


def test_without_landmarks_every_crop_is_masked(cohort: Cohort) -> None:
    dataset = make_grader_eval_dataset(
        cohort.source(Plane.AXIAL_T2, "10"), {}, layout=AXIAL, crop=CROP, batch_studies=4
    )
    ((inputs, _, studies),) = dataset
    assert studies.numpy().tolist() == [b"10"]
    assert not inputs["mask"].numpy().any()
    assert not inputs["image"].numpy().any()


@pytest.mark.parametrize("layout", [FORAMINA, AXIAL])
def test_a_mirrored_study_is_the_same_with_sides_swapped(cohort: Cohort, layout: CropLayout) -> None:
    dataset = make_grader_eval_dataset(
        cohort.source(layout.plane, "10", "mirrored"),
        cohort.points,
        layout=layout,
        crop=CROP,
        batch_studies=2,
    )
    ((inputs, labels, _),) = dataset
    swapped = np.arange(10).reshape(5, 2)[:, ::-1].ravel()
    for name, tolerance in (("image", 2e-4), ("mask", 0), ("offset_mm", 1e-4)):
        plain, mirrored = inputs[name].numpy().astype(np.float32)
        np.testing.assert_allclose(mirrored, plain[swapped], atol=tolerance)
    assert inputs["mask"].numpy().sum() >= 40
    rows = {row: place for place, row in enumerate(layout.rows)}
    other = [rows[mirror_indices()[row]] for row in layout.rows]
    np.testing.assert_array_equal(labels[1], labels.numpy()[0, other])


def test_training_uses_annotated_points_and_predicted_points_where_these_are_missing(cohort: Cohort) -> None:
    """Without augmentation a training crop is the evaluation crop at the annotated points."""
    nothing = AugmentationConfig(rotation_deg=0, zoom=0, brightness=0, contrast=0, gamma=0, noise=0)
    layout = CropLayout(Plane.SAGITTAL_T2, (Family.CANAL,))
    source = cohort.source(Plane.SAGITTAL_T2, "10")
    wrong = {"10": cohort.points["10"] + np.float32([0, 3, 0])}
    training = TRAINING.model_copy(update={"augmentation": nothing})
    ((trained, _),) = make_grader_train_dataset(
        source, wrong, layout=layout, crop=CROP, training=training, jitter_mm=(0.0, 0.0, 0.0), seed=0
    ).take(1)
    expected = cohort.points["10"].copy()
    expected[3] = wrong["10"][3]  # nobody annotated this one
    ((plain, _, _),) = make_grader_eval_dataset(
        source, {"10": expected}, layout=layout, crop=CROP, batch_studies=1
    )
    np.testing.assert_allclose(trained["image"], plain["image"], atol=1e-5)
    np.testing.assert_array_equal(trained["mask"], plain["mask"])
