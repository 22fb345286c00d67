"""Which stored images a finding is shown by, under UIDs that a result can refer to."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID, uuid5

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import MRImageStorage

from lumbar_tf.dicom.geometry import SliceGeometry, patient_to_pixel
from lumbar_tf.dicom.study import Slice, Study
from lumbar_tf.labels import Condition, Family, Plane

#: A UID's characters (PS3.5 section 9.1): numbers without leading zeros, and dots. The competition's, such as
#: 100206310.1.1, are of this form and are kept: they name what an archive holds.
_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*")
_MAX_UID_CHARACTERS = 64
#: Names of this package's own UIDs: a random UUID, once.
_NAMESPACE = UUID("c25d20e8-96bd-4e13-8fe1-354c491375bf")
#: A slice farther than this from a point does not show it, mm; as on the sheet.
_MAX_DISTANCE_MM = 10.0
#: The plane that each kind of finding is annotated on, and then those that show it too.
_PLANES = {
    Family.CANAL: (Plane.SAGITTAL_T2, Plane.AXIAL_T2, Plane.SAGITTAL_T1),
    Family.FORAMINAL: (Plane.SAGITTAL_T1, Plane.AXIAL_T2, Plane.SAGITTAL_T2),
    Family.SUBARTICULAR: (Plane.AXIAL_T2, Plane.SAGITTAL_T2, Plane.SAGITTAL_T1),
}


@dataclass(frozen=True)
class SourceImage:
    """A stored image, by UIDs that are all legal.

    Attributes:
        sop_class_uid: its SOP class.
        sop_instance_uid: its UID.
        series_uid: its series.
        frame_of_reference_uid: what its coordinates refer to.
        frame_number: the frame, from 1; None in a file of one frame.
    """

    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str
    frame_of_reference_uid: str
    frame_number: int | None = None


@dataclass(frozen=True, eq=False)
class SourceStudy:
    """A study under UIDs that a result can refer to.

    Attributes:
        study_uid: StudyInstanceUID.
        header: what a result repeats of the patient and the study, by DICOM keyword. Never shown.
        planes: each slice's geometry and stored image.
        replaced: how many images or studies lack a legal UID and got another, by DICOM keyword.
    """

    study_uid: str
    header: Mapping[str, str]
    planes: Mapping[Plane, tuple[tuple[SliceGeometry, SourceImage], ...]]
    replaced: Mapping[str, int]

    @property
    def images(self) -> tuple[SourceImage, ...]:
        """Every image of every plane."""
        return tuple(image for members in self.planes.values() for _, image in members)


def derived_uid(*parts: str) -> str:
    """Returns the UID that some names always give: a UUID of their hash under 2.25 (PS3.5 section B.2).

    >>> derived_uid("study", "1") == derived_uid("study", "1") != derived_uid("study", "2")
    True
    """
    return f"2.25.{derived_uuid(*parts).int}"


def derived_uuid(*parts: str) -> UUID:
    """Returns the UUID that some names always give."""
    return uuid5(_NAMESPACE, "\0".join(parts))


def is_legal_uid(text: str) -> bool:
    """Whether the standard allows a UID.

    >>> is_legal_uid("100206310.1.1"), is_legal_uid("1.02"), is_legal_uid("")
    (True, False, False)
    """
    return len(text) <= _MAX_UID_CHARACTERS and _UID.fullmatch(text) is not None


def find_references(study: Study) -> SourceStudy:
    """Returns what results of a study may refer to.

    UIDs are the source's own. One that is missing or not legal is replaced by one that the same source always
    gives; nothing in an archive has it, and `replaced` says so.
    """
    replaced: dict[str, int] = {}

    def legal(keyword: str, value: str, *parts: str) -> str:
        if is_legal_uid(value):
            return value
        replaced[keyword] = replaced.get(keyword, 0) + 1
        return derived_uid(keyword, study.study_id, value, *parts)

    def refer(each: Slice) -> SourceImage:
        origin = each.origin
        series_uid = legal("SeriesInstanceUID", origin.series_uid if origin else "", each.series_id)
        place = (study.source_digest, series_uid, repr(each.geometry), str(each.instance_number))
        sop_class = origin.sop_class_uid if origin else ""
        return SourceImage(
            sop_class_uid=sop_class if is_legal_uid(sop_class) else MRImageStorage,
            sop_instance_uid=legal("SOPInstanceUID", origin.sop_instance_uid if origin else "", *place),
            series_uid=series_uid,
            # Slices of one series share a frame of reference (PS3.3 section C.7.4.1).
            frame_of_reference_uid=legal(
                "FrameOfReferenceUID", origin.frame_of_reference_uid if origin else "", series_uid
            ),
            frame_number=(origin.frame_number or None) if origin else None,
        )

    header = study.header
    study_uid = header.study_uid if header and header.study_uid else ""
    return SourceStudy(
        study_uid=legal("StudyInstanceUID", study_uid),
        header=dict(header.values) if header else {},
        planes={
            plane: tuple((each.geometry, refer(each)) for each in slices)
            for plane, slices in study.planes.items()
        },
        replaced=replaced,
    )


def choose_images(study: SourceStudy, condition: Condition, point: NDArray[np.floating]) -> list[SourceImage]:
    """Returns the image of each plane that passes nearest to a point.

    Args:
        study: its images.
        condition: tells which plane comes first: the one that it is annotated on.
        point: LPS mm [3]; NaN where there is none.

    Returns:
        At most one image a plane, no farther than 10 mm and with the point inside; where there is none, the
        nearest of the first plane that there is; empty without a point.
    """
    if not np.isfinite(point).all():
        return []
    planes = [study.planes[plane] for plane in _PLANES[condition.family] if study.planes.get(plane)]
    nearest = [_nearest(each, point) for each in planes]
    shown = [image for image, is_inside, distance in nearest if is_inside and distance <= _MAX_DISTANCE_MM]
    return shown or [image for image, _, _ in nearest[:1]]


def _nearest(
    members: Sequence[tuple[SliceGeometry, SourceImage]], point: NDArray[np.floating]
) -> tuple[SourceImage, bool, float]:
    """Returns the image nearest to a point, whether the point's foot lies inside, and how far off it is, mm.

    An image that the foot lies inside of comes before all others.
    """
    places = [(*_locate(geometry, point), image) for geometry, image in members]
    is_inside, distance, image = min(places, key=lambda each: (not each[0], each[1]))
    return image, is_inside, distance


def _locate(geometry: SliceGeometry, point: NDArray[np.floating]) -> tuple[bool, float]:
    """Returns whether the point's foot lies inside the image, and how far off its plane it is, mm."""
    column, row, distance = patient_to_pixel(geometry, [float(each) for each in point])
    inside = -0.5 <= column <= geometry.columns - 0.5 and -0.5 <= row <= geometry.rows - 0.5
    return inside, abs(distance)
