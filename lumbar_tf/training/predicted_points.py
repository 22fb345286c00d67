"""Out-of-fold landmarks of the localizers: centres of the crops, and their error as training jitter."""

import dataclasses
import json
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from lumbar_tf.files import file_sha256, write_json_atomically
from lumbar_tf.inputs.crop_layout import complete_points, localizer_rows, refine_points
from lumbar_tf.inputs.record_source import RecordSource, read_points
from lumbar_tf.labels import NUM_LEVELS, Plane
from lumbar_tf.records.manifest import Shard
from lumbar_tf.tables.landmarks import Points, read_doubt, read_landmarks
from lumbar_tf.training.localization_metrics import (
    SliceAgreement,
    measure_landmark_accuracy,
    measure_slice_agreement,
)
from lumbar_tf.training.runs import ERROR_NAME, LOCALIZER, PlaneRun, landmark_tables

#: Jitter without a measured localizer (no point is annotated), mm.
_DEFAULT_JITTER_MM = (2.0, 2.0, 2.0)
#: File in the axial plane's folder: agreement of the level points with the annotators' slices.
SLICES_NAME = "level_slices.json"
_SAGITTAL = (Plane.SAGITTAL_T2, Plane.SAGITTAL_T1)


class CropTables(NamedTuple):
    """Landmark tables for the crops of a grader.

    Attributes:
        level: tables of the sagittal localizers.
        axial: tables of the axial localizer; empty unless crops are anchored at subarticular points.
    """

    level: list[Path]
    axial: list[Path]


def level_tables(run: PlaneRun) -> list[Path]:
    """Returns the tables of the sagittal localizers.

    Raises:
        ValueError: there are none.
    """
    paths = landmark_tables(run.runs, _SAGITTAL)
    if not paths:
        raise ValueError(
            f"The crops of {run.config.plane.value} need the landmarks of a sagittal plane, and {run.runs} "
            "contains none. Run python -m lumbar_tf.train --plane=sagittal_t2 first."
        )
    return paths


def crop_tables(run: PlaneRun) -> CropTables:
    """Returns the tables that the run's graders need.

    Raises:
        ValueError: tables of one kind are missing.
    """
    levels = level_tables(run)
    if run.config.grader.anchor != "subarticular":
        return CropTables(levels, [])
    axial = landmark_tables(run.runs, (Plane.AXIAL_T2,))
    if not axial:
        raise ValueError(
            "grader.anchor=subarticular needs the landmarks of the axial localizer, and "
            f"{run.runs} contains none."
        )
    return CropTables(levels, axial)


def digest_tables(run: PlaneRun, tables: Iterable[Path]) -> dict[str, str]:
    """Returns each table's SHA-256 by its path below the folder of all runs."""
    return {path.relative_to(run.runs).as_posix(): file_sha256(path) for path in tables}


def predicted_landmarks(run: PlaneRun, *, among: Collection[Path] | None = None) -> dict[str, Points]:
    """Returns the held-out landmarks of all studies, float32 [25, 3] by study, LPS mm.

    The subarticular rows contain the axial localizer's points if the run's graders are anchored there, else
    the level points.

    Args:
        run: run with the anchor of its graders.
        among: tables to read; None reads all tables.

    Raises:
        ValueError: there are no landmarks of a sagittal localizer (or of a required axial localizer), or they
        are
            of other folds.
    """
    tables = crop_tables(run)
    levels = predicted_levels(run, among=among)
    return _refine(levels, read_landmarks(_selected(tables.axial, among), folds=run.folds))


def held_out_points(runs: Path, folds: Mapping[str, int]) -> dict[str, Points]:
    """Returns the held-out landmarks of all localizers, float32 [25, 3] by study, LPS mm.

    Args:
        runs: folder of all planes' runs; without landmarks the result is empty.
        folds: fold by study; landmarks of another fold's localizer are refused.

    Returns:
        As `complete_points`, with the axial localizer's points if there are any; NaN where unknown.

    Raises:
        ValueError: a table is invalid, or of other folds.
    """
    levels = _complete(read_landmarks(landmark_tables(runs, _SAGITTAL), folds=folds))
    return _refine(levels, read_landmarks(landmark_tables(runs, (Plane.AXIAL_T2,)), folds=folds))


def _refine(levels: Mapping[str, Points], axial: Mapping[str, Points]) -> dict[str, Points]:
    """Returns the points with the axial localizer's in the subarticular rows, for studies that have these."""
    return {
        study: _refined(points, axial[study]) if study in axial else points
        for study, points in levels.items()
    }


def _refined(points: Points, table: Points) -> Points:
    rows = list(localizer_rows(Plane.AXIAL_T2))
    refined: Points = refine_points(tf.constant(points), tf.constant(table[rows])).numpy()
    return refined


def _selected(paths: Iterable[Path], among: Collection[Path] | None) -> list[Path]:
    return [path for path in paths if among is None or path in among]


def predicted_levels(run: PlaneRun, *, among: Collection[Path] | None = None) -> dict[str, Points]:
    """Returns the points of the sagittal localizers, float32 [25, 3] by study; see `complete_points`.

    Args:
        run: the run.
        among: tables to read; None reads all tables.

    Raises:
        ValueError: there are no landmarks of a sagittal localizer, or they are of other folds.
    """
    return _complete(read_landmarks(_selected(level_tables(run), among), folds=run.folds))


def predicted_doubt(run: PlaneRun, *, among: Collection[Path] | None = None) -> dict[str, Points]:
    """Returns the doubt of the points of `predicted_levels`, float32 [25] by study, NaN where unknown."""
    paths = _selected(landmark_tables(run.runs, _SAGITTAL), among)
    doubts, found = read_doubt(paths), read_landmarks(paths)
    # As in the exported graph: the midpoint of two foramina has the mean of their doubts.
    as_points = {
        study: np.where(np.isfinite(found[study]), doubt[:, np.newaxis], np.float32(np.nan))
        for study, doubt in doubts.items()
    }
    return {study: completed[:, 0] for study, completed in _complete(as_points).items()}


def _complete(tables: Mapping[str, Points]) -> dict[str, Points]:
    if not tables:
        return {}
    points = np.stack(list(tables.values()))
    canal = points[:, :NUM_LEVELS]
    sides = points[:, NUM_LEVELS : 3 * NUM_LEVELS].reshape(-1, 2, NUM_LEVELS, 3)
    foramina = sides.transpose(0, 2, 1, 3).reshape(-1, 2 * NUM_LEVELS, 3)
    completed = complete_points(tf.constant(canal), tf.constant(foramina)).numpy()
    return dict(zip(tables, completed, strict=True))


def write_level_slices(run: PlaneRun) -> SliceAgreement:
    """Measures the agreement of sagittal level points with the annotators' axial slices and writes it.

    Args:
        run: run of the axial plane; its folder receives `level_slices.json`. An existing file of the same
            landmark tables is read instead, since the measurement reads all records of the plane.

    Raises:
        ValueError: as `predicted_levels`.
    """
    path, digests = run.directory / SLICES_NAME, digest_tables(run, level_tables(run))
    if path.is_file():
        known = json.loads(path.read_text(encoding="utf-8"))
        if known.pop("tables_sha256", None) == digests:
            return SliceAgreement(**known)
    levels = predicted_levels(run)
    agreement = measure_slice_agreement(RecordSource(run.shards, tuple(levels)), levels)
    content = {**dataclasses.asdict(agreement), "tables_sha256": digests}
    write_json_atomically(path, content)
    return agreement


def landmark_plane(run: PlaneRun) -> Plane:
    """Returns the plane whose localizer's error is the jitter of the run's graders."""
    is_own = run.config.plane.is_sagittal or run.config.grader.anchor == "subarticular"
    return run.config.plane if is_own else level_plane(run)


def level_plane(run: PlaneRun) -> Plane:
    """Returns the plane whose error is the jitter of level points: sagittal T2, or T1 without T2."""
    trained = [plane for plane in _SAGITTAL if landmark_tables(run.runs, (plane,))]
    return trained[0] if trained else Plane.SAGITTAL_T2


def landmark_jitter(run: PlaneRun, *, fold: int | None) -> tuple[float, float, float]:
    """Returns the standard deviation of the jitter of a grader's landmarks along x, y, z, mm (LPS).

    It is the error of the localizer at the centres of the crops, times the configured factor. Annotations of
    the held-out fold are not used, since the fold is evaluated afterwards.

    Args:
        run: run with the landmark tables of one fold or more.
        fold: held-out fold. The error is measured on the other folds, and is 2 mm if these have no point that
            is both annotated and predicted. None returns the error of all folds in `error.json`, for display
            only.

    Raises:
        ValueError: a table is invalid, or of other folds.
    """
    return _measured_jitter(run, landmark_plane(run), fold=fold, factor=run.config.grader.jitter)


def level_jitter(run: PlaneRun, *, fold: int | None, factor: float) -> tuple[float, float, float]:
    """Returns the standard deviation of the jitter of level points along x, y, z, mm (LPS)."""
    return _measured_jitter(run, level_plane(run), fold=fold, factor=factor)


def _measured_jitter(
    run: PlaneRun, plane: Plane, *, fold: int | None, factor: float
) -> tuple[float, float, float]:
    if not factor:
        return 0.0, 0.0, 0.0
    deviation = _reported_error(run, plane) if fold is None else _error_outside(run, plane, fold)
    x, y, z = (float(value) * factor for value in deviation)
    return x, y, z


def _reported_error(run: PlaneRun, plane: Plane) -> tuple[float, float, float]:
    path = run.runs / plane.value / LOCALIZER / ERROR_NAME
    if not path.is_file():
        return _DEFAULT_JITTER_MM
    error = json.loads(path.read_text(encoding="utf-8"))
    x, y, z = error["sd_mm"] if error["num_points"] else _DEFAULT_JITTER_MM
    return x, y, z


def _error_outside(run: PlaneRun, plane: Plane, fold: int) -> tuple[float, float, float]:
    predicted = read_landmarks(landmark_tables(run.runs, (plane,)), folds=run.folds)
    # A study without a fold could be of this fold.
    others = {study: points for study, points in predicted.items() if run.folds.get(study, fold) != fold}
    shards = run.manifest.planes.get(plane.value, ())
    if not others or not shards:
        return _DEFAULT_JITTER_MM
    error = measure_landmark_accuracy(others, _annotated_points(run.records, shards))
    return error.sd_mm if error.num_points else _DEFAULT_JITTER_MM


@lru_cache(maxsize=2)
def _annotated_points(records: Path, shards: tuple[Shard, ...]) -> dict[str, Points]:
    """Returns the annotated points of a plane's studies; cached for all folds, since it reads all records."""
    study_ids = tuple(study for shard in shards for study in shard.study_ids)
    return read_points(RecordSource(tuple(records / shard.file for shard in shards), study_ids))
