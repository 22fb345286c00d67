"""References of a result to the images of its study, under valid UIDs."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID, uuid5

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import MRImageStorage

from lumbar_tf.dicom.geometry import SliceGeometry, patient_to_pixel
from lumbar_tf.dicom.study import Slice, Study
from lumbar_tf.labels import Condition, Plane

#: Form of a UID (PS3.5 section 9.1): numbers without leading zeros, separated by dots. UIDs of the
#: competition's files, such as 100206310.1.1, have this form and are kept: archives use them.
_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*")
_MAX_UID_CHARACTERS = 64
#: Namespace of derived UIDs: a random UUID.
_NAMESPACE = UUID("c25d20e8-96bd-4e13-8fe1-354c491375bf")
#: Maximum distance of a slice from a point that it shows, mm; the same as on the summary sheet.
_MAX_DISTANCE_MM = 10.0
#: Order in which planes are tried for the points of a whole report: each sagittal T2 slice shows all levels.
_OVERVIEW_PLANES = (Plane.SAGITTAL_T2, Plane.SAGITTAL_T1, Plane.AXIAL_T2)


@dataclass(frozen=True)
class SourceImage:
    """Reference to an image or frame of an archive. All UIDs are valid.

    Attributes:
        sop_class_uid: SOPClassUID.
        sop_instance_uid: SOPInstanceUID.
        series_uid: SeriesInstanceUID.
        frame_of_reference_uid: FrameOfReferenceUID.
        frame_number: number of the frame, from 1; None for a single-frame image.
    """

    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str
    frame_of_reference_uid: str
    frame_number: int | None = None


@dataclass(frozen=True)
class ImagePoint:
    """Projection of a level point onto an image that shows it.

    Attributes:
        image: the image.
        column: position along a row, pixels; the centre of the first pixel is 0.
        row: position along a column, pixels; the centre of the first pixel is 0.
    """

    image: SourceImage
    column: float
    row: float


@dataclass(frozen=True)
class ReportReference:
    """Reference to a stored structured report of the same study.

    Attributes:
        sop_instance_uid: SOPInstanceUID.
        series_uid: SeriesInstanceUID.
    """

    sop_instance_uid: str
    series_uid: str


@dataclass(frozen=True, eq=False)
class SourceStudy:
    """Study with the references to its images.

    Attributes:
        study_uid: StudyInstanceUID.
        header: patient and study attributes that results repeat, by DICOM keyword. Never logged or printed.
        planes: geometry and reference of each slice, by plane.
        replaced: number of UIDs that were missing or not valid and are replaced, by DICOM keyword.
        omitted: DICOM keywords of header values that the standard does not allow; results do not repeat them.
    """

    study_uid: str
    header: Mapping[str, str]
    planes: Mapping[Plane, tuple[tuple[SliceGeometry, SourceImage], ...]]
    replaced: Mapping[str, int]
    omitted: tuple[str, ...] = ()

    @property
    def images(self) -> tuple[SourceImage, ...]:
        """References to the images of all planes."""
        return tuple(image for members in self.planes.values() for _, image in members)


def derived_uid(*parts: str) -> str:
    """Returns a UID derived from its arguments: the UUID of their hash under 2.25 (PS3.5 section B.2).

    >>> derived_uid("study", "1") == derived_uid("study", "1") != derived_uid("study", "2")
    True
    """
    return f"2.25.{derived_uuid(*parts).int}"


def derived_uuid(*parts: str) -> UUID:
    """Returns a UUID derived from its arguments."""
    return uuid5(_NAMESPACE, "\0".join(parts))


def is_valid_uid(text: str) -> bool:
    """Returns whether a UID conforms to PS3.5 section 9.1.

    >>> is_valid_uid("100206310.1.1"), is_valid_uid("1.02"), is_valid_uid("")
    (True, False, False)
    """
    return len(text) <= _MAX_UID_CHARACTERS and _UID.fullmatch(text) is not None


def find_references(study: Study) -> SourceStudy:
    """Returns the references to a study's images.

    UIDs are those of the source. A UID that is missing or not valid is replaced by one derived from the
    source's content, which no archive contains; `replaced` counts these.
    """
    replaced: dict[str, int] = {}

    def valid(keyword: str, value: str, *parts: str) -> str:
        if is_valid_uid(value):
            return value
        replaced[keyword] = replaced.get(keyword, 0) + 1
        return derived_uid(keyword, study.study_id, value, *parts)

    def refer(image: Slice) -> SourceImage:
        origin = image.origin
        series_uid = valid("SeriesInstanceUID", origin.series_uid if origin else "", image.series_id)
        place = (study.source_digest, series_uid, repr(image.geometry), str(image.instance_number))
        sop_class = origin.sop_class_uid if origin else ""
        return SourceImage(
            sop_class_uid=sop_class if is_valid_uid(sop_class) else MRImageStorage,
            sop_instance_uid=valid("SOPInstanceUID", origin.sop_instance_uid if origin else "", *place),
            series_uid=series_uid,
            # Slices of one series share a frame of reference (PS3.3 section C.7.4.1).
            frame_of_reference_uid=valid(
                "FrameOfReferenceUID", origin.frame_of_reference_uid if origin else "", series_uid
            ),
            frame_number=(origin.frame_number or None) if origin else None,
        )

    header = study.header
    study_uid = header.study_uid if header and header.study_uid else ""
    return SourceStudy(
        study_uid=valid("StudyInstanceUID", study_uid),
        header=dict(header.values) if header else {},
        planes={
            plane: tuple((image.geometry, refer(image)) for image in slices)
            for plane, slices in study.planes.items()
        },
        replaced=replaced,
        omitted=header.omitted if header else (),
    )


def nearest_images(
    study: SourceStudy, condition: Condition, point: NDArray[np.floating]
) -> list[SourceImage]:
    """Returns the image of each plane that is nearest to a point.

    Args:
        study: references to the images.
        condition: decides the order of the planes; the plane that it is annotated on comes first.
        point: LPS mm [3]; NaN if there is none.

    Returns:
        At most one image per plane, at most 10 mm away and with the point inside its borders. If there is
        none, the nearest image of the first plane that the study has. Empty without a point.
    """
    if not np.isfinite(point).all():
        return []
    planes = [study.planes[plane] for plane in condition.family.shown_on if study.planes.get(plane)]
    nearest = [_nearest(members, point) for members in planes]
    shown = [found.image for found in nearest if found.is_shown]
    return shown or [found.image for found in nearest[:1]]


def place_points_on_images(
    study: SourceStudy, points: Sequence[tuple[Condition, NDArray[np.floating]]]
) -> list[ImagePoint | None]:
    """Returns the projection of each point onto an image that shows it, on one series as far as possible.

    Viewers such as OHIF 3.12 open a report on the series of its first point, and reach points of no other.
    The series that shows most points is therefore used for all that it shows; of several, the first in the
    order sagittal T2, sagittal T1, axial T2. Other points are on the first plane that shows them.

    Args:
        study: references to the images.
        points: condition and point, LPS mm [3], of each finding; NaN if there is none.

    Returns:
        As many items as points; None for a point that no image shows: none contains its projection and is at
        most 10 mm away.
    """
    by_series: dict[str, list[tuple[SliceGeometry, SourceImage]]] = {}
    for plane in _OVERVIEW_PLANES:
        for geometry, image in study.planes.get(plane, ()):
            by_series.setdefault(image.series_uid, []).append((geometry, image))
    candidates = [[_place(members, point) for _, point in points] for members in by_series.values()]
    common = max(candidates, key=_num_placed, default=[None] * len(points))
    return [
        place or _first_place(study, condition, point)
        for place, (condition, point) in zip(common, points, strict=True)
    ]


def place_point_on_planes(
    study: SourceStudy, condition: Condition, point: NDArray[np.floating]
) -> list[ImagePoint]:
    """Returns the projections of a point onto the planes that its condition is graded on.

    Args:
        study: references to the images.
        condition: the condition.
        point: LPS mm [3]; NaN if there is none.

    Returns:
        At most one projection per plane, onto the nearest image, which contains it and is at most 10 mm away.
        If no plane that the condition is graded on has such an image, the projection onto the first other
        plane that has one. Empty without a point.
    """
    graded_on = condition.family.spec.graded_on
    places = [_place(study.planes.get(plane, ()), point) for plane in graded_on]
    found = [place for place in places if place is not None]
    other = None if found else _first_place(study, condition, point)
    return found if other is None else [other]


def _num_placed(places: Sequence[ImagePoint | None]) -> int:
    return sum(place is not None for place in places)


def _first_place(study: SourceStudy, condition: Condition, point: NDArray[np.floating]) -> ImagePoint | None:
    """Returns the projection onto the first of a condition's planes that shows a point."""
    places = (_place(study.planes.get(plane, ()), point) for plane in condition.family.shown_on)
    return next((place for place in places if place is not None), None)


def _place(
    members: Sequence[tuple[SliceGeometry, SourceImage]], point: NDArray[np.floating]
) -> ImagePoint | None:
    """Returns the projection of a point onto the nearest image; None if no image shows it."""
    if not members or not np.isfinite(point).all():
        return None
    nearest = _nearest(members, point)
    return ImagePoint(nearest.image, nearest.column, nearest.row) if nearest.is_shown else None


@dataclass(frozen=True)
class _Projection:
    """Orthogonal projection of a point onto the plane of an image; `column` and `row` as in `ImagePoint`."""

    image: SourceImage
    column: float
    row: float
    distance_mm: float
    is_inside: bool

    @property
    def is_shown(self) -> bool:
        """Whether the image shows the point."""
        return self.is_inside and self.distance_mm <= _MAX_DISTANCE_MM


def _nearest(
    members: Sequence[tuple[SliceGeometry, SourceImage]], point: NDArray[np.floating]
) -> _Projection:
    """Returns the projection onto the nearest image; images that contain it come before all others."""
    projections = [_project(geometry, image, point) for geometry, image in members]
    return min(projections, key=lambda found: (not found.is_inside, found.distance_mm))


def _project(geometry: SliceGeometry, image: SourceImage, point: NDArray[np.floating]) -> _Projection:
    column, row, distance = patient_to_pixel(geometry, [float(coordinate) for coordinate in point])
    is_inside = -0.5 <= column <= geometry.columns - 0.5 and -0.5 <= row <= geometry.rows - 0.5
    return _Projection(image, column, row, abs(distance), is_inside)
