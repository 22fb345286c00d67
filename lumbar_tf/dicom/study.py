"""Studies, their planes and slices, and the identity of their images.

The header values and image UIDs are used only for results that return to the hospital's archive. Records,
tables, logs and pictures do not contain them.
"""

import unicodedata
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray
from pydicom import config
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import DA, TM, validate_value

from lumbar_tf.dicom.files.values import read_value
from lumbar_tf.dicom.geometry import SliceGeometry, order_slices
from lumbar_tf.dicom.reasons import Reject
from lumbar_tf.labels import Plane

#: Attributes that the Patient and General Study modules of a result repeat (PS3.3 sections C.7.1.1 and
#: C.7.2.1), with their value representations. No other part of the header is kept.
HEADER_KEYWORDS = {
    "PatientName": "PN",
    "PatientID": "LO",
    "IssuerOfPatientID": "LO",
    "PatientBirthDate": "DA",
    "PatientSex": "CS",
    "StudyDate": "DA",
    "StudyTime": "TM",
    "StudyID": "SH",
    "AccessionNumber": "SH",
    "StudyDescription": "LO",
    "ReferringPhysicianName": "PN",
}
#: PS3.3 section C.7.1.1; highdicom does not write any other value.
_SEXES = frozenset(("M", "F", "O"))
#: Family name, given name, middle name, prefix and suffix (PS3.5 section 6.2.1).
_MAX_NAME_COMPONENTS = 5


@dataclass(frozen=True)
class PixelScale:
    """Relation of a slice's pixels to the stored values of its image.

    Attributes:
        slope: RescaleSlope, 1 if absent.
        intercept: RescaleIntercept, 0 if absent.
        complement: sum of a stored value and its inverse, for an image that was inverted because it is
            MONOCHROME1; None for one that was not.
    """

    slope: float = 1.0
    intercept: float = 0.0
    complement: int | None = None

    def to_rescaled(self, value: float) -> float:
        """Returns the value after RescaleSlope and RescaleIntercept of a pixel, without the inversion.

        >>> PixelScale(2.0, 10.0, complement=255).to_rescaled(2.0 * (255 - 7) + 10.0)
        24.0
        """
        if self.complement is None:
            return value
        return self.slope * self.complement + 2 * self.intercept - value


@dataclass(frozen=True)
class ImageOrigin:
    """Stored image that a slice was read from: its UIDs, "" for absent attributes, and its pixel scale.

    Attributes:
        sop_class_uid: SOPClassUID.
        sop_instance_uid: SOPInstanceUID.
        series_uid: SeriesInstanceUID, which may differ from the series id of the tables.
        frame_of_reference_uid: FrameOfReferenceUID.
        frame_number: number of the frame, from 1; 0 in a file of one frame.
        pixel_scale: relation of the pixels to the stored values.
    """

    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str
    frame_of_reference_uid: str
    frame_number: int = 0
    pixel_scale: PixelScale = PixelScale()


@dataclass(frozen=True, eq=False)
class StudyHeader:
    """Header values about the patient and the examination, kept on request only.

    Attributes:
        study_uid: StudyInstanceUID, "" if absent.
        values: text by DICOM keyword, for the keywords of `HEADER_KEYWORDS` that have a value allowed by the
            standard. Not part of the `repr`.
        omitted: keywords of the values that the standard does not allow.
    """

    study_uid: str
    values: Mapping[str, str] = field(repr=False)
    omitted: tuple[str, ...] = field(default=(), repr=False)


def read_study_header(dataset: Dataset, study_uid: str) -> StudyHeader:
    """Reads the attributes that results of the study repeat.

    Values that violate the standard are omitted, not shortened or corrected: half of an ID is another one.
    They are several values where one is allowed (such as two PatientIDs), control characters, a name of more
    than three groups or five components, and values longer than their VR allows (PS3.5 section 6.2).
    """
    values, omitted = {}, []
    for keyword, vr in HEADER_KEYWORDS.items():
        # pydicom parses values on access, and a damaged value may raise anything.
        try:
            value = read_value(dataset, keyword)
            text = "" if value is None else str(value).strip()
            is_allowed = not text or (not isinstance(value, MultiValue) and _is_allowed(keyword, vr, text))
        except Exception:
            text, is_allowed = "", False
        if not is_allowed:
            omitted.append(keyword)
        elif text:
            values[keyword] = text
    return StudyHeader(study_uid, values, tuple(omitted))


def _is_allowed(keyword: str, vr: str, text: str) -> bool:
    if any(unicodedata.category(character) == "Cc" for character in text):
        return False
    validate_value(vr, text, config.RAISE)
    if vr == "PN" and any(group.count("^") >= _MAX_NAME_COMPONENTS for group in text.split("=")):
        return False
    if vr in ("DA", "TM"):
        _ = DA(text) if vr == "DA" else TM(text)
    return keyword != "PatientSex" or text in _SEXES


def read_optional_text(dataset: Dataset, keyword: str) -> str:
    """Returns the text of a value that is not required, "" if it is absent or cannot be parsed."""
    with suppress(Exception):
        return str(read_value(dataset, keyword) or "")
    return ""


@dataclass(frozen=True, eq=False)
class Slice:
    """An image in patient space.

    Attributes:
        geometry: position of the pixels, LPS mm.
        pixels: [rows, columns], after rescale slope and intercept and with MONOCHROME1 inverted, so that
            larger is always brighter: the stored integers (8 or 16 bits) without rescale, float32 with it.
        series_id: id of the series.
        instance_number: InstanceNumber, used only to find rows of tables; 0 if absent.
        origin: the stored image, for results that refer to it; None for a slice without a file.
    """

    geometry: SliceGeometry
    pixels: NDArray[Any]
    series_id: str
    instance_number: int
    origin: ImageOrigin | None = None

    def __post_init__(self) -> None:
        expected = (self.geometry.rows, self.geometry.columns)
        if self.pixels.shape != expected:
            raise ValueError(
                f"`pixels` must have the geometry's shape {expected}. Received: {self.pixels.shape} "
                f"(series {self.series_id}, instance {self.instance_number})."
            )


@dataclass(frozen=True)
class SeriesSummary:
    """Properties of a series besides its slices: its selection, and attributes for subgroup statistics.

    Attributes:
        series_id: id of the series. A series with several contrasts has a summary for each of them.
        plane: plane of the series; None if it was rejected.
        reason: `RejectReason` value of the rejection; "" if the series was kept.
        num_slices: number of readable slices.
        rows: rows of most slices.
        columns: columns of most slices.
        row_spacing_mm: row spacing of most slices.
        column_spacing_mm: column spacing of most slices.
        gap_mm: median distance between neighbouring slices along their normal; 0 for a single slice.
        vendor: normalized name of the manufacturer (`siemens`, `ge`, ...), "" if unknown.
        field_strength_tesla: nominal field strength; None if unknown.
        contrast: attributes that distinguish the contrast within its series (`TE 105 ms`, `phase`); "" for
            an ordinary series.
    """

    series_id: str
    plane: Plane | None
    reason: str
    num_slices: int
    rows: int
    columns: int
    row_spacing_mm: float
    column_spacing_mm: float
    gap_mm: float
    vendor: str = ""
    field_strength_tesla: float | None = None
    contrast: str = ""


@dataclass(frozen=True, eq=False)
class Study:
    """An examination of one patient.

    Attributes:
        study_id: id used in tables, records and results.
        patient_id: PatientID, "" if absent. Kept in memory only: it is never written anywhere.
        planes: slices of each plane found, in the order of `arrange_slices`.
        series: every readable series, kept or not, by series id.
        rejects: rejects and notes.
        source_digest: SHA-256 over the digests of the study's files.
        header: header values about patient and examination; None unless requested.
    """

    study_id: str
    patient_id: str
    planes: Mapping[Plane, tuple[Slice, ...]]
    series: tuple[SeriesSummary, ...] = ()
    rejects: tuple[Reject, ...] = ()
    source_digest: str = ""
    header: StudyHeader | None = None


@dataclass(frozen=True, eq=False)
class SliceGroup:
    """Parallel slices of one series, sorted along their normal.

    Attributes:
        series_id: id of the series.
        slices: slices of the group, at least one.
    """

    series_id: str
    slices: tuple[Slice, ...]


def arrange_slices(slices: Iterable[Slice]) -> tuple[SliceGroup, ...]:
    """Groups slices by series and orientation, and sorts them along their normals.

    Args:
        slices: slices of one plane, of any number of series, in any order.

    Returns:
        Groups, by series id and then in the order of `order_slices`, which does not depend on the order of
        `slices` or on InstanceNumber.
    """
    by_series: dict[str, list[Slice]] = {}
    for item in slices:
        by_series.setdefault(item.series_id, []).append(item)
    groups = []
    for series_id, members in sorted(by_series.items()):
        # The order of slices in one plane, such as two stations of a spine.
        members.sort(key=lambda member: (member.geometry.position, member.geometry.row_direction))
        for indices in order_slices([member.geometry for member in members]):
            groups.append(SliceGroup(series_id, tuple(members[index] for index in indices)))
    return tuple(groups)
