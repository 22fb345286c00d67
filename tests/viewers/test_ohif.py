"""The structured report in OHIF: images show, arrows lead to the right slice, points lie on the right pixel.

The expected slice and pixel of each point come from highdicom's geometry of the files. A bright pixel there
marks it in the images, so that the picture on the canvas is compared with the drawn points.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from highdicom.spatial import ReferenceToImageTransformer
from pydicom.misc import is_dicom

from lumbar_tf.interop.dicom_sr import write_sr
from lumbar_tf.interop.source_references import find_references
from lumbar_tf.labels import FINDINGS, Family, Plane
from lumbar_tf.prediction.results import StudyFindings
from tests.interop import hospital
from tests.interop.hospital_study import (
    NO_IMAGE,
    NO_POINT,
    StoredSlice,
    make_result,
    read_lumbar_study,
    stored_slices,
)
from tests.interop.orthanc import Orthanc, make_orthanc
from tests.interop.sr_reader import read_groups
from tests.reports.browser import CHROMIUM, Tab, open_tab
from tests.viewers.ohif import Viewer, find_pages, serve, wait_for

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

STUDY = hospital.LUMBAR_STUDY
#: T2 and STIR; without them the points are on sagittal T1.
_SAGITTAL_T2_SERIES = (f"{STUDY}.3", f"{STUDY}.4")
#: Stored value of the mark; the brightest tissue has 900.
_MARK = 2500
#: Half the side of the square of the canvas in which the mark is searched, pixels of the canvas.
_REACH = 12


@dataclass(frozen=True, eq=False)
class ExpectedPoint:
    """Slice and position of a finding's point; the centre of the first pixel is 0.5, 0.5."""

    title: str
    sop_instance_uid: str
    frame_number: int
    column: float
    row: float

    @property
    def image(self) -> tuple[str, int]:
        return self.sop_instance_uid, max(self.frame_number, 1)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    find_pages()
    with open_tab(tmp_path_factory.mktemp("profile"), has_webgl=True) as tab:
        yield tab


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    """Yields a running server without studies."""
    server = make_orthanc(tmp_path / "orthanc")
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def disc(tmp_path: Path) -> Path:
    return hospital.write_hospital_export(tmp_path / "disc").root


@pytest.fixture
def viewer(browser: Tab, orthanc: Orthanc) -> Iterator[Viewer]:
    with serve(find_pages(), orthanc) as address:
        yield Viewer(browser, address)
        browser.open("about:blank")


def _files(disc: Path) -> list[Path]:
    paths = [path for path in sorted(disc.rglob("*")) if path.is_file() and path.name != "DICOMDIR"]
    return [path for path in paths if is_dicom(path)]


def _remove_series(disc: Path, series_uids: Sequence[str]) -> None:
    for path in _files(disc):
        if pydicom.dcmread(path, stop_before_pixels=True).SeriesInstanceUID in series_uids:
            path.unlink()


def _locate(slices: list[StoredSlice], title: str, point: np.ndarray) -> ExpectedPoint:
    """Returns the pixel of a point on the nearest slice."""
    nearest = min(slices, key=lambda stored: stored.distance(point))
    to_image = ReferenceToImageTransformer(
        nearest.position.tolist(), nearest.orientation.tolist(), list(nearest.spacing)
    )
    ((column, row, _),) = to_image(np.asarray(point, float)[np.newaxis])
    return ExpectedPoint(title, nearest.sop_instance_uid, nearest.frame_number, column, row)


def _expect(disc: Path, result: StudyFindings, plane: Plane) -> dict[str, ExpectedPoint]:
    """Returns the points of all findings that have one and that an image contributed to, by title."""
    slices = stored_slices(disc)[plane]
    return {
        finding.title: _locate(slices, finding.title, result.landmarks[row])
        for row, finding in enumerate(FINDINGS)
        if row != NO_IMAGE and np.isfinite(result.landmarks[row]).all()
    }


def _mark(disc: Path, points: dict[str, ExpectedPoint]) -> None:
    """Sets the pixel of each point to a bright value."""
    for path in _files(disc):
        dataset = pydicom.dcmread(path)
        here = [point for point in points.values() if point.sop_instance_uid == dataset.SOPInstanceUID]
        if not here:
            continue
        if dataset.file_meta.TransferSyntaxUID.is_compressed:
            dataset.decompress(generate_instance_uid=False)
        pixels = dataset.pixel_array.copy()
        frames = pixels if pixels.ndim == 3 else pixels[np.newaxis]
        for point in here:
            frames[max(point.frame_number - 1, 0), math.floor(point.row), math.floor(point.column)] = _MARK
        dataset.PixelData = pixels.astype("<u2").tobytes()
        dataset.save_as(path, enforce_file_format=True)


def _upload(orthanc: Orthanc, disc: Path, report: Path | None = None) -> None:
    for path in _files(disc):
        orthanc.upload(path)
    if report is not None:
        orthanc.upload(report)


def _write_report(disc: Path, path: Path, landmarks: np.ndarray | None = None) -> StudyFindings:
    study = read_lumbar_study(disc)
    result = make_result(study)
    if landmarks is not None:
        result = replace(result, landmarks=landmarks)
    write_sr(path, find_references(study), result, model="7")
    return result


def _wait_for_image(viewer: Viewer, image: tuple[str, int]) -> None:
    wait_for(lambda: viewer.image() == image, f"image {image}")


def _read_titles(viewer: Viewer) -> list[str]:
    return sorted(label.lines[0].partition(",")[0] for label in viewer.labels())


def _check_points(viewer: Viewer, points: list[ExpectedPoint], percents: dict[str, str]) -> None:
    """Checks the text of a slice's labels, and that each arrow ends on the mark of its point."""
    found = {label.lines[0].partition(",")[0]: label for label in viewer.labels()}
    for point in points:
        label = found[point.title]
        assert label.lines == (percents[point.title],)
        mark, pixel_side = _find_mark(viewer, label.tip)
        # The point need not be in the middle of its pixel, where the mark is.
        offset = np.array([math.floor(point.column) - point.column, math.floor(point.row) - point.row]) + 0.5
        error = (np.array(label.tip) - mark) / pixel_side + offset
        assert np.abs(error).max() < 0.3, (point, label, error)


def _find_mark(viewer: Viewer, tip: tuple[float, float]) -> tuple[np.ndarray, float]:
    """Returns the centre of the mark near a tip and the side of an image's pixel, pixels of the canvas."""
    left, top = (math.floor(value) - _REACH for value in tip)
    picture = viewer.picture(left, top, 2 * _REACH + 1)
    # The tissue around it is at most 900 / 2500 as bright.
    weight = np.clip(picture - 130, 0, None)
    assert weight.max() > 60, "no mark near the tip"
    rows, columns = np.indices(weight.shape)
    centre = np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()
    return centre + [left + 0.5, top + 0.5], viewer.pixel_side()


def test_a_study_without_a_report_shows_its_images(viewer: Viewer, orthanc: Orthanc, disc: Path) -> None:
    _upload(orthanc, disc)
    viewer.open_study(STUDY)
    assert viewer.contrast() > 10
    assert not viewer.has_report()


@pytest.mark.parametrize(
    ("plane", "has_all_points"),
    [
        pytest.param(Plane.SAGITTAL_T2, True, id="all points on one file with many frames"),
        pytest.param(Plane.SAGITTAL_T1, False, id="a point is missing, files with one frame"),
    ],
)
def test_the_arrows_of_a_report_lead_to_its_points_on_the_right_pixels(
    viewer: Viewer, orthanc: Orthanc, disc: Path, tmp_path: Path, plane: Plane, has_all_points: bool
) -> None:
    if plane is Plane.SAGITTAL_T1:
        _remove_series(disc, _SAGITTAL_T2_SERIES)
    points = make_result(read_lumbar_study(disc)).landmarks.copy()
    # Away from the foraminal points, so that no two marks touch.
    subarticular = [finding.condition.family is Family.SUBARTICULAR for finding in FINDINGS]
    points[subarticular] += np.array([0, 8, 0], np.float32)
    if has_all_points:
        points[NO_POINT] = points[NO_POINT - 1] + np.array([0, 3, -25], np.float32)
    result = _write_report(disc, tmp_path / "sr.dcm", points)
    expected = _expect(disc, result, plane)
    assert len(expected) == len(FINDINGS) - (1 if has_all_points else 2)
    _mark(disc, expected)
    _upload(orthanc, disc, tmp_path / "sr.dcm")

    viewer.open_study(STUDY)
    assert viewer.contrast() > 10
    viewer.open_report()
    wait_for(viewer.has_arrows, "the arrows of the report")
    wait_for(viewer.labels, "a drawn point")
    drawn = [group.drawn_point for group in read_groups(tmp_path / "sr.dcm") if group.is_drawn]
    percents = {point.name.partition(",")[0]: f"{point.name}: {point.percent:.2f} %" for point in drawn}
    titles = [finding.title for finding in FINDINGS if finding.title in expected]
    assert list(percents) == titles
    for title in titles:
        point = expected[title]
        _wait_for_image(viewer, point.image)
        here = [other for other in expected.values() if other.image == point.image]
        # They are drawn after the image.
        titles_here = sorted(other.title for other in here)
        wait_for(lambda shown=titles_here: _read_titles(viewer) == shown, f"the labels {titles_here}")
        assert viewer.contrast() > 5
        _check_points(viewer, here, percents)
        viewer.press_arrow()
    # After the last point comes the first.
    _wait_for_image(viewer, expected[titles[0]].image)
    viewer.press_arrow(is_back=True)
    _wait_for_image(viewer, expected[titles[-1]].image)


def test_a_report_without_points_is_shown_as_text(
    viewer: Viewer, orthanc: Orthanc, disc: Path, tmp_path: Path
) -> None:
    nowhere = np.full((len(FINDINGS), 3), np.nan, np.float32)
    _write_report(disc, tmp_path / "sr.dcm", nowhere)
    _upload(orthanc, disc, tmp_path / "sr.dcm")
    viewer.open_study(STUDY)
    assert viewer.contrast() > 10
    viewer.open_report()
    wait_for(lambda: "Research use, not a medical device." in viewer.text(), "the text of the report")
    text = viewer.text()
    assert all(finding.title in text for finding in FINDINGS)
    assert "ratio" not in text
