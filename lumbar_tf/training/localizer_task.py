"""A sagittal plane's localizer as the fold loop sees it, and any localizer's error on held-out studies."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from lumbar_tf.files import write_json_atomically
from lumbar_tf.inputs.crop_layout import localizer_rows
from lumbar_tf.inputs.localizer_dataset import make_localizer_eval_dataset, make_localizer_train_dataset
from lumbar_tf.inputs.record_source import RecordSource, read_points
from lumbar_tf.models.level_decoding import SHIFT_UNCERTAINTY
from lumbar_tf.models.localizer import build_localizer, locate_levels
from lumbar_tf.tables.landmarks import (
    LandmarkAccuracy,
    LandmarkTable,
    LevelShiftCounts,
    count_level_shifts,
    measure_landmark_accuracy,
    read_doubt,
    read_landmarks,
    write_landmarks,
)
from lumbar_tf.training.axial_slice_accuracy import SliceChoice, measure_slice_choice
from lumbar_tf.training.level_errors import measure_levels
from lumbar_tf.training.runs import ERROR_NAME, LANDMARKS_NAME, LOCALIZER, PlaneRun, landmark_tables
from lumbar_tf.training.task import TrainingTask
from lumbar_tf.training.validation import evaluate_loss


def localizer_task(run: PlaneRun) -> TrainingTask:
    """Returns the sagittal plane's localizer.

    Raises:
        ValueError: the plane has none, or is axial (see `axial_localizer_trainee`).
    """
    config, plane = run.config.localizer, run.config.plane
    if config is None or not plane.is_sagittal:
        raise ValueError(f"The plane {plane.value} has no localizer of a whole stack.")
    training, rows = config.training, localizer_rows(plane)

    def make_train(source: RecordSource, *, fold: int, seed: int, start_epoch: int) -> tf.data.Dataset:
        return make_localizer_train_dataset(
            source, rows=rows, config=config, seed=seed, start_epoch=start_epoch
        )

    return TrainingTask(
        build=lambda: build_localizer(config, plane, weights=training.weights_of(config.backbone)),
        training=training,
        loss=None,
        make_train=make_train,
        make_evaluation=lambda source, *, fold: make_localizer_eval_dataset(
            source, rows=rows, config=config, batch_studies=training.batch_studies
        ),
        judge=evaluate_loss,
        check=lambda source: check_annotated(run, source),
        write_table=lambda model, dataset, fold: _write_landmarks(run, model, dataset, fold),
    )


def check_annotated(run: PlaneRun, source: RecordSource) -> None:
    """Raises ValueError where no point that the plane's localizer points at is annotated."""
    rows = list(localizer_rows(run.config.plane))
    if not any(np.isfinite(points[rows]).all(axis=-1).any() for points in read_points(source).values()):
        raise ValueError(
            "A localizer needs annotated points (train_label_coordinates.csv). Received: none in the "
            f"{len(source.study_ids)} training studies of {run.config.plane.value}."
        )


def _write_landmarks(run: PlaneRun, model: keras.Model, dataset: tf.data.Dataset, fold: int) -> None:
    study_ids, points, spreads, doubts = [], [], [], []
    rows = localizer_rows(run.config.plane)
    for field, _, ids in dataset:
        located = locate_levels(field, model(field, training=False))
        study_ids += [each.decode() for each in ids.numpy()]
        points.append(located.points.numpy())
        spreads.append(located.spread_mm.numpy())
        doubts.append(located.uncertainty.numpy())
    empty = np.zeros((0, len(rows), 3), np.float32)
    table = LandmarkTable(
        study_ids=study_ids,
        rows=rows,
        points=np.concatenate([empty, *points]),
        spread_mm=np.concatenate([empty[..., 0], *spreads]),
        doubt=np.concatenate([empty[..., 0], *doubts]),
        fold=fold,
    )
    write_landmarks(run.fold_directory(LOCALIZER, fold) / LANDMARKS_NAME, table)


def write_localizer_error(run: PlaneRun) -> tuple[LandmarkAccuracy, LevelShiftCounts, SliceChoice | None]:
    """Measures the localizer on all folds that it has answered, and writes `error.json`.

    Returns:
        What it wrote; how often its points lead to the annotator's slice (`slices`) of the axial plane only.
    """
    tables = landmark_tables(run.runs, [run.config.plane])
    predicted = read_landmarks(tables)
    annotated = read_points(RecordSource(run.shards, tuple(predicted)))
    error = measure_landmark_accuracy(predicted, annotated)
    flags = count_level_shifts(predicted, read_doubt(tables), annotated, threshold=SHIFT_UNCERTAINTY)
    content = {**dataclasses.asdict(error), "level_shift": dataclasses.asdict(flags)}
    levels = measure_levels(predicted, annotated)
    content["levels"] = [{**dataclasses.asdict(each), "level": each.level.value} for each in levels]
    choice = None
    if not run.config.plane.is_sagittal:
        choice = measure_slice_choice(RecordSource(run.shards, tuple(predicted)), predicted)
        content["slices"] = dataclasses.asdict(choice)
    write_json_atomically(run.member_directory(LOCALIZER) / ERROR_NAME, content)
    return error, flags, choice
