"""The points that localizers left, out of fold: what crops are cut around, and how far they are off."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from lumbar_tf.data.anchors import complete_points, localizer_rows, refine_points
from lumbar_tf.data.landmarks import Points, read_doubt, read_landmarks
from lumbar_tf.data.record_source import RecordSource
from lumbar_tf.data.slice_choice import SliceChoice, measure_slice_choice
from lumbar_tf.ensemble.runs import ERROR_NAME, LOCALIZER, PlaneRun, landmark_tables
from lumbar_tf.files import replace_atomically
from lumbar_tf.labels import NUM_LEVELS, Plane

#: The jitter where no localizer was measured (no point is annotated), mm.
_DEFAULT_JITTER_MM = (2.0, 2.0, 2.0)
#: Of the axial plane's folder: how often the level points lead to the annotator's slice.
SLICES_NAME = "level_slices.json"
_SAGITTAL = (Plane.SAGITTAL_T2, Plane.SAGITTAL_T1)


def predicted_landmarks(run: PlaneRun) -> dict[str, Points]:
    """Returns the held-out landmarks of all studies, float32 [25, 3] by study, LPS mm.

    The subarticular rows hold the level points, or where the run's graders are anchored there what the axial
    localizer found.

    Raises:
        ValueError: no sagittal localizer was trained (or no axial one where it is needed), or one was trained
            on other folds.
    """
    levels = predicted_levels(run)
    if run.config.grader.anchor != "subarticular":
        return levels
    paths = landmark_tables(run.runs, (Plane.AXIAL_T2,))
    if not paths:
        raise ValueError(
            "grader.anchor=subarticular needs the landmarks of the axial localizer, and "
            f"{run.runs} holds none."
        )
    return _refine(levels, read_landmarks(paths, folds=run.folds))


def held_out_points(runs: Path, folds: Mapping[str, int]) -> dict[str, Points]:
    """Returns all that localizers found of studies that they held out, float32 [25, 3] by study, LPS mm.

    Args:
        runs: folder of all planes' runs; one without landmarks gives no point.
        folds: fold by study; a landmark found by a localizer of another fold is refused.

    Returns:
        As `complete_points`, with the axial localizer's points where there is one; NaN where unknown.

    Raises:
        ValueError: a table is at fault, or of other folds.
    """
    levels = _complete(read_landmarks(landmark_tables(runs, _SAGITTAL), folds=folds))
    return _refine(levels, read_landmarks(landmark_tables(runs, (Plane.AXIAL_T2,)), folds=folds))


def _refine(levels: Mapping[str, Points], axial: Mapping[str, Points]) -> dict[str, Points]:
    # A study without an axial plane is not asked for.
    return {
        study: _refined(points, axial[study]) if study in axial else points
        for study, points in levels.items()
    }


def _refined(points: Points, table: Points) -> Points:
    rows = list(localizer_rows(Plane.AXIAL_T2))
    refined: Points = refine_points(tf.constant(points), tf.constant(table[rows])).numpy()
    return refined


def predicted_levels(run: PlaneRun) -> dict[str, Points]:
    """Returns what the sagittal localizers found, float32 [25, 3] by study; see `complete_points`.

    Raises:
        ValueError: there is no sagittal localizer, or one was trained on other folds.
    """
    paths = landmark_tables(run.runs, _SAGITTAL)
    if not paths:
        raise ValueError(
            f"The crops of {run.config.plane.value} need the landmarks of a sagittal plane, and {run.runs} "
            "holds none. Run python -m lumbar_tf.train --plane=sagittal_t2 first."
        )
    return _complete(read_landmarks(paths, folds=run.folds))


def predicted_doubt(run: PlaneRun) -> dict[str, Points]:
    """Returns the doubt in each point of `predicted_levels`, float32 [25] by study, NaN where unknown."""
    paths = landmark_tables(run.runs, _SAGITTAL)
    doubts, found = read_doubt(paths), read_landmarks(paths)
    # As the exported graph does: a level point midway between two foramina has the mean of their doubts.
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


def write_level_slices(run: PlaneRun) -> SliceChoice:
    """Measures how often the sagittal level points lead to the annotator's axial slice, and writes it.

    Args:
        run: of the axial plane; its folder gets `level_slices.json`.

    Raises:
        ValueError: as `predicted_levels`.
    """
    levels = predicted_levels(run)
    choice = measure_slice_choice(RecordSource(run.shards, tuple(levels)), levels)
    with replace_atomically(run.directory / SLICES_NAME) as temporary:
        temporary.write_text(json.dumps(dataclasses.asdict(choice), indent=1), encoding="utf-8")
    return choice


def landmark_jitter(run: PlaneRun) -> tuple[float, float, float]:
    """Returns the standard deviation of the jitter of a grader's landmarks along x, y, z, mm (LPS).

    It is the error measured of the localizer whose points the crops are cut around, or 2 mm where none was
    measured, times the configured factor.
    """
    is_own = run.config.plane.is_sagittal or run.config.grader.anchor == "subarticular"
    plane = run.config.plane if is_own else Plane.SAGITTAL_T2
    return _measured_jitter(run, plane, factor=run.config.grader.jitter)


def level_jitter(run: PlaneRun, *, factor: float) -> tuple[float, float, float]:
    """Returns the same of the level points, times a factor."""
    return _measured_jitter(run, Plane.SAGITTAL_T2, factor=factor)


def _measured_jitter(run: PlaneRun, plane: Plane, *, factor: float) -> tuple[float, float, float]:
    path = run.runs / plane.value / LOCALIZER / ERROR_NAME
    deviation = _DEFAULT_JITTER_MM
    if path.is_file():
        error = json.loads(path.read_text(encoding="utf-8"))
        deviation = error["sd_mm"] if error["num_points"] else deviation
    x, y, z = (float(each) * factor for each in deviation)
    return x, y, z
