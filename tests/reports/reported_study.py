"""A small study with findings and crop outlines that differ between the sides."""

from dataclasses import replace

import numpy as np

from lumbar_tf.dicom.geometry import SliceGeometry, mirror_geometry
from lumbar_tf.dicom.study import SeriesSummary, Slice, Study
from lumbar_tf.labels import FINDINGS, Condition, Flag, Level, Plane, Side, finding_index, mirror_indices
from lumbar_tf.prediction.crop_outlines import CropOutline, PlaneCropOutlines
from lumbar_tf.prediction.results import ModelSource, StudyFindings
from lumbar_tf.prediction.saliency import StudySaliency

SOURCE = ModelSource("7", ("sagittal_t1/net", "axial_t2/net"))
_SAGITTAL = ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0))
_AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
#: Around the left foramina alone, mm.
_HALF_MM = 20.0
_SLICE_OF_CROP = 8
_LATERAL_MM = {Side.LEFT: 16.0, Side.RIGHT: -16.0, None: 0.0}


def _slice(position: tuple, directions: tuple, series_id: str, seed: int) -> Slice:
    pixels = np.random.default_rng(seed).integers(0, 900, (100, 80)).astype(np.uint16)
    return Slice(SliceGeometry(position, *directions, 2.0, 2.0, 100, 80), pixels, series_id, 1)


def make_study(study_id: str = "s-1") -> Study:
    """Eleven sagittal slices of each weighting, 4 mm apart around x = 0, and 30 axial ones."""
    planes, series = {}, []
    for number, plane in enumerate(Plane):
        name = f"90{number}"
        planes[plane] = tuple(
            _slice((4.0 * (place - 5), -80.0, 100.0), _SAGITTAL, name, 100 * number + place)
            for place in range(11)
        )
        if plane is Plane.AXIAL_T2:
            planes[plane] = tuple(
                _slice((-80.0, -100.0, -90.0 + 6 * place), _AXIAL, name, 300 + place) for place in range(30)
            )
        series.append(SeriesSummary(name, plane, "", len(planes[plane]), 100, 80, 2.0, 2.0, 4.0, "siemens"))
    return Study(study_id, "Doe^Jane", planes, tuple(series))


def make_result(study_id: str = "s-1") -> StudyFindings:
    """L4/L5 of the left foramen is severe, all else normal; the foramina have one member."""
    landmarks = np.zeros((25, 3), np.float32)
    probability = np.tile(np.array([0.9, 0.07, 0.03], np.float32), (25, 1))
    members = np.full((2, 25, 3), np.nan, np.float32)
    for row, finding in enumerate(FINDINGS):
        landmarks[row] = (_LATERAL_MM[finding.condition.side], 5, 60 - 30 * list(Level).index(finding.level))
        if finding.condition.family.value == "foraminal":
            members[0, row] = (0.5, 0.3, 0.2)
    probability[severe_row()] = (0.1, 0.2, 0.7)
    interval = np.stack([probability / 2, (1 + probability) / 2], axis=-1)
    flags = np.zeros((25, len(Flag)), np.bool_)
    return StudyFindings(study_id, probability, probability, members, landmarks, flags, interval)


def severe_row() -> int:
    """The row of the one severe finding."""
    return finding_index(Condition.LEFT_NEURAL_FORAMINAL_NARROWING, Level.L4_L5)


def make_crop_outlines(result: StudyFindings) -> dict[Plane, PlaneCropOutlines]:
    """The left foramen's crops, on three slices of which the ninth is the nearest."""
    row = severe_row()
    _, y, z = result.landmarks[row].tolist()
    outlines = []
    for index in (_SLICE_OF_CROP, _SLICE_OF_CROP + 1, _SLICE_OF_CROP + 2):
        x = 4.0 * (index - 5)
        signs = ((-1, 1), (1, 1), (1, -1), (-1, -1))
        corners = np.array([(x, y + _HALF_MM * a, z + _HALF_MM * b) for a, b in signs], np.float32)
        step = index - _SLICE_OF_CROP - 1
        outlines.append(CropOutline(index, corners, abs(x - 16.0), step=step))
    outlines.sort(key=lambda outline: outline.index)
    return {Plane.SAGITTAL_T1: PlaneCropOutlines(2 * _HALF_MM, {row: tuple(outlines)})}


def make_saliency() -> StudySaliency:
    """Saliency of the left foramen, with its maximum in the upper left of the nearest slice."""
    maps = np.full((2, 25, 1, 3, 4, 4), np.nan, np.float32)
    weight = np.full((2, 25), np.nan, np.float32)
    for row, finding in enumerate(FINDINGS):
        if finding.condition.family.value == "foraminal":
            maps[0, row], weight[0, row] = 0.0, 0.8
    maps[0, severe_row(), 0, 1, 0, 0] = 3.0
    maps[0, severe_row(), 0, 2] = 0.3
    return StudySaliency(maps, weight)


def mirror_study(study: Study) -> Study:
    """The same slices in the mirrored patient."""
    planes = {
        plane: tuple(
            sorted(
                (replace(source, geometry=mirror_geometry(source.geometry)) for source in slices),
                key=lambda source: (
                    source.geometry.position[0] if plane.is_sagittal else source.geometry.position[2]
                ),
            )
        )
        for plane, slices in study.planes.items()
    }
    return replace(study, planes=planes)


def mirror_result(result: StudyFindings) -> StudyFindings:
    """The findings that a correct ensemble predicts for the mirrored study."""
    turned = list(mirror_indices())
    return replace(
        result,
        probability=result.probability[turned],
        competition=result.competition[turned],
        members=result.members[:, turned],
        landmarks=result.landmarks[turned] * np.array([-1, 1, 1], np.float32),
        flags=result.flags[turned],
        interval=None if result.interval is None else result.interval[turned],
        prediction_set=None if result.prediction_set is None else result.prediction_set[turned],
    )
