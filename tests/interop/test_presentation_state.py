"""Presentation states, read with pydicom and dcmtk; positions and sides computed from DICOM attributes."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.misc import is_dicom
from pydicom.uid import GrayscaleSoftcopyPresentationStateStorage

from lumbar_tf.dicom.study import Study
from lumbar_tf.interop.dicom_sr import write_sr
from lumbar_tf.interop.presentation_state import make_presentation_states, write_presentation_states
from lumbar_tf.interop.source_references import find_references
from lumbar_tf.labels import FINDINGS, Family, Plane, Severity
from lumbar_tf.prediction.crop_outlines import CropOutline, PlaneCropOutlines
from lumbar_tf.prediction.results import StudyFindings
from tests.interop import hospital
from tests.interop.dciodvfy import find_errors
from tests.interop.hospital_study import (
    NO_IMAGE,
    NO_POINT,
    StoredSlice,
    make_result,
    mirror,
    read_lumbar_study,
    stored_slices,
)
from tests.interop.presentation_reader import (
    ZOOM,
    DrawnSlice,
    decompress,
    draw,
    read_slices,
    render_grey,
    run_dcmtk,
)
from tests.interop.sr_reader import read_groups

#: Planes on which a reader grades each family, from the competition's description.
GRADED_ON = {
    Family.CANAL: (Plane.SAGITTAL_T2, Plane.AXIAL_T2),
    Family.FORAMINAL: (Plane.SAGITTAL_T1,),
    Family.SUBARTICULAR: (Plane.AXIAL_T2,),
}
TITLES = [f"{finding.condition.title} {finding.level.title}" for finding in FINDINGS]
#: Half of the edge of a crop, mm.
HALF_MM = 20.0


def square_outlines(study: Study, result: StudyFindings) -> dict[Plane, PlaneCropOutlines]:
    """Returns squares around the points, along the axes of the nearest slice and of its neighbour."""
    outlines = {}
    for plane, slices in study.planes.items():
        crops: dict[int, tuple[CropOutline, ...]] = {}
        for row, finding in enumerate(FINDINGS):
            point = result.landmarks[row].astype(float)
            if plane not in GRADED_ON[finding.condition.family] or not np.isfinite(point).all():
                continue
            distances = [
                abs(float((point - np.array(item.geometry.position)) @ item.geometry.normal))
                for item in slices
            ]
            nearest = int(np.argmin(distances))
            crops[row] = tuple(
                _square(study, plane, index, point) for index in (nearest, nearest + 1) if index < len(slices)
            )
        outlines[plane] = PlaneCropOutlines(2 * HALF_MM, crops)
    return outlines


def _square(study: Study, plane: Plane, index: int, point: np.ndarray) -> CropOutline:
    geometry = study.planes[plane][index].geometry
    along, down = np.array(geometry.row_direction), np.array(geometry.column_direction)
    offset = point - np.array(geometry.position)
    centre = np.array(geometry.position) + (offset @ along) * along + (offset @ down) * down
    signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    corners = np.array([centre + HALF_MM * (x * along + y * down) for x, y in signs], np.float32)
    return CropOutline(index, corners, 0.0)


@dataclass(frozen=True, eq=False)
class Written:
    """States of the hospital's study, and what they were made of."""

    disc: Path
    study: Study
    result: StudyFindings
    outlines: Mapping[Plane, PlaneCropOutlines]
    paths: list[Path]

    def drawn(self) -> list[DrawnSlice]:
        return [drawn for path in self.paths for drawn in read_slices(path)]


def _write(folder: Path, disc: Path, study: Study, result: StudyFindings) -> Written:
    outlines = square_outlines(study, result)
    folder.mkdir()
    write_presentation_states(
        folder / "1.gsps-*.dcm", find_references(study), study, result, outlines, model="7"
    )
    return Written(disc, study, result, outlines, sorted(folder.iterdir()))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("gsps")
    disc = hospital.write_hospital_export(folder / "disc").root
    study = read_lumbar_study(disc)
    return _write(folder / "out", disc, study, make_result(study))


def _pixel(stored: StoredSlice, point: np.ndarray) -> tuple[float, float]:
    """Returns column and row of a point, 0.5, 0.5 for the centre of the first pixel (PS3.3 C.10.5)."""
    to_pixel = hd.spatial.ReferenceToImageTransformer(
        image_position=stored.position.tolist(),
        image_orientation=stored.orientation.tolist(),
        pixel_spacing=stored.spacing,
    )
    ((column, row, _),) = to_pixel(np.asarray(point, float)[np.newaxis])
    return float(column), float(row)


def _slices(disc: Path) -> dict[tuple[str, int | None], tuple[Plane, StoredSlice]]:
    """Returns all slices of the used series by SOPInstanceUID and frame."""
    return {
        (stored.sop_instance_uid, stored.frame_number or None): (plane, stored)
        for plane, members in stored_slices(disc).items()
        for stored in members
    }


def _images(disc: Path) -> dict[str, Path]:
    paths = [path for path in disc.rglob("*") if path.is_file() and is_dicom(path)]
    return {str(pydicom.dcmread(path).get("SOPInstanceUID", "")): path for path in paths}


def test_there_is_a_valid_state_for_each_series(written: Written) -> None:
    series = []
    for path in written.paths:
        assert find_errors(path) == []
        assert "Test passed" in run_dcmtk("dcmpschk", path)
        state = pydicom.dcmread(path)
        assert state.SOPClassUID == GrayscaleSoftcopyPresentationStateStorage and state.Modality == "PR"
        assert state.StudyInstanceUID == hospital.LUMBAR_STUDY
        assert str(state.PatientName) == hospital.IDENTITY["PatientName"]
        (referenced,) = state.ReferencedSeriesSequence
        series.append(referenced.SeriesInstanceUID)
        assert "ShutterShape" not in state and "ImageRotation" not in state
    assert series == [f"{hospital.LUMBAR_STUDY}.{number}" for number in (2, 3, 6)]
    assert len({pydicom.dcmread(path).SeriesInstanceUID for path in written.paths}) == 1


def test_a_state_refers_to_all_images_of_its_series_and_frames_of_its_file(written: Written) -> None:
    expected = set(_slices(written.disc))
    found = set()
    for path in written.paths:
        for image in pydicom.dcmread(path).ReferencedSeriesSequence[0].ReferencedImageSequence:
            frames = image.get("ReferencedFrameNumber")
            numbers = [None] if frames is None else [int(number) for number in frames]
            found |= {(str(image.ReferencedSOPInstanceUID), number) for number in numbers}
    assert found == expected


def test_each_point_is_at_the_pixel_of_its_level_point_on_the_nearest_slice_of_the_graded_planes(
    written: Written,
) -> None:
    slices = _slices(written.disc)
    planes: dict[str, set[Plane]] = {title: set() for title in TITLES}
    for drawn in written.drawn():
        plane, stored = slices[drawn.sop_instance_uid, drawn.frame_number]
        for title, place in drawn.points.items():
            point = written.result.landmarks[TITLES.index(title)].astype(float)
            # highdicom's transform, from the file's attributes.
            assert place == pytest.approx(_pixel(stored, point), abs=1e-3)
            others = [other.distance(point) for of, other in slices.values() if of is plane]
            assert stored.distance(point) == pytest.approx(min(others), abs=1e-4)
            assert plane not in planes[title]
            planes[title].add(plane)
    for row, finding in enumerate(FINDINGS):
        missing = row in (NO_POINT, NO_IMAGE)
        assert planes[TITLES[row]] == (set() if missing else set(GRADED_ON[finding.condition.family]))


def test_a_point_is_where_the_structured_report_has_it_and_has_the_same_tracking_uid(
    written: Written, tmp_path: Path
) -> None:
    write_sr(tmp_path / "sr.dcm", find_references(written.study), written.result, model="7")
    points = {
        (title, drawn.sop_instance_uid, drawn.frame_number): place
        for drawn in written.drawn()
        for title, place in drawn.points.items()
    }
    uids = {
        item.TrackingID: item.TrackingUID
        for path in written.paths
        for annotation in pydicom.dcmread(path).GraphicAnnotationSequence
        for item in annotation.get("GraphicObjectSequence", ())
        if "TrackingID" in item
    }
    num_shared = 0
    for group in read_groups(tmp_path / "sr.dcm"):
        if not group.is_drawn:
            assert group.name not in uids
            continue
        assert group.group.tracking_uid == uids[group.name]
        point = group.drawn_point
        place = points.get((group.name, point.sop_instance_uid, point.frame_number))
        if place is not None:
            assert place == pytest.approx((point.column, point.row), abs=1e-3)
            num_shared += 1
    # The report has all points on sagittal T2, where the states have the canal's.
    assert num_shared == 5


def test_a_label_names_side_condition_level_and_grade(written: Written) -> None:
    words = {Severity.NORMAL_MILD: "Normal/Mild", Severity.MODERATE: "Moderate", Severity.SEVERE: "Severe"}
    for drawn in written.drawn():
        by_anchor = {text.anchor: text for text in drawn.texts}
        for title, place in drawn.points.items():
            row = TITLES.index(title)
            finding = FINDINGS[row]
            lines = by_anchor[place].text.split("\r\n")
            side = "" if finding.condition.side is None else f"{finding.condition.side.value} "
            assert lines[0] == f"{side}{finding.condition.family.value}".capitalize()
            grade = words[Severity(int(written.result.probability[row].argmax()))]
            assert lines[1] == f"{title.split()[-1]}: {grade}"


def test_labels_of_a_side_are_on_the_patients_side_of_their_point_on_axial_slices(written: Written) -> None:
    slices = _slices(written.disc)
    num_labels = 0
    for drawn in written.drawn():
        plane, stored = slices[drawn.sop_instance_uid, drawn.frame_number]
        boxes = [text.box for text in drawn.texts if text.units == "PIXEL"]
        for left, top, right, bottom in boxes:
            assert 0 <= left < right <= stored.shape[1] and 0 <= top < bottom <= stored.shape[0]
        if plane is not Plane.AXIAL_T2:
            continue
        for text in drawn.texts:
            if text.anchor is None or text.text.startswith("Canal"):
                continue
            middle = (text.box[0] + text.box[2]) / 2 - text.anchor[0]
            # x increases to the patient's left.
            towards_left = middle * stored.orientation[0] > 0
            assert towards_left == text.text.startswith("Left")
            num_labels += 1
        for place, (left, top, right, bottom) in enumerate(boxes):
            for other in boxes[:place]:
                assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top
    assert num_labels == 10


@pytest.mark.parametrize("is_mirrored", [False, True])
def test_a_left_finding_is_left_of_the_right_one_in_the_patient(
    written: Written, tmp_path: Path, is_mirrored: bool
) -> None:
    slices = _slices(written.disc)
    states = written
    if is_mirrored:
        study, result = mirror(written.study, written.result)
        states = _write(tmp_path / "mirrored", written.disc, study, result)
    places: dict[str, float] = {}
    for drawn in states.drawn():
        plane, stored = slices[drawn.sop_instance_uid, drawn.frame_number]
        if plane is Plane.AXIAL_T2:
            for title, (column, row) in drawn.points.items():
                # Patient x of the pixel, by equation C.7.6.2.1-1 of PS3.3, from the files of the export.
                along, down = stored.orientation[0], stored.orientation[3]
                x = stored.position[0] + along * stored.spacing[1] * (column - 0.5)
                x += down * stored.spacing[0] * (row - 0.5)
                # The mirrored patient has the same pixels, with x negated.
                places[title] = -x if is_mirrored else x
    pairs = 0
    for title, x in places.items():
        other = title.replace("Left", "Right")
        if title.startswith("Left") and other in places:
            assert x > places[other] + 10
            pairs += 1
    assert pairs >= 4


def test_outlines_are_the_crops_inside_the_image(written: Written) -> None:
    slices = _slices(written.disc)
    found: dict[tuple[str, int | None], list[np.ndarray]] = {}
    for drawn in written.drawn():
        _, stored = slices[drawn.sop_instance_uid, drawn.frame_number]
        for outline in drawn.outlines:
            np.testing.assert_array_equal(outline[0], outline[-1])
            assert (outline >= 0).all() and (outline <= stored.shape[::-1]).all()
        found[drawn.sop_instance_uid, drawn.frame_number] = list(drawn.outlines)
    num_expected = 0
    for plane, in_plane in written.outlines.items():
        # In the order of the study's slices.
        for row, outlines in in_plane.crops.items():
            for outline in outlines if row != NO_IMAGE else ():
                origin = written.study.planes[plane][outline.index].origin
                assert origin is not None
                key = (origin.sop_instance_uid, origin.frame_number or None)
                _, stored = slices[key]
                corners = np.array([_pixel(stored, corner) for corner in outline.corners])
                low, high = corners.min(axis=0), corners.max(axis=0)
                expected = np.clip([low, high], 0, stored.shape[::-1])
                assert any(
                    np.allclose([item.min(axis=0), item.max(axis=0)], expected, atol=1e-2)
                    for item in found[key]
                )
                num_expected += 1
    assert num_expected > 40


def test_dcmtk_renders_the_reports_window_and_the_drawn_pixels_are_at_the_points(
    written: Written, tmp_path: Path
) -> None:
    images, slices = _images(written.disc), _slices(written.disc)
    for path in written.paths:
        drawn = max(read_slices(path), key=lambda each: len(each.points))
        plane, stored = slices[drawn.sop_instance_uid, drawn.frame_number]
        grey = render_grey(path, images[drawn.sop_instance_uid], drawn.frame_number, tmp_path)
        series = np.concatenate([item.pixels.ravel() for item in written.study.planes[plane]])
        low, high = np.percentile(series, [1, 99.5])
        dataset = pydicom.dcmread(images[drawn.sop_instance_uid])
        pixels = (
            dataset.pixel_array if drawn.frame_number is None else dataset.pixel_array[drawn.frame_number - 1]
        )
        expected = 255 * np.clip((pixels.astype(float) - low) / (high - low), 0, 1)
        # dcmtk rounds the limits of the window and the grey values.
        np.testing.assert_allclose(grey, expected, atol=2)
        # The yellow pixels of the picture are around the level points and nowhere else.
        picture = np.asarray(draw(grey, drawn)).astype(int)
        is_yellow = (picture == (255, 255, 0)).all(axis=-1)
        rows, columns = np.nonzero(is_yellow)
        points = [_pixel(stored, written.result.landmarks[TITLES.index(title)]) for title in drawn.points]
        distances = np.array(
            [[np.hypot((column + 0.5) / ZOOM - x, (row + 0.5) / ZOOM - y) for x, y in points]
             for row, column in zip(rows, columns, strict=True)]
        )  # fmt: skip
        assert distances.min(axis=1).max() <= 4 / ZOOM + 0.2
        assert (distances.min(axis=0) <= 1 / ZOOM + 0.2).all()


def test_dcmtk_reads_the_same_points_and_outlines(written: Written, tmp_path: Path) -> None:
    images = _images(written.disc)
    path = written.paths[2]
    drawn = next(iter(read_slices(path)))
    native = decompress(images[drawn.sop_instance_uid], tmp_path)
    run_dcmtk("dcmp2pgm", "--pstate", path, "--save-pstate", tmp_path / "saved.dcm", native)

    def data(state: Path) -> list[tuple[str, list[float]]]:
        return sorted(
            (item.GraphicType, [round(float(value), 3) for value in item.GraphicData])
            for annotation in pydicom.dcmread(state).GraphicAnnotationSequence
            for item in annotation.get("GraphicObjectSequence", ())
        )

    assert data(tmp_path / "saved.dcm") == data(path) != []


def _change_axial(written: Written, folder: Path, files: slice, **changes: object) -> Written:
    """Writes the states of a copy of the study with other attributes in some of its axial files."""
    disc = Path(shutil.copytree(written.disc, folder / "disc"))
    images = _images(disc)
    for each in stored_slices(disc)[Plane.AXIAL_T2][files]:
        dataset = pydicom.dcmread(images[each.sop_instance_uid])
        for keyword, value in changes.items():
            setattr(dataset, keyword, value)
        dataset.save_as(images[each.sop_instance_uid])
    study = read_lumbar_study(disc)
    return _write(folder / "out", disc, study, make_result(study))


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_rescaled_and_inverted_images_are_displayed_as_without_a_state(
    written: Written, tmp_path: Path, kind: str
) -> None:
    changes = {"PhotometricInterpretation": kind, "RescaleSlope": "0.5", "RescaleIntercept": "-20"}
    found = _change_axial(written, tmp_path, slice(None), RescaleType="US", **changes)
    path, images = found.paths[-1], _images(found.disc)
    axial = [each.sop_instance_uid for each in stored_slices(found.disc)[Plane.AXIAL_T2]]
    assert find_errors(path) == []
    stored = {uid: pydicom.dcmread(images[uid]) for uid in axial}
    # A MONOCHROME1 image is white where its values are small.
    sign = -1 if kind == "MONOCHROME1" else 1
    values = {uid: sign * (0.5 * each.pixel_array.astype(float) - 20) for uid, each in stored.items()}
    low, high = np.percentile(np.stack(list(values.values())), [1, 99.5])
    drawn = read_slices(path)[0]
    grey = render_grey(path, images[drawn.sop_instance_uid], None, tmp_path)
    expected = 255 * np.clip((values[drawn.sop_instance_uid] - low) / (high - low), 0, 1)
    np.testing.assert_allclose(grey, expected, atol=3)


def test_images_of_another_rescale_have_a_state_of_their_own(written: Written, tmp_path: Path) -> None:
    axial = [each.sop_instance_uid for each in stored_slices(written.disc)[Plane.AXIAL_T2]]
    middle = len(axial) // 2
    found = _change_axial(written, tmp_path, slice(middle), RescaleSlope="2", RescaleIntercept="0")
    halves = [
        {str(image.ReferencedSOPInstanceUID) for image in series.ReferencedImageSequence}
        for series in (pydicom.dcmread(path).ReferencedSeriesSequence[0] for path in found.paths)
        if series.SeriesInstanceUID == f"{hospital.LUMBAR_STUDY}.6"
    ]
    assert sorted(map(sorted, halves)) == sorted([sorted(axial[:middle]), sorted(axial[middle:])])
    assert len({str(pydicom.dcmread(path).SOPInstanceUID) for path in found.paths}) == 4


def test_pixels_that_are_not_square_keep_their_shape(written: Written, tmp_path: Path) -> None:
    found = _change_axial(written, tmp_path, slice(None), PixelSpacing=["1.25", "0.75"])
    (area,) = pydicom.dcmread(found.paths[-1]).DisplayedAreaSelectionSequence
    assert list(area.PresentationPixelSpacing) == [1.25, 0.75]
    assert "PresentationPixelAspectRatio" not in area
    assert find_errors(found.paths[-1]) == []


def test_findings_without_a_point_or_an_image_are_not_drawn(written: Written) -> None:
    titles = {title for drawn in written.drawn() for title in drawn.points}
    assert titles == set(TITLES) - {TITLES[NO_POINT], TITLES[NO_IMAGE]}


def test_a_plane_without_slices_has_no_state_and_its_points_are_on_another_plane(
    written: Written, tmp_path: Path
) -> None:
    study = replace(
        written.study,
        planes={plane: items for plane, items in written.study.planes.items() if plane is not Plane.AXIAL_T2},
    )
    found = _write(tmp_path / "out", written.disc, study, written.result)
    assert len(found.paths) == 2
    slices = _slices(written.disc)
    shown: dict[str, set[Plane]] = {}
    for drawn in found.drawn():
        plane, stored = slices[drawn.sop_instance_uid, drawn.frame_number]
        for title, place in drawn.points.items():
            shown.setdefault(title, set()).add(plane)
            point = written.result.landmarks[TITLES.index(title)]
            assert place == pytest.approx(_pixel(stored, point), abs=1e-3)
    assert shown["Left subarticular stenosis L1/L2"] == {Plane.SAGITTAL_T2}
    assert shown["Spinal canal stenosis L1/L2"] == {Plane.SAGITTAL_T2}


def test_a_study_without_points_has_no_state_and_states_of_an_earlier_run_are_removed(
    written: Written, tmp_path: Path
) -> None:
    source, path = find_references(written.study), tmp_path / "1.gsps-*.dcm"
    other = tmp_path / "12.gsps-1.dcm"
    other.touch()
    write_presentation_states(path, source, written.study, written.result, {}, model="7")
    assert len(list(tmp_path.iterdir())) == 4
    nothing = replace(written.result, landmarks=np.full_like(written.result.landmarks, np.nan))
    write_presentation_states(path, source, written.study, nothing, {}, model="7")
    assert list(tmp_path.iterdir()) == [other]


def test_a_crop_outside_the_image_is_not_drawn_and_one_across_its_border_is_closed_along_it(
    written: Written,
) -> None:
    study = written.study
    geometry = study.planes[Plane.AXIAL_T2][0].geometry
    corner = np.array(geometry.position)
    along, down = np.array(geometry.row_direction), np.array(geometry.column_direction)
    # A square on its tip, whose centre is the centre of the first pixel; and one far outside.
    tips = [(0, -10), (10, 0), (0, 10), (-10, 0)]
    square = np.array([corner + x * along + y * down for x, y in tips], np.float32)
    crops = (CropOutline(0, square, 0.0), CropOutline(0, square - 500 * along.astype(np.float32), 0.0))
    (state,) = make_presentation_states(
        find_references(study),
        study,
        replace(written.result, landmarks=np.full_like(written.result.landmarks, np.nan)),
        {Plane.AXIAL_T2: PlaneCropOutlines(20.0, {0: crops})},
        model="7",
    )
    (outline,) = state.GraphicAnnotationSequence[0].GraphicObjectSequence
    found = np.array(outline.GraphicData).reshape(-1, 2)
    x, y = 10 / geometry.column_spacing_mm, 10 / geometry.row_spacing_mm
    # The tips on the axes of the pixel's centre, and the crossings of the borders half a pixel before it.
    expected = {
        (0.5 + x, 0.5), (0.5, 0.5 + y), (0.0, 0.0), (0.5 + x * (1 - 0.5 / y), 0.0),
        (0.0, 0.5 + y * (1 - 0.5 / x)),
    } - {(0.0, 0.0)}  # fmt: skip
    for place in expected:
        assert np.abs(found - place).max(axis=1).min() < 1e-3
    assert (found >= 0).all()


def test_the_same_result_has_the_same_uids_and_another_outline_or_grade_others(written: Written) -> None:
    source, study, result = find_references(written.study), written.study, written.result

    def uids(
        findings: StudyFindings, outlines: Mapping[Plane, PlaneCropOutlines], model: str = "7"
    ) -> set[str]:
        states = make_presentation_states(source, study, findings, outlines, model=model)
        return {str(state.SOPInstanceUID) for state in states}

    first = uids(result, written.outlines)
    assert len(first) == 3 and uids(result, written.outlines) == first
    assert first == {str(pydicom.dcmread(path).SOPInstanceUID) for path in written.paths}
    assert not first & uids(result, written.outlines, "8")
    assert not first & uids(result, {})
    assert not first & uids(replace(result, probability=result.probability[:, ::-1]), written.outlines)
