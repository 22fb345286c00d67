"""The values of DICOM headers that could tell of a person, as phrases to search for.

Taken are, wherever they are nested and private tags included:
- every person's name (VR PN), whole, in both orders, and each part of it;
- every free text, identifier, address and number kept as text (LO, LT, SH, ST, UC, UR, UT, AE, AS; in private
  tags CS too, but for a lone word), and every value of unknown or binary VR that is plain text as a whole;
- every date (DA, DT) in the ways in which dates are written, and times (TM) with a fraction or as `10:15:30`:
  a bare hhmmss fits every twelfth six-digit number, and says nothing without its date;
- names of folders and files that are more than numbers;
- where study ids are pseudonyms, also the source's study ids and every UID that DICOM itself did not assign.
Left out are what `phrases.is_telling` calls telling of nobody, the study ids that records have to name,
public code strings (CS: closed lists) and numbers (VR DS, IS, FD, ...: measures). Text inside larger binary
private values is not looked for.
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
from lumbar_tf.dicom.files.all_elements import read_all_elements
from lumbar_tf.dicom.files.pydicom_warnings import suppress_pydicom_warnings
from lumbar_tf.dicom.sources.listing import is_plain_name
from lumbar_tf.dicom.sources.study_source import StudyFiles, list_study_files
from lumbar_tf.privacy.phrases import extract_phrases, split_words
from lumbar_tf.runners import run_jobs

FOLDER_NAME, FILE_NAME, STUDY_ID = "folder name", "file name", "study id"

_TEXT = frozenset({"LO", "LT", "SH", "ST", "UC", "UR", "UT", "AE", "AS"})
#: Text of private tags comes in these too.
_PRIVATE_TEXT = _TEXT | {"CS"}
_BYTES = frozenset({"OB", "UN"})
#: More of one value is no text that anybody writes about a patient.
_MAX_CHARACTERS = 100_000
#: UIDs below this root are DICOM's own (PS3.5 section 9): the same in every hospital.
_DICOM_ROOT = "1.2.840.10008."


@dataclass(frozen=True, eq=False)
class IdentifyingValues:
    """What must not be found.

    Attributes:
        tags: for each phrase, where it comes from: DICOM keywords, `(gggg,eeee)` for private tags.
        num_unread: DICOM files whose header could not be read, not even in part.
    """

    tags: dict[str, frozenset[str]]
    num_unread: int


@dataclass(frozen=True)
class _Job:
    """One study to look through."""

    study: StudyFiles
    are_ids_secret: bool


def collect_identifying_values(
    studies: Sequence[StudyFiles],
    *,
    are_ids_secret: bool = False,
    workers: int = 1,
    progress: ProgressMaker = silent_progress,
) -> IdentifyingValues:
    """Returns the identifying values of a source.

    Args:
        studies: under the source's own ids.
        are_ids_secret: whether results go by pseudonyms, so that neither study ids nor UIDs may be found.
            Otherwise study ids are what results have to name, and a PatientID that is one is no secret.
        workers: processes.
        progress: shows it, a unit a study.
    """
    jobs = [_Job(each, are_ids_secret) for each in studies]
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
                # Most values are the same in every file of a series.
                if (vr != "UI" or job.are_ids_secret) and (name, vr, text) not in seen:
                    seen.add((name, vr, text))
                    for phrase in _phrases(vr, text):
                        tags[phrase].add(name)
    return IdentifyingValues({phrase: frozenset(names) for phrase, names in tags.items()}, num_unread)


def _name_values(path: Path, job: _Job) -> Iterator[tuple[str, str, str]]:
    *folders, _ = path.relative_to(job.study.root).parts
    yield from (
        (FOLDER_NAME, "LO", each) for each in folders if job.are_ids_secret or not is_plain_name(each)
    )
    if not is_plain_name(path.name):
        yield FILE_NAME, "LO", path.stem
    if job.are_ids_secret:
        yield STUDY_ID, "UI", job.study.study_id


def _dataset_values(dataset: Dataset, parent: str = "") -> Iterator[tuple[str, str, str]]:
    """Yields (tag, VR, text) of every value, sequences included; damaged values as the bytes they are."""
    meta = getattr(dataset, "file_meta", None)
    if meta is not None:
        yield from _dataset_values(meta)
    for tag in list(dataset.keys()):
        try:
            element = dataset[tag]
        except Exception:  # pydicom converts values when they are asked for, and raises many kinds
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
    """Returns bytes that are text as a whole; "" for any other."""
    if not isinstance(value, bytes) or len(value) > _MAX_CHARACTERS:
        return ""
    text = value.decode("utf-8", "replace").rstrip("\0 ")
    return text if all(each.isprintable() or each.isspace() for each in text) else ""


def _phrases(vr: str, text: str) -> Iterator[str]:
    """Yields what to search for, for one value."""
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
            family, given = (split_words(each) for each in f"{group}^".split("^")[:2])
            yield from (" ".join(given + family), "".join(family + given), "".join(given + family))
    elif vr in ("DA", "DT") and text[:8].isdecimal() and len(text) >= 8:
        year, month, day = text[:4], text[4:6], text[6:8]
        for order in ((year, month, day), (day, month, year), (month, day, year)):
            yield from ("".join(order), " ".join(order), ".".join(order))
