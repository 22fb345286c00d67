"""Lumbar study of the hospital's export, and findings with distinct numbers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pydicom
from pydicom.misc import is_dicom

from lumbar_tf.dicom.geometry import mirror_geometry
from lumbar_tf.dicom.sources.study_source import read_source
from lumbar_tf.dicom.study import Study
from lumbar_tf.dicom.study_reader import read_study_files
from lumbar_tf.labels import FINDINGS, Flag, Plane, Side, mirror_indices
from lumbar_tf.prediction.results import StudyFindings
from tests.interop import hospital

#: Rows without a level point, without any image, and without axial slices.
NO_POINT, NO_IMAGE, NO_AXIAL = 7, 12, 20


def read_lumbar_study(disc: Path, *, keep_header: bool = True) -> Study:
    """Reads the export's lumbar study."""
    with read_source(disc) as source:
        (files,) = [study for study in source.studies if study.study_id == hospital.LUMBAR_STUDY]
        return read_study_files(files, keep_header=keep_header)


def make_result(study: Study) -> StudyFindings:
    """Returns findings with points near axial slices; points of the left side have larger x."""
    rng = np.random.default_rng(4)
    axial = study.planes[Plane.AXIAL_T2]
    shift = {None: 0.0, Side.LEFT: 15.0, Side.RIGHT: -15.0}
    points = rng.uniform(-1, 1, (len(FINDINGS), 3))
    for row, finding in enumerate(FINDINGS):
        # The middle slice of each fifth of the stack, which starts at the feet.
        place = len(axial) - 1 - (2 * (row % 5) + 1) * len(axial) // 10
        along = np.asarray(axial[place].geometry.row_direction)
        points[row] += np.asarray(axial[place].geometry.centre) + shift[finding.condition.side] * along
    points[NO_POINT] = np.nan
    probability = rng.dirichlet((1, 1, 1), len(FINDINGS)).astype(np.float32)
    flags = np.zeros((len(FINDINGS), len(Flag)), np.bool_)
    for row, flag in (
        (NO_POINT, Flag.NO_LANDMARK),
        (NO_IMAGE, Flag.PRIOR_ONLY),
        (NO_AXIAL, Flag.NO_AXIAL_T2),
    ):
        flags[row, list(Flag).index(flag)] = True
    bounds = np.stack([probability * 0.8, np.minimum(probability * 1.1, 1)], axis=-1)
    competition = rng.dirichlet((1, 1, 1), len(FINDINGS)).astype(np.float32)
    return StudyFindings(
        study_id=study.study_id,
        probability=probability,
        competition=competition,
        members=np.zeros((1, len(FINDINGS), 3), np.float32),
        landmarks=points.astype(np.float32),
        flags=flags,
        interval=bounds.astype(np.float32),
    )


def mirror(study: Study, result: StudyFindings) -> tuple[Study, StudyFindings]:
    """Returns the mirrored patient: x is negated, and the sides of the findings are swapped."""
    planes = {
        plane: tuple(replace(image, geometry=mirror_geometry(image.geometry)) for image in slices)
        for plane, slices in study.planes.items()
    }
    rows = list(mirror_indices())
    swapped = replace(
        result,
        probability=result.probability[rows],
        landmarks=result.landmarks[rows] * np.array([-1, 1, 1], np.float32),
        flags=result.flags[rows],
        interval=None if result.interval is None else result.interval[rows],
    )
    return replace(study, planes=planes), swapped


@dataclass(frozen=True)
class StoredSlice:
    """Slice as pydicom reads it: its UIDs, and its geometry from DICOM attributes, LPS mm."""

    sop_instance_uid: str
    frame_number: int
    position: np.ndarray
    orientation: np.ndarray
    spacing: tuple[float, float]
    shape: tuple[int, int]

    def distance(self, point: np.ndarray) -> float:
        """Returns the distance of a point from the plane, mm; infinite if it projects outside the image."""
        along, down = self.orientation[:3], self.orientation[3:]
        offset = np.asarray(point, float) - self.position
        column, row = offset @ along / self.spacing[1], offset @ down / self.spacing[0]
        is_inside = abs(column - (self.shape[1] - 1) / 2) <= self.shape[1] / 2
        is_inside &= abs(row - (self.shape[0] - 1) / 2) <= self.shape[0] / 2
        return abs(float(offset @ np.cross(along, down))) if is_inside else float("inf")


def stored_slices(disc: Path) -> dict[Plane, list[StoredSlice]]:
    """Returns the slices of the used series, read from the files with pydicom."""
    found: dict[Plane, list[StoredSlice]] = {plane: [] for plane in Plane}
    planes = _planes_of_series()
    for path in sorted(disc.rglob("*")):
        if path.is_file() and is_dicom(path):
            dataset = pydicom.dcmread(path)
            plane = planes.get(dataset.get("SeriesInstanceUID", ""))
            if plane is not None:
                found[plane].extend(_slices_of(dataset))
    return found


def _slices_of(dataset: pydicom.Dataset) -> Iterator[StoredSlice]:
    shape = (int(dataset.Rows), int(dataset.Columns))

    def make(frame: int, position: object, orientation: object, spacing: Sequence[float]) -> StoredSlice:
        numbers = np.array(position, float), np.array(orientation, float)
        return StoredSlice(
            str(dataset.SOPInstanceUID), frame, *numbers, (float(spacing[0]), float(spacing[1])), shape
        )

    if "PerFrameFunctionalGroupsSequence" not in dataset:
        yield make(0, dataset.ImagePositionPatient, dataset.ImageOrientationPatient, dataset.PixelSpacing)
        return
    (shared,) = dataset.SharedFunctionalGroupsSequence
    orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    spacing = shared.PixelMeasuresSequence[0].PixelSpacing
    for number, group in enumerate(dataset.PerFrameFunctionalGroupsSequence, start=1):
        yield make(number, group.PlanePositionSequence[0].ImagePositionPatient, orientation, spacing)


def _planes_of_series() -> Mapping[str, Plane]:
    """Returns the used series of the export: the second, third and sixth."""
    numbers = {2: Plane.SAGITTAL_T1, 3: Plane.SAGITTAL_T2, 6: Plane.AXIAL_T2}
    return {f"{hospital.LUMBAR_STUDY}.{number}": plane for number, plane in numbers.items()}
