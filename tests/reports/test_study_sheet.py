from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from lumbar_tf.dicom.geometry import SliceGeometry
from lumbar_tf.dicom.study import Slice, Study
from lumbar_tf.labels import Condition, Flag, Level, Plane, finding_index
from lumbar_tf.prediction.results import StudyFindings
from lumbar_tf.reports.probability_table import expected_severity
from lumbar_tf.reports.study_sheet import draw_study_sheet
from lumbar_tf.serving.training_data import TrainingData

SAGITTAL = ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0))
AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))


def _slice(position: tuple, directions: tuple) -> Slice:
    pixels = np.random.default_rng(0).integers(0, 900, (40, 40)).astype(np.float32)
    return Slice(SliceGeometry(position, *directions, 4.0, 4.0, 40, 40), pixels, "1", 1)


@pytest.fixture
def study() -> Study:
    sagittals = tuple(_slice((x, -80.0, 80.0), SAGITTAL) for x in (-16.0, 0.0, 16.0))
    # L5/S1, at z = -60, is left out, as in many real studies.
    axials = tuple(_slice((-80.0, -80.0, z), AXIAL) for z in (61.0, 31.0, 1.0, -29.0))
    planes = {Plane.SAGITTAL_T1: sagittals, Plane.SAGITTAL_T2: sagittals, Plane.AXIAL_T2: axials}
    return Study("s-1", "Doe^Jane", planes)


@pytest.fixture
def result() -> StudyFindings:
    landmarks = np.zeros((25, 3), np.float32)
    for condition, x in zip(Condition, (0, 16, -16, 8, -8), strict=True):
        for place, level in enumerate(Level):
            landmarks[finding_index(condition, level)] = (x, 0, 60 - 30 * place)
    probability = np.random.default_rng(0).dirichlet([1, 1, 1], 25).astype(np.float32)
    return StudyFindings(
        "s-1",
        probability,
        probability,
        probability[np.newaxis],
        landmarks,
        np.zeros((25, len(Flag)), np.bool_),
    )


def test_the_sheet_of_a_complete_study(
    tmp_path: Path, study: Study, result: StudyFindings, written: list[str]
) -> None:
    draw_study_sheet(tmp_path / "new" / "sheet.png", study, result)
    pixels = imread(tmp_path / "new" / "sheet.png")[..., :3]
    assert min(pixels.shape[:2]) > 600
    assert pixels.std() > 0.1
    assert "Study s-1" in written
    assert any("not a medical device" in text for text in written)
    assert not any("Doe" in text for text in written)
    assert {"A", "P", "R", "L"} <= set(written)
    # Three sagittal pictures, a column's head, and for axial pictures their title, name L1/L2.
    assert written.count("L1/L2") == 5
    assert "slice at x = 16 mm R" in written
    assert "slice at x = 16 mm L" in written
    assert sum("no slice within" in text for text in written) == 1  # axial at L5/S1
    shares = [text for text in written if text.endswith("%")]
    assert shares == [f"{100 * value:.0f}%" for value in result.probability.ravel()]


@pytest.mark.parametrize("training", [TrainingData(), TrainingData("W" * 150), TrainingData("$x$", True)])
def test_the_note_on_the_training_data_is_drawn_whole(
    tmp_path: Path, study: Study, result: StudyFindings, written: list[str], training: TrainingData
) -> None:
    draw_study_sheet(tmp_path / "a.png", study, replace(result, training=training))
    assert training.note in written
    margin = imread(tmp_path / "a.png")[:20, -10:, :3]
    # Nothing but the background at the right edge.
    assert np.ptp(margin, axis=(0, 1)).max() == 0


def test_missing_planes_points_and_results_are_named(
    tmp_path: Path, study: Study, result: StudyFindings, written: list[str]
) -> None:
    flags, landmarks, probability = result.flags.copy(), result.landmarks.copy(), result.probability.copy()
    flags[:, list(Flag).index(Flag.NO_AXIAL_T2)] = True
    flags[2, list(Flag).index(Flag.NO_LANDMARK)] = True
    landmarks[[2, *range(5, 10)]] = np.nan
    probability[4] = np.nan
    study = replace(study, planes={Plane.SAGITTAL_T1: study.planes[Plane.SAGITTAL_T1]})
    draw_study_sheet(
        tmp_path / "a.png", study, replace(result, flags=flags, landmarks=landmarks, probability=probability)
    )
    assert sum("no Sagittal T2" in text for text in written) == 1
    assert sum("no Axial T2" in text for text in written) == 5
    assert written.count("no points found") == 1  # the left foramina
    assert written.count("no result") == 1
    assert written.count("‡") == 24
    assert written.count("‡§") == 1
    assert any("axial T2 (25 of 25 findings)" in text and "(1 of 25 findings)" in text for text in written)


def test_an_empty_study_makes_a_sheet(tmp_path: Path, result: StudyFindings) -> None:
    empty = np.full((25, 3), np.nan, np.float32)
    draw_study_sheet(
        tmp_path / "a.png", Study("s", "", {}), replace(result, probability=empty, landmarks=empty)
    )
    assert (tmp_path / "a.png").is_file()


def test_a_dollar_sign_in_a_study_id_starts_no_formula(
    tmp_path: Path, study: Study, result: StudyFindings
) -> None:
    draw_study_sheet(tmp_path / "a.png", study, replace(result, study_id=r"$\frac{$"))
    assert (tmp_path / "a.png").is_file()


def test_expected_severity_is_the_mean_grade() -> None:
    assert expected_severity(np.array([0, 0, 1], np.float32)) == 2
    assert expected_severity(np.array([1, 0, 0], np.float32)) == 0
