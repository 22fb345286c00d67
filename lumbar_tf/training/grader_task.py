"""Training task of a plane's graders: datasets, loss, evaluation and out-of-fold tables."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lumbar_tf.ensemble.label_noise import Flags, noisy_labels
from lumbar_tf.ensemble.loss_attribution import attribute_loss
from lumbar_tf.files import write_text_atomically
from lumbar_tf.inputs.crop_layout import CropLayout
from lumbar_tf.inputs.grader_dataset import (
    make_grader_eval_dataset,
    make_grader_train_dataset,
    make_placement_dataset,
)
from lumbar_tf.inputs.record_source import Points, RecordSource
from lumbar_tf.labels import NUM_FINDINGS, NUM_SEVERITIES
from lumbar_tf.models.grader import build_grader, freeze_features, log_probabilities
from lumbar_tf.models.losses import build_loss
from lumbar_tf.tables.labels import read_record_labels
from lumbar_tf.tables.out_of_fold import (
    placement_tables,
    read_out_of_fold_tables,
    write_out_of_fold_table,
)
from lumbar_tf.training.evaluators import GradingEvaluator
from lumbar_tf.training.fitter import PretrainingStep, TrainingTask
from lumbar_tf.training.fold_crops import FoldCrops, grader_crops
from lumbar_tf.training.metadata import write_loss_attribution
from lumbar_tf.training.placement_grading import grade_placements
from lumbar_tf.training.predicted_points import predicted_landmarks
from lumbar_tf.training.runs import OOF_NAME, PlaneRun, find_noise_tables


def grader_task(run: PlaneRun, backbone: str) -> TrainingTask:
    """Returns the training task of the grader with a backbone.

    Its datasets raise ValueError if their landmarks are missing; see `grader_crops`.
    """
    config = run.config.grader
    training, layout = config.training, CropLayout.of(run.config)
    family_weights = dict.fromkeys(config.auxiliary, config.auxiliary_weight)
    loss = build_loss(config.loss, layout.rows, family_weights=family_weights)
    hidden = _hidden_labels(run)

    @lru_cache(maxsize=1)
    def crops_and_points(fold: int) -> tuple[FoldCrops, dict[str, Points]]:
        crops = grader_crops(run, backbone, fold)
        return crops, predicted_landmarks(run, among=crops.tables(run.runs))

    def train_dataset(source: RecordSource, *, fold: int, seed: int, start_epoch: int) -> tf.data.Dataset:
        crops, points = crops_and_points(fold)
        return make_grader_train_dataset(
            source,
            points,
            layout=layout,
            crop=config.crop,
            training=training,
            jitter_mm=crops.jitter_mm,
            seed=seed,
            start_epoch=start_epoch,
            hidden={study: hidden[study] for study in source.study_ids if study in hidden},
        )

    def eval_dataset(source: RecordSource, *, fold: int) -> tf.data.Dataset:
        _, points = crops_and_points(fold)
        return make_grader_eval_dataset(
            source, points, layout=layout, crop=config.crop, batch_studies=training.batch_studies
        )

    def write_predictions(model: keras.Model, dataset: tf.data.Dataset, fold: int) -> None:
        _, points = crops_and_points(fold)
        held_out = RecordSource(run.shards, run.studies(held_out=fold, is_training=False))
        placed = make_placement_dataset(
            held_out, points, layout=layout, crop=config.crop, batch_studies=training.batch_studies
        )
        graded = grade_placements(model, placed, layout)
        directory = run.fold_directory(backbone, fold)
        write_loss_attribution(
            directory, attribute_loss(graded.labels, graded.probabilities, graded.slice_offsets)
        )
        paths = placement_tables(directory / OOF_NAME)[:2]
        for path, probabilities in zip(paths, graded.probabilities[:2], strict=True):
            _write_fold_table(run, backbone, fold, path, graded.study_ids, probabilities)
        # Last, because a fold with this table is done.
        _write_oof_table(run, backbone, layout, model, dataset, fold)

    def build() -> keras.Model:
        return build_grader(backbone, config, layout, weights=training.weights_of(backbone))

    pretraining = None
    if config.two_step_epochs:
        unweighted = build_loss(config.loss, layout.rows, is_weighted=False, family_weights=family_weights)
        pretraining = PretrainingStep(build, training, unweighted)
    return TrainingTask(
        build=build if pretraining is None else lambda: freeze_features(build()),
        training=training
        if pretraining is None
        else training.model_copy(update={"epochs": config.two_step_epochs}),
        loss=loss,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        evaluator=GradingEvaluator(layout, loss, draws_confusions=training.board_pictures),
        check_source=lambda source: None,
        write_predictions=write_predictions,
        pretraining=pretraining,
    )


def _hidden_labels(run: PlaneRun) -> dict[str, Flags]:
    """Returns the labels to hide from training, bool [25] by study."""
    noise = run.config.grader.label_noise
    if noise is None:
        return {}
    return read_noisy_labels(
        noise.oof, records=run.records, runs=run.runs, folds=run.folds, threshold=noise.threshold
    )


def read_noisy_labels(
    pattern: str, *, records: Path, runs: Path, folds: Mapping[str, int], threshold: float
) -> dict[str, Flags]:
    """Returns the labels of the records that the out-of-fold tables of an earlier run disagree with.

    Args:
        pattern: glob pattern of the tables, such as `before/*/*/oof.csv`.
        records: folder of the records with the labels.
        runs: folder of the run that starts; its own tables are refused, see `find_noise_tables`.
        folds: fold by study of the run that starts.
        threshold: see `noisy_labels`.

    Returns:
        bool [25] by study; see `noisy_labels`.

    Raises:
        ValueError: there is no table, a table lies below `runs` or is not out of fold, or the threshold is
        out
            of range.
    """
    paths = find_noise_tables(pattern, runs=runs)
    return noisy_labels(read_out_of_fold_tables(paths), read_record_labels(records), threshold, folds)


def _write_oof_table(
    run: PlaneRun, backbone: str, layout: CropLayout, model: keras.Model, dataset: tf.data.Dataset, fold: int
) -> None:
    study_ids: list[str] = []
    parts = [np.zeros((0, NUM_FINDINGS, NUM_SEVERITIES))]
    for inputs, _, ids in dataset:
        logits = model(inputs, training=False)
        study_ids += [study_id.decode() for study_id in ids.numpy()]
        parts.append(np.exp(log_probabilities(logits, inputs["mask"], layout).numpy().astype(np.float64)))
    path = run.fold_directory(backbone, fold) / OOF_NAME
    _write_fold_table(run, backbone, fold, path, study_ids, np.concatenate(parts))


def _write_fold_table(
    run: PlaneRun,
    backbone: str,
    fold: int,
    path: Path,
    study_ids: Sequence[str],
    probabilities: NDArray[np.float64],
) -> None:
    folds = [fold] * len(study_ids)
    write_out_of_fold_table(path, study_ids, probabilities, folds=folds, model=run.member_name(backbone))


def join_oof_tables(run: PlaneRun, backbone: str) -> None:
    """Writes the member's tables, each if every fold has one; folds of older runs have `oof.csv` only."""
    for joined in placement_tables(run.member_directory(backbone) / OOF_NAME):
        parts = [run.fold_directory(backbone, fold) / joined.name for fold in run.fold_numbers]
        if all(part.is_file() for part in parts):
            lines = [part.read_text(encoding="utf-8").splitlines(keepends=True) for part in parts]
            rows = [row for part in lines for row in part[1:]]
            write_text_atomically(joined, "".join(lines[0][:1] + rows))
