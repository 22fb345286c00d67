"""Pictures are compared with `resample_slice`, which resamples DICOM slices in NumPy, without TensorFlow."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lumbar_tf.dicom.study import Study
from lumbar_tf.labels import FINDINGS, NUM_FINDINGS, Condition, Level, Plane, finding_index
from lumbar_tf.records.cohort import open_cohort, read_cohort_study
from lumbar_tf.records.manifest import read_manifest
from lumbar_tf.reports.finding_crops import cut_finding_crops
from lumbar_tf.reports.montage import MontageRow
from lumbar_tf.reports.slice_pictures import choose_slice, encode_png, resample_slice

CANAL = finding_index(Condition.SPINAL_CANAL_STENOSIS, Level.L4_L5)
FORAMEN = finding_index(Condition.RIGHT_NEURAL_FORAMINAL_NARROWING, Level.L3_L4)
RECESS = finding_index(Condition.LEFT_SUBARTICULAR_STENOSIS, Level.L4_L5)


@pytest.fixture(scope="module")
def studies(phantom_cohort: Path) -> dict[str, tuple[Study, np.ndarray]]:
    """Study and annotated points by id, straight from the files."""
    with open_cohort([phantom_cohort]) as cohort:
        return {job.study_id: read_cohort_study(job) for job in cohort.jobs}


@pytest.fixture(scope="module")
def whole(studies: dict[str, tuple[Study, np.ndarray]]) -> str:
    """A study that has all planes and points."""
    rows = [CANAL, FORAMEN, RECESS]
    return next(
        name for name, (study, points) in studies.items()
        if len(study.planes) == 3 and np.isfinite(points[rows]).all()
    )  # fmt: skip


def _pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)), np.float64)


def _nearest(row: MontageRow) -> np.ndarray:
    (picture,) = (picture for picture in row.pictures if picture.caption == "nearest")
    return _pixels(picture.png)


@pytest.mark.parametrize(
    ("finding", "shift"), [(CANAL, (0, 3, 4)), (FORAMEN, (0, -2, 5)), (RECESS, (4, 4, 0))]
)
def test_a_picture_shows_the_slice_nearest_to_the_predicted_point(
    phantom_records: Path,
    studies: dict[str, tuple[Study, np.ndarray]],
    whole: str,
    finding: int,
    shift: tuple[float, float, float],
) -> None:
    study, annotated = studies[whole]
    predicted = np.full((NUM_FINDINGS, 3), np.nan, np.float32)
    predicted[finding] = annotated[finding] + np.array(shift, np.float32)
    by_finding = cut_finding_crops(
        phantom_records, read_manifest(phantom_records), [(whole, finding)], {whole: predicted}
    )
    (found_rows,) = by_finding.values()
    assert tuple(row.plane for row in found_rows) == FINDINGS[finding].condition.family.spec.graded_on
    for row in found_rows:
        point = predicted[finding].astype(np.float64)
        chosen = choose_slice(study.planes[row.plane], point[None].astype(np.float32), max_distance_mm=10)
        assert chosen is not None
        resampled = resample_slice(chosen, point, size_mm=(60.0, 60.0), is_sagittal=row.plane.is_sagittal)
        expected = _pixels(encode_png(resampled.image, (60.0, 60.0), pitch_mm=0.5))
        found = _nearest(row)
        assert found.shape == expected.shape == (120, 120)
        # Records keep the same pixels; crops end at 1.5 times the series' range, and PNGs have 64 greys.
        assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.995
        turned = np.corrcoef(found[:, ::-1].ravel(), expected.ravel())[0, 1]
        assert turned < 0.95


def test_the_annotated_point_is_marked_where_it_lies(
    phantom_records: Path, studies: dict[str, tuple[Study, np.ndarray]], whole: str
) -> None:
    predicted = np.full((NUM_FINDINGS, 3), np.nan, np.float32)
    # LPS: the prediction lies 5 mm behind and 3 mm above the annotator's point.
    predicted[CANAL] = studies[whole][1][CANAL] + np.array([0, 5, 3], np.float32)
    manifest = read_manifest(phantom_records)
    (found_rows,) = cut_finding_crops(
        phantom_records, manifest, [(whole, CANAL)], {whole: predicted}
    ).values()
    sagittal = found_rows[0]
    assert sagittal.note == "around the localizer's point, 5.8 mm from the annotated point"  # sqrt(25 + 9)
    (mark,) = (m for picture in sagittal.pictures if picture.caption == "nearest" for m in picture.marks)
    # Right is backwards and down is down on a sagittal picture of 60 mm; slices may tilt by a few degrees.
    assert (mark.x, mark.y) == (pytest.approx(25, abs=1), pytest.approx(33, abs=1))


def test_without_a_prediction_the_annotated_point_is_the_middle(phantom_records: Path, whole: str) -> None:
    manifest = read_manifest(phantom_records)
    (found_rows,) = cut_finding_crops(phantom_records, manifest, [(whole, FORAMEN)], {}).values()
    (row,) = found_rows
    assert (row.plane, row.note) == (Plane.SAGITTAL_T1, "around the annotated point")
    (mark,) = (m for picture in row.pictures if picture.caption == "nearest" for m in picture.marks)
    assert (mark.x, mark.y) == (30.0, 30.0)
    assert len(row.pictures) == 3


def test_a_finding_that_no_slice_shows_has_no_picture(phantom_records: Path, whole: str) -> None:
    far = np.full((NUM_FINDINGS, 3), 900.0, np.float32)
    manifest = read_manifest(phantom_records)
    assert cut_finding_crops(phantom_records, manifest, [(whole, CANAL)], {whole: far}) == {
        (whole, CANAL): []
    }
    assert cut_finding_crops(phantom_records, manifest, [("absent", CANAL)], {}) == {("absent", CANAL): []}
