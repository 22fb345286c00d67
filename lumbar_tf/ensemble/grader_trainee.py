"""One of a plane's graders as the fold loop sees it, and the landmarks that its crops are cut at."""

import json

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lumbar_tf.data.anchors import CropLayout, complete_points
from lumbar_tf.data.grader_dataset import make_grader_eval_dataset, make_grader_train_dataset
from lumbar_tf.data.landmarks import Points, read_landmarks
from lumbar_tf.data.record_source import RecordSource
from lumbar_tf.ensemble.dropped_labels import read_noisy_labels
from lumbar_tf.ensemble.grading_judge import GradingJudge
from lumbar_tf.ensemble.oof import write_table
from lumbar_tf.ensemble.runs import ERROR_NAME, LOCALIZER, OOF_NAME, PlaneRun, landmark_tables
from lumbar_tf.ensemble.trainee import FirstStep, Trainee
from lumbar_tf.files import replace_atomically
from lumbar_tf.labels import NUM_FINDINGS, NUM_LEVELS, NUM_SEVERITIES, Plane
from lumbar_tf.models.grader import build_grader, freeze_features, log_probabilities
from lumbar_tf.models.losses import build_loss

#: The jitter where no localizer was measured (no point is annotated), mm.
_DEFAULT_JITTER_MM = (2.0, 2.0, 2.0)


def grader_trainee(run: PlaneRun, backbone: str) -> Trainee:
    """Returns the grader with a backbone.

    Raises:
        ValueError: its landmarks are not there; see `predicted_landmarks`.
    """
    config = run.config.grader
    training, layout = config.training, CropLayout.of(run.config)
    points, jitter_mm = predicted_landmarks(run), landmark_jitter(run)
    weights = dict.fromkeys(config.auxiliary, config.auxiliary_weight)
    loss = build_loss(config.loss, layout.rows, family_weights=weights)
    hidden = _noisy_labels(run)

    def make_train(source: RecordSource, *, seed: int, start_epoch: int) -> tf.data.Dataset:
        return make_grader_train_dataset(
            source,
            points,
            layout=layout,
            crop=config.crop,
            training=training,
            jitter_mm=jitter_mm,
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
        first_step = FirstStep(build, training, unweighted)
    return Trainee(
        build=build if first_step is None else lambda: freeze_features(build()),
        training=training
        if first_step is None
        else training.model_copy(update={"epochs": config.two_step_epochs}),
        loss=loss,
        make_train=make_train,
        make_evaluation=lambda source: make_grader_eval_dataset(
            source, points, layout=layout, crop=config.crop, batch_studies=training.batch_studies
        ),
        judge=GradingJudge(layout, loss, draws=training.board_pictures),
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


def predicted_landmarks(run: PlaneRun) -> dict[str, Points]:
    """Returns the held-out landmarks of all studies, float32 [25, 3] by study, LPS mm.

    Raises:
        ValueError: no localizer was trained, or one was trained on other folds.
    """
    paths = landmark_tables(run.runs, (Plane.SAGITTAL_T2, Plane.SAGITTAL_T1))
    if not paths:
        raise ValueError(
            f"The crops of {run.config.plane.value} need the landmarks of a sagittal plane, and {run.runs} "
            "holds none. Run python -m lumbar_tf.train --plane=sagittal_t2 first."
        )
    tables = read_landmarks(paths, folds=run.folds)
    if not tables:
        return {}
    points = np.stack(list(tables.values()))
    canal = points[:, :NUM_LEVELS]
    sides = points[:, NUM_LEVELS : 3 * NUM_LEVELS].reshape(-1, 2, NUM_LEVELS, 3)
    foramina = sides.transpose(0, 2, 1, 3).reshape(-1, 2 * NUM_LEVELS, 3)
    completed = complete_points(tf.constant(canal), tf.constant(foramina)).numpy()
    return dict(zip(tables, completed, strict=True))


def landmark_jitter(run: PlaneRun) -> tuple[float, float, float]:
    """Returns the standard deviation of the jitter of training landmarks along x, y, z, mm (LPS).

    It is the localizer's measured error, or 2 mm where none was measured, times the configured factor.
    """
    plane = run.config.plane if run.config.localizer is not None else Plane.SAGITTAL_T2
    path = run.runs / plane.value / LOCALIZER / ERROR_NAME
    deviation = _DEFAULT_JITTER_MM
    if path.is_file():
        error = json.loads(path.read_text(encoding="utf-8"))
        deviation = error["sd_mm"] if error["num_points"] else deviation
    x, y, z = (float(each) * run.config.grader.jitter for each in deviation)
    return x, y, z


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
    write_table(path, study_ids, np.concatenate(parts), folds=folds, model=run.member_name(backbone))


def join_oof(run: PlaneRun, backbone: str) -> None:
    """Writes the member's table once every fold has one."""
    parts = [run.fold_directory(backbone, fold) / OOF_NAME for fold in run.fold_numbers]
    if not all(part.is_file() for part in parts):
        return
    lines = [part.read_text(encoding="utf-8").splitlines(keepends=True) for part in parts]
    with replace_atomically(run.member_directory(backbone) / OOF_NAME) as temporary:
        temporary.write_text(
            "".join(lines[0][:1] + [row for part in lines for row in part[1:]]), encoding="utf-8"
        )
