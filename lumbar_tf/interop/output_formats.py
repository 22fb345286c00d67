"""Kinds of files that are written for each graded study: their names, folders and requirements."""

import difflib
import glob
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

DICOM_FOLDER = "dicom"
_HIGHDICOM = ("highdicom", "dicom")


@dataclass(frozen=True)
class FormatSpec:
    """Properties of a kind of file.

    Attributes:
        folder: the folder below the results' folder.
        suffix: end of the file name, which begins with the study's id. A format with several files has a
            number instead of the `*`.
        needs_slices: whether a study without a slice gets none: nothing to draw, or to refer to.
        needs_header: whether the files repeat patient data of the DICOM header (pseudonyms with a key).
        shows_crops: whether the files show crop outlines.
        shows_saliency: whether the files show saliency maps.
        extra: a module that must be importable, and the extra of this package that installs it.
    """

    folder: str
    suffix: str
    needs_slices: bool = False
    needs_header: bool = False
    shows_crops: bool = False
    shows_saliency: bool = False
    extra: tuple[str, str] | None = None


class OutputFormat(Enum):
    """A kind of file, in the order in which they are written; the value is its name in `--formats`.

    Attributes:
        spec: its properties.
    """

    SHEETS = "sheets", FormatSpec("sheets", ".png", needs_slices=True)
    REPORT = "report", FormatSpec("reports", ".html", shows_crops=True, shows_saliency=True)
    SR = (
        "sr",
        FormatSpec(DICOM_FOLDER, ".sr.dcm", needs_slices=True, needs_header=True, extra=_HIGHDICOM),
    )
    GSPS = (
        "gsps",
        FormatSpec(
            DICOM_FOLDER,
            ".gsps-*.dcm",
            needs_slices=True,
            needs_header=True,
            shows_crops=True,
            extra=_HIGHDICOM,
        ),
    )
    PDF = "pdf", FormatSpec(DICOM_FOLDER, ".pdf.dcm", needs_slices=True, needs_header=True)
    SC = (
        "sc",
        FormatSpec(DICOM_FOLDER, ".sc.dcm", needs_slices=True, needs_header=True, extra=_HIGHDICOM),
    )
    FHIR = "fhir", FormatSpec("fhir", ".json", needs_slices=True, needs_header=True)

    _value_: str
    spec: FormatSpec

    def __new__(cls, value: str, *attributes: Any) -> Self:
        """Makes a member; a call with the value alone looks one up."""
        member = object.__new__(cls)
        member._value_ = value
        (member.spec,) = attributes
        return member

    @property
    def is_dicom(self) -> bool:
        """Whether the files can be stored in an archive."""
        return self.spec.folder == DICOM_FOLDER


#: Formats that are written unless others are named.
DEFAULT_FORMATS = (OutputFormat.SHEETS, OutputFormat.REPORT)
#: Further formats if results are stored in an archive and none are named.
STORED_FORMATS = (OutputFormat.SR, OutputFormat.SC)


def parse_formats(names: Iterable[str]) -> tuple[OutputFormat, ...]:
    """Returns the named formats without repetition, in the order in which they are written.

    >>> [each.value for each in parse_formats(["fhir", "sr", "fhir"])]
    ['sr', 'fhir']

    Raises:
        ValueError: there is no format of a name; the message has the nearest one.
    """
    known = [each.value for each in OutputFormat]
    named = set(names)
    for name in sorted(named - set(known)):
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"`formats` must be of {', '.join(known)}. Received: {name!r}{hint}.")
    return tuple(each for each in OutputFormat if each.value in named)


def find_files(path: Path) -> list[Path]:
    """Returns the files of a path that exist, of one with a `*` those with a number instead, in order."""
    before, numbered, after = path.name.partition("*")
    if not numbered:
        return [path] if path.is_file() else []
    found = path.parent.glob(f"{glob.escape(before)}*{glob.escape(after)}")
    numbers = {each.name.removeprefix(before).removesuffix(after): each for each in found}
    return [numbers[text] for text in sorted(filter(str.isdecimal, numbers), key=int)]


def check_extras(formats: Iterable[OutputFormat]) -> None:
    """Checks that this environment has what the formats need.

    Raises:
        ValueError: a package is not installed.
    """
    for each in formats:
        extra = each.spec.extra
        if extra is not None and find_spec(extra[0]) is None:
            raise ValueError(
                f"The format {each.value} needs {extra[0]}: pip install 'lumbar_tf[{extra[1]}]'. "
                "Received: an environment without it."
            )
