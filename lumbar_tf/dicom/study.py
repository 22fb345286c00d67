"""Study."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray
from pydicom import config
from pydicom.dataset import Dataset
from pydicom.valuerep import DA, TM, validate_value

from lumbar_tf.dicom.files.values import read_value
from lumbar_tf.dicom.geometry import SliceGeometry, order_slices
from lumbar_tf.dicom.reasons import Reject
from lumbar_tf.labels import Plane

#: What a result's Patient and General Study modules repeat (PS3.3 sections C.7.1.1 and C.7.2.1), with the
#: value representation of each; more of the header is not kept.
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
#: PS3.3 section C.7.1.1; highdicom writes no other.
_SEXES = frozenset(("M", "F", "O"))


@dataclass(frozen=True)
class ImageOrigin:
    """The stored image that a slice was read from; "" for what its header does not name.

    Attributes:
        sop_class_uid: SOPClassUID.
        sop_instance_uid: SOPInstanceUID.
        series_uid: SeriesInstanceUID, whatever the tables call the series.
        frame_of_reference_uid: FrameOfReferenceUID.
        frame_number: the frame, from 1; 0 in a file of one frame.
    """

    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str
    frame_of_reference_uid: str
    frame_number: int = 0


@dataclass(frozen=True, eq=False)
class StudyHeader:
    """What a study's headers say of the patient and the examination. Kept only for whoever asks for it.

    Attributes:
        study_uid: StudyInstanceUID, "" where absent.
        values: text by DICOM keyword, of those in `HEADER_KEYWORDS`; absent where the header has none that
            the standard allows. Never shown.
    """

    study_uid: str
    values: Mapping[str, str] = field(repr=False)


def read_study_header(dataset: Dataset, study_uid: str) -> StudyHeader:
    """Reads what a result of the study repeats; values that the standard does not allow are left out."""
    values = {}
    for keyword, vr in HEADER_KEYWORDS.items():
        # Values are parsed when they are asked for, and may be anything.
        with suppress(Exception):
            text = str(read_value(dataset, keyword) or "").strip()
            if text and _is_allowed(keyword, vr, text):
                values[keyword] = text
    return StudyHeader(study_uid, values)


def _is_allowed(keyword: str, vr: str, text: str) -> bool:
    validate_value(vr, text, config.RAISE)
    if vr in ("DA", "TM"):
        _ = DA(text) if vr == "DA" else TM(text)
    return keyword != "PatientSex" or text in _SEXES


def read_optional_text(dataset: Dataset, keyword: str) -> str:
    """Returns a value's text, "" where it is absent or cannot be parsed: a slice is not refused for it."""
    with suppress(Exception):
        return str(read_value(dataset, keyword) or "")
    return ""


@dataclass(frozen=True, eq=False)
class Slice:
    """One image in patient space.

    Attributes:
        geometry: where its pixels lie, LPS mm.
        pixels: [rows, columns], after rescale slope and intercept and with MONOCHROME1 turned
            round, so that larger is always brighter: the stored integers (8 or 16 bits) where
            there is no rescale, float32 where there is.
        series_id: the series it belongs to.
        instance_number: InstanceNumber, only ever used to find a table's row; 0 where absent.
        origin: the stored image, for results that refer back to it; None of a slice that no file holds.
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
    """What is kept of a series besides its slices: what was decided of it, and sub-groups to count by.

    Attributes:
        series_id: the series.
        plane: its plane; None where it was left out.
        reason: why it was left out, a `RejectReason` value; "" where it was kept.
        num_slices: its readable slices.
        rows: of its first slice.
        columns: of its first slice.
        row_spacing_mm: of its first slice.
        column_spacing_mm: of its first slice.
        gap_mm: median distance between neighbouring slices along their normal; 0 where there is one slice.
        vendor: the scanner's maker in one spelling (`siemens`, `ge`, ...), "" where unknown.
        field_strength_tesla: None where unknown.
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


@dataclass(frozen=True, eq=False)
class Study:
    """One patient's examination.

    Attributes:
        study_id: the name used in tables, records and results.
        patient_id: PatientID, "" where absent. Kept in memory only: it is never written anywhere.
        planes: for each plane that was found, its slices in `arrange_slices` order.
        series: every readable series, kept or not, by series id.
        rejects: what was left out or noted.
        source_digest: SHA-256 over the digests of the study's files.
        header: what the headers say of patient and examination; None where nobody asked for it.
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
        series_id: the series.
        slices: at least one slice.
    """

    series_id: str
    slices: tuple[Slice, ...]


def arrange_slices(slices: Iterable[Slice]) -> tuple[SliceGroup, ...]:
    """Groups slices by series and orientation, and sorts them along their normals.

    Args:
        slices: slices of one plane, of any number of series, in any order.

    Returns:
        Groups, by series id and then as `order_slices` has them. InstanceNumber decides only
        between slices at the very same position.
    """
    by_series: dict[str, list[Slice]] = {}
    for each in slices:
        by_series.setdefault(each.series_id, []).append(each)
    groups = []
    for series_id, members in sorted(by_series.items()):
        members.sort(key=lambda each: each.instance_number)
        for indices in order_slices([each.geometry for each in members]):
            groups.append(SliceGroup(series_id, tuple(members[index] for index in indices)))
    return tuple(groups)
