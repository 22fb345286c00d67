"""The axial localizer as the fold loop sees it: it searches around what the sagittal ones found."""

from collections.abc import Mapping
from functools import lru_cache

import keras
import numpy as np
import tensorflow as tf

from lumbar_tf.config import LocalizerConfig
from lumbar_tf.inputs.axial_localizer_dataset import (
    make_axial_localizer_eval_dataset,
    make_axial_localizer_train_dataset,
)
from lumbar_tf.inputs.crop_layout import localizer_rows
from lumbar_tf.inputs.record_source import RecordSource
from lumbar_tf.labels import NUM_FINDINGS, Plane
from lumbar_tf.models.axial_localizer import build_axial_localizer, locate_subarticular
from lumbar_tf.tables.landmarks import LandmarkTable, Points, write_landmarks
from lumbar_tf.training.fold_crops import FoldCrops, search_crops
from lumbar_tf.training.localizer_task import check_annotated
from lumbar_tf.training.predicted_points import predicted_doubt, predicted_levels
from lumbar_tf.training.runs import LANDMARKS_NAME, LOCALIZER, PlaneRun
from lumbar_tf.training.task import TrainingTask
from lumbar_tf.training.validation import evaluate_loss

_ROWS = localizer_rows(Plane.AXIAL_T2)


def axial_localizer_task(run: PlaneRun, config: LocalizerConfig) -> TrainingTask:
    """Returns the axial plane's localizer.

    Its datasets raise ValueError where no sagittal localizer was trained in these runs; see `search_crops`.
    """
    training = config.training

    @lru_cache(maxsize=1)
    def cut(fold: int) -> tuple[FoldCrops, dict[str, Points]]:
        crops = search_crops(run, fold, factor=config.jitter)
        return crops, predicted_levels(run, among=crops.tables(run.runs))

    def make_train(source: RecordSource, *, fold: int, seed: int, start_epoch: int) -> tf.data.Dataset:
        crops, points = cut(fold)
        return make_axial_localizer_train_dataset(
            source, points, config=config, jitter_mm=crops.jitter_mm, seed=seed, start_epoch=start_epoch
        )

    def write_table(model: keras.Model, dataset: tf.data.Dataset, fold: int) -> None:
        doubts = predicted_doubt(run, among=cut(fold)[0].tables(run.runs))
        _write_landmarks(run, model, dataset, fold, doubts)

    return TrainingTask(
        build=lambda: build_axial_localizer(config, weights=training.weights_of(config.backbone)),
        training=training,
        loss=None,
        make_train=make_train,
        make_evaluation=lambda source, *, fold: make_axial_localizer_eval_dataset(
            source, cut(fold)[1], config=config, batch_studies=training.batch_studies
        ),
        judge=evaluate_loss,
        check=lambda source: check_annotated(run, source),
        write_table=write_table,
    )


def _write_landmarks(
    run: PlaneRun, model: keras.Model, dataset: tf.data.Dataset, fold: int, doubts: Mapping[str, Points]
) -> None:
    unknown = np.full(NUM_FINDINGS, np.nan, np.float32)
    study_ids: list[str] = []
    empty = np.zeros((0, len(_ROWS), 3), np.float32)
    points, spreads, kept_doubts = [empty], [empty[..., 0]], [empty[..., 0]]
    for field, _, ids in dataset:
        studies = [each.decode() for each in ids.numpy()]
        level_doubt = np.stack([doubts.get(study, unknown)[list(_ROWS)] for study in studies])
        located = locate_subarticular(field, model(field, training=False), tf.constant(level_doubt))
        study_ids += studies
        points.append(located.points.numpy())
        spreads.append(located.spread_mm.numpy())
        kept_doubts.append(located.uncertainty.numpy())
    table = LandmarkTable(
        study_ids=study_ids,
        rows=_ROWS,
        points=np.concatenate(points),
        spread_mm=np.concatenate(spreads),
        doubt=np.concatenate(kept_doubts),
        fold=fold,
    )
    write_landmarks(run.fold_directory(LOCALIZER, fold) / LANDMARKS_NAME, table)
