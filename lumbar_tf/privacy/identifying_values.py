"""Identifying values of DICOM headers, as phrases to search for.

Values at any depth and of private tags are included:
- person names (VR PN): the full name, in both orders, and each part;
- free texts, identifiers, addresses and numbers stored as text (LO, LT, SH, ST, UC, UR, UT, AE, AS; in
  private tags also CS, except single words), and values of unknown or binary VR that are plain text;
- dates (DA, DT) in the common formats, and times (TM) with a fraction or as `10:15:30`. A plain hhmmss
  matches every twelfth six-digit number and does not identify anyone without its date;
- names of folders and files that are not only numbers;
- if study ids are pseudonyms, also the source's study ids and every UID that is not assigned by DICOM.
Not included are values that `phrases.is_identifying` excludes, the study ids that records must contain,
public code strings (CS, closed lists) and numbers (DS, IS, FD, ..., measurements). Text within larger binary
private values is not searched for.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag

from lumbar_tf.cli.progress import ProgressMaker, silent_progress
from lumbar_tf.dicom.files.headers import suppress_pydicom_warnings
from lumbar_tf.dicom.files.tolerant_reading import read_all_elements
from lumbar_tf.dicom.identifiers import is_plain_name
from lumbar_tf.dicom.sources.study_source import StudyFiles, list_study_files
from lumbar_tf.privacy.phrases import extract_phrases, split_words
from lumbar_tf.runners import run_jobs

FOLDER_NAME, FILE_NAME, STUDY_ID = "folder name", "file name", "study id"

_TEXT = frozenset({"LO", "LT", "SH", "ST", "UC", "UR", "UT", "AE", "AS"})
#: Private tags also store text as CS.
_PRIVATE_TEXT = _TEXT | {"CS"}
_BYTES = frozenset({"OB", "UN"})
#: Longer values are not texts about a patient.
_MAX_CHARACTERS = 100_000
#: Root of the UIDs assigned by DICOM (PS3.5 section 9), which are the same in every hospital.
_DICOM_ROOT = "1.2.840.10008."


@dataclass(frozen=True, eq=False)
class IdentifyingValues:
    """Phrases that an output must not contain.

    Attributes:
        tags: the origins of each phrase: DICOM keywords, or `(gggg,eeee)` for private tags.
        num_unread: number of DICOM files whose header could not be read at all.
    """

    tags: dict[str, frozenset[str]]
    num_unread: int


@dataclass(frozen=True)
class _Job:
    """A study to read."""

    study: StudyFiles
    are_ids_secret: bool


def collect_identifying_values(
    studies: Sequence[StudyFiles],
    *,
    are_ids_secret: bool = False,
    workers: int = 1,
    progress: ProgressMaker = silent_progress,
) -> IdentifyingValues:
    """Returns the identifying values of a source's headers.

    Args:
        studies: the studies, under the source's ids.
        are_ids_secret: whether results use pseudonyms and must contain neither study ids nor UIDs. Otherwise
            results contain study ids, and a PatientID that equals one is not an identifying value.
        workers: processes.
        progress: progress display; a unit is a study.
    """
    jobs = [_Job(study, are_ids_secret) for study in studies]
    tags: dict[str, frozenset[str]] = {}
    num_unread = 0
    with progress(len(jobs)) as advance:
        for values in run_jobs(_collect, jobs, workers=workers, name=_job_name):
            num_unread += values.num_unread
            for phrase, names in values.tags.items():
                tags[phrase] = tags.get(phrase, frozenset()) | names
            advance(1)
    if not are_ids_secret:
        for study in studies:
            tags.pop(" ".join(split_words(study.study_id)), None)
    return IdentifyingValues(tags, num_unread)


def _job_name(job: _Job) -> str:
    return f"study {job.study.study_id}"


def _collect(job: _Job) -> IdentifyingValues:
    """Returns the values of one study's headers and of its files' names."""
    tags: dict[str, set[str]] = defaultdict(set)
    num_unread = 0
    seen: set[tuple[str, str, str]] = set()
    with suppress_pydicom_warnings():
        for path in list_study_files(job.study)[0]:
            dataset, is_unread = read_all_elements(path)
            num_unread += is_unread
            for name, vr, text in [*_name_values(path, job), *_dataset_values(dataset)]:
                # Most values are equal in all files of a series.
                if (vr != "UI" or job.are_ids_secret) and (name, vr, text) not in seen:
                    seen.add((name, vr, text))
                    for phrase in _phrases(vr, text):
                        tags[phrase].add(name)
    return IdentifyingValues({phrase: frozenset(names) for phrase, names in tags.items()}, num_unread)


def _name_values(path: Path, job: _Job) -> Iterator[tuple[str, str, str]]:
    *folders, _ = path.relative_to(job.study.root).parts
    yield from (
        (FOLDER_NAME, "LO", folder) for folder in folders if job.are_ids_secret or not is_plain_name(folder)
    )
    if not is_plain_name(path.name):
        yield FILE_NAME, "LO", path.stem
    if job.are_ids_secret:
        yield STUDY_ID, "UI", job.study.study_id


def _dataset_values(dataset: Dataset, parent: str = "") -> Iterator[tuple[str, str, str]]:
    """Yields (tag, VR, text) of every value, also within sequences; invalid values as their bytes."""
    meta = getattr(dataset, "file_meta", None)
    if meta is not None:
        yield from _dataset_values(meta)
    for tag in list(dataset.keys()):
        try:
            element = dataset[tag]
        except Exception:  # pydicom converts values on access, and raises many types of errors
            yield parent + _tag_name(tag), "UN", _printable(getattr(dataset.get_item(tag), "value", b""))
            continue
        name = parent + _tag_name(element.tag)
        if element.VR == "SQ":
            for item in element.value:
                yield from _dataset_values(item, f"{name}.")
            continue
        yield from ((name, element.VR, text) for text in _element_texts(element))


def _tag_name(tag: BaseTag) -> str:
    return ("" if tag.is_private else keyword_for_tag(tag)) or f"({tag.group:04X},{tag.element:04X})"


def _element_texts(element: DataElement) -> Iterator[str]:
    kinds = _PRIVATE_TEXT if element.tag.is_private else _TEXT
    values = element.value if isinstance(element.value, MultiValue | list) else [element.value]
    for value in values:
        if element.VR in _BYTES:
            yield _printable(value)
        elif element.VR in kinds | {"PN", "DA", "DT", "TM", "UI"} and value is not None:
            yield str(value)[:_MAX_CHARACTERS]


def _printable(value: object) -> str:
    """Returns bytes as text if all of them are printable, otherwise ""."""
    if not isinstance(value, bytes) or len(value) > _MAX_CHARACTERS:
        return ""
    text = value.decode("utf-8", "replace").rstrip("\0 ")
    return text if all(character.isprintable() or character.isspace() for character in text) else ""


def _phrases(vr: str, text: str) -> Iterator[str]:
    """Yields the phrases of one value."""
    if vr == "UI":
        if not text.startswith(_DICOM_ROOT):
            yield from extract_phrases(text)
        return
    if vr == "CS" and text.isalpha():
        return
    for spelling in _spellings(vr, text):
        yield from extract_phrases(spelling)


def _spellings(vr: str, text: str) -> Iterator[str]:
    if vr == "TM":
        if "." in text:
            yield text
        if len(text) >= 6:
            yield f"{text[:2]}:{text[2:4]}:{text[4:6]}"
        return
    yield text
    if vr == "PN":
        for group in text.split("="):
            yield from split_words(group)
            family, given = (split_words(part) for part in f"{group}^".split("^")[:2])
            yield from (" ".join(given + family), "".join(family + given), "".join(given + family))
    elif vr in ("DA", "DT") and text[:8].isdecimal() and len(text) >= 8:
        year, month, day = text[:4], text[4:6], text[6:8]
        for order in ((year, month, day), (day, month, year), (month, day, year)):
            yield from ("".join(order), " ".join(order), ".".join(order))
