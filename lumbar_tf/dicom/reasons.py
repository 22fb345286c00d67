"""Reason codes of rejected input and of input that is kept with a note.

The codes are stable: they are part of manifests, and `docs/ingestion.md` lists them (a test compares the
two).
"""

from dataclasses import dataclass
from enum import Enum


class ReasonKind(Enum):
    """Kinds of reasons."""

    #: Broken or contradictory input that is rejected. Fatal with `--strict`.
    FAULT = "fault"
    #: Unusual input that is kept. Fatal with `--strict`.
    NOTE = "note"
    #: Valid input that is not graded, and therefore rejected. Never fatal.
    CHOICE = "choice"


class RejectReason(Enum):
    """Reason codes. The value is the stable code, and `kind` determines its effect on a build."""

    # Files.
    NOT_DICOM = ("not_dicom", ReasonKind.CHOICE)
    DICOMDIR = ("dicomdir", ReasonKind.CHOICE)
    NO_PIXELS = ("no_pixels", ReasonKind.CHOICE)
    NOT_MR = ("not_mr", ReasonKind.CHOICE)
    SECONDARY_CAPTURE = ("secondary_capture", ReasonKind.CHOICE)
    COLOUR = ("colour", ReasonKind.CHOICE)
    UNREADABLE = ("unreadable", ReasonKind.FAULT)
    SYMLINK = ("symlink", ReasonKind.FAULT)
    EXECUTABLE_PREAMBLE = ("executable_preamble", ReasonKind.FAULT)
    DAMAGED_HEADER = ("damaged_header", ReasonKind.FAULT)
    TRUNCATED = ("truncated", ReasonKind.FAULT)
    TOO_LARGE = ("too_large", ReasonKind.FAULT)
    DEFLATE_BOMB = ("deflate_bomb", ReasonKind.FAULT)
    UNSUPPORTED_SYNTAX = ("unsupported_syntax", ReasonKind.FAULT)
    BAD_PIXEL_FORMAT = ("bad_pixel_format", ReasonKind.FAULT)
    WRONG_PIXEL_COUNT = ("wrong_pixel_count", ReasonKind.FAULT)
    UNDECODABLE = ("undecodable", ReasonKind.FAULT)
    BAD_RESCALE = ("bad_rescale", ReasonKind.FAULT)
    BAD_POSITION = ("bad_position", ReasonKind.FAULT)
    BAD_ORIENTATION = ("bad_orientation", ReasonKind.FAULT)
    BAD_SPACING = ("bad_spacing", ReasonKind.FAULT)
    BAD_FRAMES = ("bad_frames", ReasonKind.FAULT)
    BAD_UID = ("bad_uid", ReasonKind.FAULT)
    DUPLICATE_INSTANCE = ("duplicate_instance", ReasonKind.FAULT)
    FOREIGN_FILE = ("foreign_file", ReasonKind.FAULT)
    DECODER_REFUSED = ("decoder_refused", ReasonKind.FAULT)
    UNUSUAL_ENCODING = ("unusual_encoding", ReasonKind.NOTE)
    # Series.
    LOCALIZER = ("localizer", ReasonKind.CHOICE)
    DERIVED = ("derived", ReasonKind.CHOICE)
    NOT_LUMBAR = ("not_lumbar", ReasonKind.CHOICE)
    UNKNOWN_PLANE = ("unknown_plane", ReasonKind.CHOICE)
    UNKNOWN_WEIGHTING = ("unknown_weighting", ReasonKind.CHOICE)
    LESS_SUITABLE = ("less_suitable", ReasonKind.CHOICE)
    LEFT_OUT_BY_MAP = ("left_out_by_map", ReasonKind.CHOICE)
    DUPLICATE_POSITION = ("duplicate_position", ReasonKind.FAULT)
    DUPLICATE_INSTANCE_NUMBER = ("duplicate_instance_number", ReasonKind.NOTE)
    MIXED_ORIENTATIONS = ("mixed_orientations", ReasonKind.NOTE)
    MIXED_SIZES = ("mixed_sizes", ReasonKind.NOTE)
    MISSING_SLICES = ("missing_slices", ReasonKind.NOTE)
    UNEVEN_GAPS = ("uneven_gaps", ReasonKind.NOTE)
    SINGLE_SLICE = ("single_slice", ReasonKind.NOTE)
    PLANE_CONTRADICTION = ("plane_contradiction", ReasonKind.NOTE)
    WEIGHTING_CONTRADICTION = ("weighting_contradiction", ReasonKind.NOTE)
    # Studies and sources.
    NO_SLICES = ("no_slices", ReasonKind.FAULT)
    NOTHING_TO_GRADE = ("nothing_to_grade", ReasonKind.CHOICE)
    MIXED_PATIENTS = ("mixed_patients", ReasonKind.FAULT)
    DUPLICATE_STUDY = ("duplicate_study", ReasonKind.FAULT)
    SEVERAL_STUDIES = ("several_studies", ReasonKind.NOTE)
    EMPTY_FOLDER = ("empty_folder", ReasonKind.FAULT)
    UNSAFE_ARCHIVE = ("unsafe_archive", ReasonKind.FAULT)
    NESTED_ARCHIVE = ("nested_archive", ReasonKind.FAULT)
    LISTED_FILE_ABSENT = ("listed_file_absent", ReasonKind.FAULT)
    # Tables.
    BAD_TABLE_ROW = ("bad_table_row", ReasonKind.FAULT)
    BAD_LABEL = ("bad_label", ReasonKind.FAULT)
    ABSENT_STUDY = ("absent_study", ReasonKind.NOTE)
    ABSENT_SERIES = ("absent_series", ReasonKind.FAULT)
    NO_SUCH_SLICE = ("no_such_slice", ReasonKind.FAULT)
    AMBIGUOUS_SLICE = ("ambiguous_slice", ReasonKind.FAULT)
    POINT_OUTSIDE_IMAGE = ("point_outside_image", ReasonKind.FAULT)

    kind: ReasonKind

    def __new__(cls, code: str, kind: ReasonKind) -> "RejectReason":
        """Sets `value` to the code alone, so that `RejectReason("colour")` works."""
        member = object.__new__(cls)
        member._value_ = code
        member.kind = kind
        return member


@dataclass(frozen=True)
class Reject:
    """A file, series or study that was rejected, or kept with a note.

    Attributes:
        study_id: study id, "" if unknown.
        series_id: series id, "" if unknown.
        file_name: name of the file by `display_name`; "" for a whole series or study.
        reason: stable code.
        message: one line with the rule and the value that violates it. It contains no header value that
            could identify a patient: no name, date, free text or path.
    """

    study_id: str
    series_id: str
    file_name: str
    reason: RejectReason
    message: str


class RejectedError(Exception):
    """Rejection of a file, frame or archive; callers convert it to a `Reject`.

    Attributes:
        reason: reason code.
    """

    def __init__(self, reason: RejectReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
