"""One of a plane's graders as the fold loop sees it."""

from functools import lru_cache

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lumbar_tf.files import write_text_atomically
from lumbar_tf.inputs.crop_layout import CropLayout
from lumbar_tf.inputs.grader_dataset import make_grader_eval_dataset, make_grader_train_dataset
from lumbar_tf.inputs.record_source import Points, RecordSource
from lumbar_tf.labels import NUM_FINDINGS, NUM_SEVERITIES
from lumbar_tf.models.grader import build_grader, freeze_features, log_probabilities
from lumbar_tf.models.losses import build_loss
from lumbar_tf.tables.out_of_fold import write_out_of_fold_table
from lumbar_tf.training.dropped_labels import read_noisy_labels
from lumbar_tf.training.fold_crops import FoldCrops, grader_crops
from lumbar_tf.training.grading_evaluator import GradingEvaluator
from lumbar_tf.training.predicted_points import predicted_landmarks
from lumbar_tf.training.runs import OOF_NAME, PlaneRun
from lumbar_tf.training.task import PretrainingStep, TrainingTask


def grader_task(run: PlaneRun, backbone: str) -> TrainingTask:
    """Returns the grader with a backbone.

    Its datasets raise ValueError where their landmarks are not there; see `grader_crops`.
    """
    config = run.config.grader
    training, layout = config.training, CropLayout.of(run.config)
    weights = dict.fromkeys(config.auxiliary, config.auxiliary_weight)
    loss = build_loss(config.loss, layout.rows, family_weights=weights)
    hidden = _noisy_labels(run)

    @lru_cache(maxsize=1)
    def cut(fold: int) -> tuple[FoldCrops, dict[str, Points]]:
        crops = grader_crops(run, backbone, fold)
        return crops, predicted_landmarks(run, among=crops.tables(run.runs))

    def make_train(source: RecordSource, *, fold: int, seed: int, start_epoch: int) -> tf.data.Dataset:
        crops, points = cut(fold)
        return make_grader_train_dataset(
            source,
            points,
            layout=layout,
            crop=config.crop,
            training=training,
            jitter_mm=crops.jitter_mm,
            seed=seed,
            start_epoch=start_epoch,
            # Of training studies alone: nothing else is in the source.
            hidden={study: hidden[study] for study in source.study_ids if study in hidden},
        )

    def build() -> keras.Model:
        return build_grader(backbone, config, layout, weights=training.weights_of(backbone))

    first_step = None
    if config.two_step_epochs:
        unweighted = build_loss(config.loss, layout.rows, is_weighted=False, family_weights=weights)
        first_step = PretrainingStep(build, training, unweighted)
    return TrainingTask(
        build=build if first_step is None else lambda: freeze_features(build()),
        training=training
        if first_step is None
        else training.model_copy(update={"epochs": config.two_step_epochs}),
        loss=loss,
        make_train=make_train,
        make_evaluation=lambda source, *, fold: make_grader_eval_dataset(
            source, cut(fold)[1], layout=layout, crop=config.crop, batch_studies=training.batch_studies
        ),
        judge=GradingEvaluator(layout, loss, draws=training.board_pictures),
        check=lambda source: None,
        write_table=lambda model, dataset, fold: _write_oof(run, backbone, layout, model, dataset, fold),
        first_step=first_step,
    )


def _noisy_labels(run: PlaneRun) -> dict[str, NDArray[np.bool_]]:
    """Returns the labels that training leaves out, bool [25] by study."""
    noise = run.config.grader.label_noise
    if noise is None:
        return {}
    labels = read_noisy_labels(
        noise.oof, records=run.records, runs=run.runs, folds=run.folds, threshold=noise.threshold
    )
    return dict(labels)


def _write_oof(
    run: PlaneRun, backbone: str, layout: CropLayout, model: keras.Model, dataset: tf.data.Dataset, fold: int
) -> None:
    study_ids: list[str] = []
    parts = [np.zeros((0, NUM_FINDINGS, NUM_SEVERITIES))]
    for inputs, _, ids in dataset:
        logits = model(inputs, training=False)
        study_ids += [each.decode() for each in ids.numpy()]
        parts.append(np.exp(log_probabilities(logits, inputs["mask"], layout).numpy().astype(np.float64)))
    path = run.fold_directory(backbone, fold) / OOF_NAME
    folds = [fold] * len(study_ids)
    write_out_of_fold_table(
        path, study_ids, np.concatenate(parts), folds=folds, model=run.member_name(backbone)
    )


def join_oof(run: PlaneRun, backbone: str) -> None:
    """Writes the member's table once every fold has one."""
    parts = [run.fold_directory(backbone, fold) / OOF_NAME for fold in run.fold_numbers]
    if not all(part.is_file() for part in parts):
        return
    lines = [part.read_text(encoding="utf-8").splitlines(keepends=True) for part in parts]
    write_text_atomically(
        run.member_directory(backbone) / OOF_NAME,
        "".join(lines[0][:1] + [row for part in lines for row in part[1:]]),
    )
