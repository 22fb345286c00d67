"""Order of training studies: a function of seed and epoch, so that a run can resume at any epoch."""

from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from lumbar_tf.config import AugmentationConfig, CropConfig, LocalizerConfig, TrainingConfig
from lumbar_tf.dicom.study import Slice
from lumbar_tf.inputs.crop_layout import CropLayout, localizer_rows
from lumbar_tf.inputs.grader_dataset import make_grader_train_dataset
from lumbar_tf.inputs.localizer_dataset import make_localizer_train_dataset
from lumbar_tf.inputs.record_source import RecordSource
from lumbar_tf.inputs.study_batches import batches_per_epoch, shuffle_studies
from lumbar_tf.labels import Family, Plane
from lumbar_tf.records.schema import encode_plane

STUDIES = ("a", "b", "c", "d", "e")
TARGETS = {
    Plane.SAGITTAL_T1: (Family.FORAMINAL,),
    Plane.SAGITTAL_T2: (Family.CANAL,),
    Plane.AXIAL_T2: (Family.CANAL, Family.SUBARTICULAR),
}
TRAINING = TrainingConfig(
    epochs=3,
    batch_studies=2,
    learning_rate=0.1,
    augmentation=AugmentationConfig(shift_mm=3, drop_slice=0.3, mixup=0.4, noise=0.1),
)


@pytest.fixture(scope="module")
def shards(
    tmp_path_factory: pytest.TempPathFactory, make_stack: Callable[..., list[Slice]]
) -> dict[Plane, Path]:
    """Each study's points are its own; "empty" has no slice."""
    folder = tmp_path_factory.mktemp("shards")
    found = {}
    for plane in Plane:
        found[plane] = folder / f"{plane.value}.tfrecord"
        slices = make_stack(plane, tilt=5.0, size=40, count=7)
        with tf.io.TFRecordWriter(str(found[plane])) as writer:
            for place, study in enumerate((*STUDIES, "empty")):
                points = np.full((25, 3), place, np.float32)
                labels = np.random.default_rng(place).integers(-1, 3, 25)
                kept = [] if study == "empty" else slices
                writer.write(encode_plane(study, plane, kept, labels=labels, points=points))
    return found


def _train(
    shards: dict[Plane, Path], plane: Plane, *, start_epoch: int = 0, cache: bool = False
) -> tf.data.Dataset:
    return make_grader_train_dataset(
        RecordSource((shards[plane],), STUDIES),
        {},
        layout=CropLayout(plane, TARGETS[plane]),
        crop=CropConfig(side_mm=20.0, side_px=16, num_slices=3),
        training=TRAINING.model_copy(update={"cache": cache}),
        jitter_mm=(1.0, 1.0, 1.0),
        seed=9,
        start_epoch=start_epoch,
    )


def _batches(dataset: tf.data.Dataset, count: int) -> list[list[np.ndarray]]:
    return [[array.numpy() for array in tf.nest.flatten(batch)] for batch in dataset.take(count)]


@pytest.mark.parametrize("cache", [False, True])
def test_later_start_epoch_gives_the_batches_of_the_whole_run(shards: dict[Plane, Path], cache: bool) -> None:
    assert batches_per_epoch(5, 2) == 2
    whole = _batches(_train(shards, Plane.SAGITTAL_T1, cache=cache), 8)
    for epoch in (1, 3):
        tf.random.set_seed(epoch)  # what others do to the process changes nothing
        late = _batches(_train(shards, Plane.SAGITTAL_T1, cache=not cache, start_epoch=epoch), 8 - 2 * epoch)
        for batch, expected in zip(late, whole[2 * epoch :], strict=True):
            for one, other in zip(batch, expected, strict=True):
                np.testing.assert_array_equal(one, other)
    assert len({batch[0].tobytes() for batch in whole}) == 8


def test_masked_slices_are_zero_after_augmentation(shards: dict[Plane, Path]) -> None:
    for inputs, _ in _train(shards, Plane.SAGITTAL_T1).take(4):
        image, mask = inputs["image"].numpy(), inputs["mask"].numpy()
        assert not mask.all()
        assert image[~mask].max() == image[~mask].min() == 0
        assert image[mask].std() > 0


def test_the_order_of_more_studies_than_any_buffer_is_the_same_with_and_without_a_cache() -> None:
    def order(studies: tf.data.Dataset) -> list[int]:
        return [int(study) for study in shuffle_studies(studies, 500, 498, 3, 1).take(2 * 498)]

    places = order(tf.data.Dataset.range(500))
    assert places == order(tf.data.Dataset.range(500).cache())
    first, second = places[:498], places[498:]
    assert len(set(first)) == len(set(second)) == 498
    # Every study can come first: a buffer would keep the last ones back.
    assert max(first[:20]) > 300
    assert first != second


def test_studies_are_not_repeated_within_an_epoch_unless_some_are_missing(shards: dict[Plane, Path]) -> None:
    rows = localizer_rows(Plane.SAGITTAL_T2)
    config = LocalizerConfig(
        backbone="csp_darknet_narrow", side_mm=64, side_px=32, supersample=1, num_slices=3, training=TRAINING
    )

    def epochs(*studies: str) -> list[list[float]]:
        source = RecordSource((shards[Plane.SAGITTAL_T2],), studies)
        dataset = make_localizer_train_dataset(source, rows=rows, config=config, seed=4)
        count = batches_per_epoch(len(studies), 2)
        seen = [points.numpy()[:, 0, 0].tolist() for _, points in dataset.take(4 * count)]
        return [list(chain(*seen[start : start + count])) for start in range(0, 4 * count, count)]

    full = epochs(*STUDIES)
    assert all(len(set(epoch)) == 4 for epoch in full), "two batches of two of the five studies"
    assert len({tuple(epoch) for epoch in full}) > 1
    assert set(chain(*full)) == {0.0, 1.0, 2.0, 3.0, 4.0}
    # Six are expected and five are there: the sixth place goes to one of them.
    assert all(
        len(number) == 6 and set(number) == {0.0, 1.0, 2.0, 3.0, 4.0} for number in epochs(*STUDIES, "empty")
    )


@pytest.mark.parametrize("plane", Plane)
def test_training_batches_have_fully_static_shapes(shards: dict[Plane, Path], plane: Plane) -> None:
    specs = tf.nest.flatten(_train(shards, plane).element_spec)
    if plane.is_sagittal:
        config = LocalizerConfig(backbone="x", side_px=32, num_slices=3, training=TRAINING)
        source = RecordSource((shards[plane],), STUDIES)
        rows = localizer_rows(plane)
        specs += tf.nest.flatten(
            make_localizer_train_dataset(source, rows=rows, config=config, seed=0).element_spec
        )
    assert all(spec.shape.is_fully_defined() and spec.shape[0] == 2 for spec in specs)
