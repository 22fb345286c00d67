"""Where a slice and a study come from, as their headers name it: what a result needs to refer back.

Only results that return to the hospital's archive use this. Records, tables, logs and pictures do not.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from pydicom import config
from pydicom.dataset import Dataset
from pydicom.valuerep import DA, TM, validate_value

from lumbar_tf.dicom.files.values import read_value

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


def read_loose_text(dataset: Dataset, keyword: str) -> str:
    """Returns a value's text, "" where it is absent or cannot be parsed: a slice is not refused for it."""
    with suppress(Exception):
        return str(read_value(dataset, keyword) or "")
    return ""
