"""Training tasks of the localizers: datasets, landmark tables and the error on held-out studies."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import lru_cache

import keras
import numpy as np
import tensorflow as tf

from lumbar_tf.config import LocalizerConfig
from lumbar_tf.files import write_json_atomically
from lumbar_tf.inputs.axial_localizer_dataset import (
    make_axial_localizer_eval_dataset,
    make_axial_localizer_train_dataset,
)
from lumbar_tf.inputs.crop_layout import localizer_rows
from lumbar_tf.inputs.localizer_dataset import make_localizer_eval_dataset, make_localizer_train_dataset
from lumbar_tf.inputs.record_source import RecordSource, read_points
from lumbar_tf.labels import NUM_FINDINGS
from lumbar_tf.models.axial_localizer import build_axial_localizer, locate_subarticular
from lumbar_tf.models.level_decoding import SHIFT_UNCERTAINTY
from lumbar_tf.models.localizer import LocatedLevels, build_localizer, locate_levels
from lumbar_tf.tables.landmarks import LandmarkTable, Points, read_doubt, read_landmarks, write_landmarks
from lumbar_tf.training.evaluators import evaluate_loss
from lumbar_tf.training.fitter import TrainingTask
from lumbar_tf.training.fold_crops import FoldCrops, axial_localizer_crops
from lumbar_tf.training.localization_metrics import (
    LandmarkAccuracy,
    LevelShiftCounts,
    SliceAgreement,
    count_level_shifts,
    measure_landmark_accuracy,
    measure_level_errors,
    measure_slice_agreement,
)
from lumbar_tf.training.predicted_points import predicted_doubt, predicted_levels
from lumbar_tf.training.runs import ERROR_NAME, LANDMARKS_NAME, LOCALIZER, PlaneRun, landmark_tables

#: Function of a network's inputs and their study ids that returns the located points.
_Locate = Callable[[dict[str, tf.Tensor], Sequence[str]], LocatedLevels]


def localizer_task(run: PlaneRun) -> TrainingTask:
    """Returns the training task of a sagittal plane's localizer.

    Raises:
        ValueError: the plane has no localizer, or is axial (see `axial_localizer_task`).
    """
    config, plane = run.config.localizer, run.config.plane
    if config is None or not plane.is_sagittal:
        raise ValueError(f"The plane {plane.value} has no sagittal localizer.")
    training, rows = config.training, localizer_rows(plane)

    def train_dataset(source: RecordSource, *, fold: int, seed: int, start_epoch: int) -> tf.data.Dataset:
        return make_localizer_train_dataset(
            source, rows=rows, config=config, seed=seed, start_epoch=start_epoch
        )

    def eval_dataset(source: RecordSource, *, fold: int) -> tf.data.Dataset:
        return make_localizer_eval_dataset(
            source, rows=rows, config=config, batch_studies=training.batch_studies
        )

    def write_predictions(model: keras.Model, dataset: tf.data.Dataset, fold: int) -> None:
        _write_landmarks(
            run, dataset, fold, lambda inputs, _: locate_levels(inputs, model(inputs, training=False))
        )

    return TrainingTask(
        build=lambda: build_localizer(config, plane, weights=training.weights_of(config.backbone)),
        training=training,
        loss=None,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        evaluator=evaluate_loss,
        check_source=lambda source: check_annotated(run, source),
        write_predictions=write_predictions,
    )


def axial_localizer_task(run: PlaneRun, config: LocalizerConfig) -> TrainingTask:
    """Returns the training task of the axial plane's localizer.

    Its datasets raise ValueError if the run has no landmarks of a sagittal localizer; see
    `axial_localizer_crops`.
    """
    training, rows = config.training, list(localizer_rows(run.config.plane))

    @lru_cache(maxsize=1)
    def crops_and_points(fold: int) -> tuple[FoldCrops, dict[str, Points]]:
        crops = axial_localizer_crops(run, fold, factor=config.jitter)
        return crops, predicted_levels(run, among=crops.tables(run.runs))

    def train_dataset(source: RecordSource, *, fold: int, seed: int, start_epoch: int) -> tf.data.Dataset:
        crops, points = crops_and_points(fold)
        return make_axial_localizer_train_dataset(
            source, points, config=config, jitter_mm=crops.jitter_mm, seed=seed, start_epoch=start_epoch
        )

    def eval_dataset(source: RecordSource, *, fold: int) -> tf.data.Dataset:
        _, points = crops_and_points(fold)
        return make_axial_localizer_eval_dataset(
            source, points, config=config, batch_studies=training.batch_studies
        )

    def write_predictions(model: keras.Model, dataset: tf.data.Dataset, fold: int) -> None:
        crops, _ = crops_and_points(fold)
        doubts = predicted_doubt(run, among=crops.tables(run.runs))
        unknown = np.full(NUM_FINDINGS, np.nan, np.float32)

        def locate(inputs: dict[str, tf.Tensor], study_ids: Sequence[str]) -> LocatedLevels:
            level_doubt = np.stack([doubts.get(study, unknown)[rows] for study in study_ids])
            return locate_subarticular(inputs, model(inputs, training=False), tf.constant(level_doubt))

        _write_landmarks(run, dataset, fold, locate)

    return TrainingTask(
        build=lambda: build_axial_localizer(config, weights=training.weights_of(config.backbone)),
        training=training,
        loss=None,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        evaluator=evaluate_loss,
        check_source=lambda source: check_annotated(run, source),
        write_predictions=write_predictions,
    )


def check_annotated(run: PlaneRun, source: RecordSource) -> None:
    """Raises ValueError if no point that the plane's localizer predicts is annotated."""
    rows = list(localizer_rows(run.config.plane))
    if not any(np.isfinite(points[rows]).all(axis=-1).any() for points in read_points(source).values()):
        raise ValueError(
            "A localizer needs annotated points (train_label_coordinates.csv). Received: none in the "
            f"{len(source.study_ids)} training studies of {run.config.plane.value}."
        )


def _write_landmarks(run: PlaneRun, dataset: tf.data.Dataset, fold: int, locate: _Locate) -> None:
    """Writes the landmark table of a held-out fold."""
    rows = localizer_rows(run.config.plane)
    study_ids: list[str] = []
    empty = np.zeros((0, len(rows), 3), np.float32)
    points, spreads, doubts = [empty], [empty[..., 0]], [empty[..., 0]]
    for inputs, _, ids in dataset:
        batch_ids = [study_id.decode() for study_id in ids.numpy()]
        located = locate(inputs, batch_ids)
        study_ids += batch_ids
        points.append(located.points.numpy())
        spreads.append(located.spread_mm.numpy())
        doubts.append(located.uncertainty.numpy())
    table = LandmarkTable(
        study_ids=study_ids,
        rows=rows,
        points=np.concatenate(points),
        spread_mm=np.concatenate(spreads),
        doubt=np.concatenate(doubts),
        fold=fold,
    )
    write_landmarks(run.fold_directory(LOCALIZER, fold) / LANDMARKS_NAME, table)


def write_localizer_error(run: PlaneRun) -> tuple[LandmarkAccuracy, LevelShiftCounts, SliceAgreement | None]:
    """Measures the localizer on all finished held-out folds and writes `error.json`.

    Returns:
        Its content; `slices`, the agreement with the annotators' slices, for the axial plane only.
    """
    tables = landmark_tables(run.runs, [run.config.plane])
    predicted = read_landmarks(tables)
    source = RecordSource(run.shards, tuple(predicted))
    annotated = read_points(source)
    error = measure_landmark_accuracy(predicted, annotated)
    shifts = count_level_shifts(predicted, read_doubt(tables), annotated, threshold=SHIFT_UNCERTAINTY)
    content = {**dataclasses.asdict(error), "level_shift": dataclasses.asdict(shifts)}
    content["levels"] = [
        {**dataclasses.asdict(level_error), "level": level_error.level.value}
        for level_error in measure_level_errors(predicted, annotated)
    ]
    agreement = None
    if not run.config.plane.is_sagittal:
        agreement = measure_slice_agreement(source, predicted)
        content["slices"] = dataclasses.asdict(agreement)
    write_json_atomically(run.member_directory(LOCALIZER) / ERROR_NAME, content)
    return error, shifts, agreement
