"""Runs with three tiny studies, one per fold, and localizers of a given error."""

from pathlib import Path

import numpy as np
import tensorflow as tf

from lumbar_tf.config import load_plane_config
from lumbar_tf.dicom.geometry import SliceGeometry
from lumbar_tf.dicom.study import Slice
from lumbar_tf.inputs.crop_layout import localizer_rows
from lumbar_tf.labels import Plane
from lumbar_tf.records.manifest import BuildOptions, Manifest, Shard
from lumbar_tf.records.schema import encode_plane
from lumbar_tf.tables.landmarks import LandmarkTable, write_landmarks
from lumbar_tf.training.runs import LOCALIZER, PlaneRun

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
#: Fold by study.
FOLDS = {"a": 0, "b": 1, "c": 2}
AXIAL_LOCALIZER = (
    "localizer={backbone: mobilenet_v2, side_mm: 64, side_px: 96, num_slices: 5, "
    "training: {epochs: 1, batch_studies: 1, learning_rate: 0.001}}"
)
_SMALL = ("grader.crop.side_mm=20", "grader.crop.side_px=16", "grader.training.batch_studies=1")


def annotated_points(study: str) -> np.ndarray:
    """Returns a study's annotated points, float32 [25, 3], LPS mm, within its slices."""
    return np.random.default_rng(ord(study)).uniform(-8, 8, (25, 3)).astype(np.float32).round(3)


def _geometry(plane: Plane, place_mm: float) -> SliceGeometry:
    """Returns one of the slices about the patient's origin."""
    if plane is Plane.AXIAL_T2:
        return SliceGeometry((-20, -20, place_mm), (1, 0, 0), (0, 1, 0), 1.3, 1.1, 36, 36)
    return SliceGeometry((place_mm, -20, 20), (0, 1, 0), (0, 0, -1), 1.3, 1.1, 36, 36)


def write_records(folder: Path) -> Manifest:
    """Writes a shard for each plane; its images are noise."""
    folder.mkdir()
    rng = np.random.default_rng(5)
    planes = {}
    for plane in Plane:
        with tf.io.TFRecordWriter(str(folder / plane.value)) as writer:
            for study in FOLDS:
                slices = [
                    Slice(
                        _geometry(plane, 4.0 * (k - 2)),
                        rng.integers(0, 900, (36, 36)).astype(np.float32),
                        "1",
                        k + 1,
                    )
                    for k in range(5)
                ]
                # One level's canal is not annotated, so that a crop is cut at a predicted point, too.
                points = annotated_points(study)
                points[4] = np.nan
                labels = rng.integers(0, 3, 25)
                writer.write(encode_plane(study, plane, slices, labels=labels, points=points))
        shard = Shard(file=plane.value, sha256="", size_bytes=1, num_examples=3, study_ids=tuple(FOLDS))
        planes[plane.value] = (shard,)
    options = BuildOptions(studies_per_shard=64, num_folds=3, fold_seed=0)
    return Manifest(
        schema_version="2.0.0", packages={}, options=options, planes=planes, studies=(), rejects=()
    )


def open_located(folder: Path, plane: Plane, *overrides: str) -> PlaneRun:
    """Returns a run of a plane on the records in `folder`/records, which are written if absent."""
    records = folder / "records"
    path = records / "made.json"
    if not path.is_file():
        path.write_text(write_records(records).model_dump_json(), encoding="utf-8")
    manifest = Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    config = load_plane_config(CONFIGS / f"{plane.value}.yaml", overrides=(*_SMALL, *overrides))
    return PlaneRun(config, records, folder / "runs", manifest, FOLDS)


def write_found(run: PlaneRun, plane: Plane, fold: int, *, miss_mm: float | np.ndarray) -> Path:
    """Writes the table of a localizer with this error along each axis, or of each point; returns its path."""
    rows = localizer_rows(plane)
    studies = [study for study, other in FOLDS.items() if other == fold]
    points = np.stack([annotated_points(study)[list(rows)] for study in studies]) + np.float32(miss_mm)
    nothing = np.zeros(points.shape[:2], np.float32)
    path = run.runs / plane.value / LOCALIZER / f"fold{fold}" / "landmarks.csv"
    write_landmarks(path, LandmarkTable(studies, rows, points, nothing, nothing, fold))
    return path
