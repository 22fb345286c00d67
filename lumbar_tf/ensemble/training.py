"""Training a plane: localizer, then graders, fold by fold, to the out-of-fold tables.

A job is one network (a plane's localizer or one of its backbones) over the folds asked for. Jobs share
nothing but files, so they run in any order in any process, once the landmarks that they need are there.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from lumbar_tf.data.anchors import CropLayout, complete_points, localizer_rows
from lumbar_tf.data.landmarks import (
    LandmarkTable,
    Points,
    measure_error,
    read_landmarks,
    write_landmarks,
)
from lumbar_tf.data.memory import keep_freed_memory
from lumbar_tf.data.pipeline import (
    RecordSource,
    make_grader_eval_dataset,
    make_grader_train_dataset,
    make_localizer_eval_dataset,
    make_localizer_train_dataset,
    read_points,
)
from lumbar_tf.ensemble.oof import write_table
from lumbar_tf.ensemble.runs import (
    ERROR_NAME,
    LANDMARKS_NAME,
    LOCALIZER,
    OOF_NAME,
    PlaneRun,
    landmark_tables,
)
from lumbar_tf.files import replace_atomically
from lumbar_tf.labels import NUM_FINDINGS, NUM_LEVELS, NUM_SEVERITIES, Plane
from lumbar_tf.models.fitter import Fitter, FoldData
from lumbar_tf.models.grader import build_grader, log_probabilities
from lumbar_tf.models.localizer import build_localizer, locate
from lumbar_tf.models.losses import WeightedSeverityLoss
from lumbar_tf.models.strategy import StrategyName, choose_precision, choose_strategy

#: The jitter where no localizer was measured (no point is annotated), mm.
_DEFAULT_JITTER_MM = (2.0, 2.0, 2.0)


@dataclass(frozen=True)
class TrainingJob:
    """One network over some folds.

    Attributes:
        run: the plane's run.
        member: `LOCALIZER` or a backbone's name.
        folds: which folds to hold out, one after the other.
        strategy: the devices.
        threads: CPU threads; None leaves it to TensorFlow.
        is_quiet: print no line an epoch.
    """

    run: PlaneRun
    member: str
    folds: tuple[int, ...]
    strategy: StrategyName = StrategyName.AUTO
    threads: int | None = None
    is_quiet: bool = False

    @property
    def name(self) -> str:
        """`sagittal_t2/mobilenet_v2`: the member's name in every table."""
        return f"{self.run.config.plane.value}/{self.member}"


def localizer_jobs(run: PlaneRun, folds: Sequence[int], **options: object) -> list[TrainingJob]:
    """Returns the plane's localizer job, or none where its points come from other planes."""
    if run.config.localizer is None:
        return []
    return [TrainingJob(run, LOCALIZER, tuple(folds), **options)]  # type: ignore[arg-type]


def grader_jobs(run: PlaneRun, folds: Sequence[int], **options: object) -> list[TrainingJob]:
    """Returns a job for each of the plane's backbones."""
    return [TrainingJob(run, each, tuple(folds), **options) for each in run.config.grader.backbones]  # type: ignore[arg-type]


def run_training_job(job: TrainingJob) -> str:
    """Trains what a job names and writes its tables; folds that are done are passed over.

    Returns:
        The job's name.
    """
    if job.threads is not None:
        _limit_threads(job.threads)
    keep_freed_memory()
    choose_precision(job.run.config.mixed_precision)
    if job.member == LOCALIZER:
        _train_localizer(job)
    else:
        _train_grader(job)
    return job.name


def _limit_threads(threads: int) -> None:
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(max(threads, 2))
    except RuntimeError:
        # TensorFlow is already running here (a job in the command's own process): its threads stay.
        pass


def _reporter(job: TrainingJob, fold: int) -> Callable[[int, int, dict[str, float]], None] | None:
    if job.is_quiet:
        return None

    def report(epoch: int, epochs: int, row: dict[str, float]) -> None:
        numbers = "  ".join(f"{key} {row[key]:.4f}" for key in ("loss", "val_loss") if key in row)
        print(
            f"{job.name} fold {fold}  epoch {epoch}/{epochs}  {numbers}  {row['seconds']:.1f} s", flush=True
        )

    return report


def _fold_seed(job: TrainingJob, fold: int) -> int:
    return job.run.config.seed * 1000 + fold


def _sources(run: PlaneRun, fold: int) -> tuple[RecordSource, RecordSource]:
    """Returns the training studies and the held-out studies of a fold."""
    train = run.studies(held_out=fold, is_training=True)
    held_out = run.studies(held_out=fold, is_training=False)
    if not train:
        raise ValueError(f"Fold {fold} leaves no study of {run.config.plane.value} to train on.")
    return RecordSource(run.shards, train), RecordSource(run.shards, held_out)


def _num_batches(source: RecordSource, batch_studies: int) -> int:
    count = len(source.study_ids)
    return count // min(batch_studies, count)


def _without_ids(dataset: tf.data.Dataset) -> tf.data.Dataset:
    return dataset.map(lambda inputs, targets, _: (inputs, targets))


def _train_localizer(job: TrainingJob) -> None:
    run, config = job.run, job.run.config.localizer
    if config is None:
        raise ValueError(f"The plane {run.config.plane.value} has no localizer.")
    training, rows = config.training, localizer_rows(run.config.plane)
    fitter = Fitter(
        lambda: build_localizer(config, run.config.plane, weights=training.weights_of(config.backbone)),
        training=training,
        loss=None,
        strategy=choose_strategy(job.strategy),
    )
    for fold in job.folds:
        directory = run.fold_directory(job.member, fold)
        if (directory / LANDMARKS_NAME).is_file():
            continue
        source, held_out = _sources(run, fold)
        _check_annotated(run, source, fold)
        seed = _fold_seed(job, fold)
        evaluation = make_localizer_eval_dataset(
            held_out, rows=rows, config=config, batch_studies=training.batch_studies
        )
        data = FoldData(
            make_localizer_train_dataset(source, rows=rows, config=config, seed=seed),
            _num_batches(source, training.batch_studies),
            _without_ids(evaluation) if held_out.study_ids else None,
        )
        fitter.fit(data, directory, seed=seed, report=_reporter(job, fold))
        _write_landmarks(job, fitter.model, evaluation, fold)
    _write_localizer_error(job)


def _check_annotated(run: PlaneRun, source: RecordSource, fold: int) -> None:
    rows = list(localizer_rows(run.config.plane))
    if not any(np.isfinite(points[rows]).all(axis=-1).any() for points in read_points(source).values()):
        raise ValueError(
            "A localizer needs annotated points (train_label_coordinates.csv). Received: none in the "
            f"training studies of {run.config.plane.value}, fold {fold}."
        )


def _write_landmarks(job: TrainingJob, model: tf.keras.Model, dataset: tf.data.Dataset, fold: int) -> None:
    study_ids, points, spreads = [], [], []
    rows = localizer_rows(job.run.config.plane)
    for field, _, ids in dataset:
        found, spread = locate(field, model(field, training=False))
        study_ids += [each.decode() for each in ids.numpy()]
        points.append(found.numpy())
        spreads.append(spread.numpy())
    empty = np.zeros((0, len(rows), 3), np.float32)
    table = LandmarkTable(
        study_ids=study_ids,
        rows=rows,
        points=np.concatenate([empty, *points]),
        spread_mm=np.concatenate([empty[..., 0], *spreads]),
        fold=fold,
    )
    write_landmarks(job.run.fold_directory(job.member, fold) / LANDMARKS_NAME, table)


def _write_localizer_error(job: TrainingJob) -> None:
    run = job.run
    predicted = read_landmarks(landmark_tables(run.runs, [run.config.plane]))
    error = measure_error(predicted, read_points(RecordSource(run.shards, tuple(predicted))))
    with replace_atomically(run.member_directory(LOCALIZER) / ERROR_NAME) as temporary:
        temporary.write_text(json.dumps(dataclasses.asdict(error), indent=1), encoding="utf-8")
    if not job.is_quiet:
        print(
            f"{job.name}: {error.num_points} held-out points, median error {error.median_mm:.1f} mm, "
            f"{error.within_10_mm:.1%} within 10 mm, {error.own_level:.1%} nearest their own level",
            flush=True,
        )


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


def _jitter_mm(run: PlaneRun) -> tuple[float, float, float]:
    """The localizer's measured error, times the configured factor."""
    plane = run.config.plane if run.config.localizer is not None else Plane.SAGITTAL_T2
    path = run.runs / plane.value / LOCALIZER / ERROR_NAME
    deviation = _DEFAULT_JITTER_MM
    if path.is_file():
        error = json.loads(path.read_text(encoding="utf-8"))
        deviation = error["sd_mm"] if error["num_points"] else deviation
    x, y, z = (float(each) * run.config.grader.jitter for each in deviation)
    return x, y, z


def _train_grader(job: TrainingJob) -> None:
    run, config = job.run, job.run.config.grader
    training, layout = config.training, CropLayout(run.config.plane, config.targets)
    points, jitter_mm = predicted_landmarks(run), _jitter_mm(run)
    fitter = Fitter(
        lambda: build_grader(job.member, config, layout, weights=training.weights_of(job.member)),
        training=training,
        loss=WeightedSeverityLoss(layout.rows),
        strategy=choose_strategy(job.strategy),
    )
    for fold in job.folds:
        directory = run.fold_directory(job.member, fold)
        if (directory / OOF_NAME).is_file():
            continue
        source, held_out = _sources(run, fold)
        seed = _fold_seed(job, fold)
        evaluation = make_grader_eval_dataset(
            held_out, points, layout=layout, crop=config.crop, batch_studies=training.batch_studies
        )
        train = make_grader_train_dataset(
            source, points, layout=layout, crop=config.crop, training=training, jitter_mm=jitter_mm, seed=seed
        )
        data = FoldData(
            train,
            _num_batches(source, training.batch_studies),
            _without_ids(evaluation) if held_out.study_ids else None,
        )
        fitter.fit(data, directory, seed=seed, report=_reporter(job, fold))
        _write_oof(job, fitter.model, evaluation, layout, fold)
    _join_oof(job)


def _write_oof(
    job: TrainingJob, model: tf.keras.Model, dataset: tf.data.Dataset, layout: CropLayout, fold: int
) -> None:
    study_ids: list[str] = []
    parts = [np.zeros((0, NUM_FINDINGS, NUM_SEVERITIES))]
    for inputs, _, ids in dataset:
        logits = model(inputs, training=False)
        study_ids += [each.decode() for each in ids.numpy()]
        parts.append(np.exp(log_probabilities(logits, inputs["mask"], layout).numpy().astype(np.float64)))
    path = job.run.fold_directory(job.member, fold) / OOF_NAME
    write_table(path, study_ids, np.concatenate(parts), folds=[fold] * len(study_ids), model=job.name)


def _join_oof(job: TrainingJob) -> None:
    """Writes the member's table once every fold has one."""
    run = job.run
    parts = [run.fold_directory(job.member, fold) / OOF_NAME for fold in run.fold_numbers]
    if not all(part.is_file() for part in parts):
        return
    lines = [part.read_text(encoding="utf-8").splitlines(keepends=True) for part in parts]
    with replace_atomically(run.member_directory(job.member) / OOF_NAME) as temporary:
        temporary.write_text(
            "".join(lines[0][:1] + [row for part in lines for row in part[1:]]), encoding="utf-8"
        )
