"""What the DICOM results of a study have in common: their identity, their patient and who made them."""

from typing import Any

from pydicom.dataset import Dataset

from lumbar_tf import __version__
from lumbar_tf.dicom.origin import HEADER_KEYWORDS
from lumbar_tf.interop.source_references import SourceStudy, derived_uid
from lumbar_tf.prediction.results import StudyFindings

MANUFACTURER = "lumbar_tf"
#: Whatever alphabet the source was written in, the results are in this (PS3.3 section C.12.1.1.2).
_UTF_8 = "ISO_IR 192"
#: What must be there, if only empty (PS3.3 sections C.7.1.1 and C.7.2.1, type 2).
_REQUIRED = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
#: A Long String holds so many characters (PS3.5 section 6.2).
_MAX_LONG_STRING = 64


def software_version(model: str) -> str:
    """Returns what made a result: this package's version and the bundle's.

    >>> software_version("3").endswith("model 3")
    True
    """
    return f"{__version__}, model {model}"[:_MAX_LONG_STRING]


def result_uid(kind: str, source: SourceStudy, result: StudyFindings, model: str) -> str:
    """Returns the UID of a result, the same whenever the same model gives the same answer of a study.

    So an archive that is sent a result twice keeps one.
    """
    numbers = b"".join(each.tobytes() for each in (result.probability, result.landmarks, result.flags))
    bounds = b"" if result.interval is None else result.interval.tobytes()
    images = ",".join(sorted(each.sop_instance_uid for each in source.images))
    digest = (numbers + bounds).hex()
    return derived_uid(kind, source.study_uid, images, software_version(model), digest)


def series_uid(kind: str, source: SourceStudy, model: str) -> str:
    """Returns the UID of the series of a study that the results of one kind and model are put into."""
    return derived_uid("series", kind, source.study_uid, software_version(model))


def unnamed_dataset(source: SourceStudy) -> Dataset:
    """Returns the study's UID, and all else of patient and study empty.

    highdicom is given this: it would show a name that it finds odd in a warning. `complete` says the rest.
    """
    dataset = Dataset()
    dataset.SpecificCharacterSet = _UTF_8
    dataset.StudyInstanceUID = source.study_uid
    for keyword in _REQUIRED:
        setattr(dataset, keyword, "")
    return dataset


def equipment(model: str) -> dict[str, Any]:
    """Returns the arguments that say who made a result, for highdicom."""
    return {
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": MANUFACTURER,
        "software_versions": software_version(model),
        "device_serial_number": derived_uid("device", model)[:_MAX_LONG_STRING],
        "specific_character_set": _UTF_8,
    }


def describe_replaced(source: SourceStudy) -> str:
    """Returns a sentence on UIDs that the source lacks; "" where it lacks none."""
    if not source.replaced:
        return ""
    parts = ", ".join(f"{keyword} ({count})" for keyword, count in sorted(source.replaced.items()))
    return (
        "The source lacks UIDs that the standard allows, and others that its content decides stand in their "
        f"place, under which no archive holds it: {parts}."
    )


def complete(dataset: Dataset, source: SourceStudy) -> None:
    """Sets the Patient and General Study attributes of a result to the source's; empty where it has none."""
    for keyword in HEADER_KEYWORDS:
        value = source.header.get(keyword)
        if value is not None or keyword in _REQUIRED:
            setattr(dataset, keyword, value or "")
