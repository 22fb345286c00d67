"""Augmented crops beside the plain ones, from the very dataset that graders train on."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.config import AugmentationConfig, PlaneConfig
from lumbar_tf.inputs.crop_layout import CropLayout
from lumbar_tf.inputs.grader_dataset import make_grader_train_dataset
from lumbar_tf.inputs.record_source import RecordSource
from lumbar_tf.labels import Plane
from lumbar_tf.training.predicted_points import landmark_jitter, predicted_landmarks
from lumbar_tf.training.runs import PlaneRun, landmark_tables


@dataclass(frozen=True)
class StudyCrops:
    """What a grader is given of one study.

    Attributes:
        image: float32 [P, S, side_px, side_px]; 0 and 1 are the series' 0.5 and 99.5 percentile.
        mask: bool [P, S].
        targets: float32 [rows, 3]; all zeros where nobody graded.
    """

    image: NDArray[np.float32]
    mask: NDArray[np.bool_]
    targets: NDArray[np.float32]


@dataclass(frozen=True)
class Preview:
    """One study of a training batch, without and with augmentation.

    Attributes:
        plain: at the points as they are.
        augmented: what the network would see.
    """

    plain: StudyCrops
    augmented: StudyCrops


def collect_previews(run: PlaneRun, *, num_studies: int) -> list[Preview]:
    """Draws the first studies of a training run twice, once with everything random switched off.

    Order and seeds do not depend on what is switched on, so both times the same studies come, in the same
    batches. Points are the annotator's, where there are any, else the localizers' of the run.

    Args:
        run: the plane's records, configuration and folds; its folder need not exist.
        num_studies: how many studies; a cohort with fewer gives fewer.

    Returns:
        The studies in the order of training; each comes once.

    Raises:
        ValueError: not one crop could be cut, for want of points.
    """
    config = run.config
    source = _source(run, max(num_studies, config.grader.training.batch_studies))
    num_studies = min(num_studies, len(source.study_ids))
    plain_config = _without_chance(config)
    augmented = _take(run, source, config, num_studies)
    plain = _take(run, source, plain_config, num_studies)
    if not any(each.mask.any() for each in plain):
        raise ValueError(
            f"Crops need annotated points in the records or landmarks below {run.runs}. "
            f"Received: neither for the first {num_studies} studies of {config.plane.value}."
        )
    return [Preview(*pair) for pair in zip(plain, augmented, strict=True)]


def _source(run: PlaneRun, num_studies: int) -> RecordSource:
    """Returns the plane's first studies and no more shards than hold them."""
    study_ids: list[str] = []
    shards = []
    for shard in run.manifest.planes[run.config.plane.value]:
        if len(study_ids) >= num_studies:
            break
        study_ids += shard.study_ids
        shards.append(run.records / shard.file)
    return RecordSource(tuple(shards), tuple(study_ids[:num_studies]))


def _without_chance(config: PlaneConfig) -> PlaneConfig:
    training = config.grader.training.model_copy(update={"augmentation": AugmentationConfig.nothing()})
    grader = config.grader.model_copy(update={"training": training, "jitter": 0.0})
    return config.model_copy(update={"grader": grader})


def _take(run: PlaneRun, source: RecordSource, config: PlaneConfig, num_studies: int) -> list[StudyCrops]:
    # Batches as large as training has them, as a crop's partner in mixing is one of its batch.
    grader = config.grader
    located = (Plane.AXIAL_T2,) if grader.anchor == "subarticular" else (Plane.SAGITTAL_T2, Plane.SAGITTAL_T1)
    has_landmarks = landmark_tables(run.runs, located)
    dataset = make_grader_train_dataset(
        source,
        predicted_landmarks(run) if has_landmarks else {},
        layout=CropLayout.of(config),
        crop=grader.crop,
        training=grader.training,
        jitter_mm=landmark_jitter(replace(run, config=config), fold=None),
        seed=config.seed,
    )
    batch_studies = min(grader.training.batch_studies, len(source.study_ids))
    studies: list[StudyCrops] = []
    for inputs, targets in dataset.take(math.ceil(num_studies / batch_studies)):
        arrays = (each.numpy() for each in (inputs["image"], inputs["mask"], targets))
        studies += [StudyCrops(*each) for each in zip(*arrays, strict=True)]
    return studies[:num_studies]
