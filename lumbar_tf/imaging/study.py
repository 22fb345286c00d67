"""What a study is once it has been read: planes of slices, and what was refused and why."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.imaging.geometry import SliceGeometry, order_slices
from lumbar_tf.labels import Plane


class RejectReason(Enum):
    """Why a file or a table row was left out, or a contradiction noted. The value is the stable code."""

    NOT_DICOM = "not_dicom"
    UNREADABLE = "unreadable"
    NO_PIXELS = "no_pixels"
    TOO_LARGE = "too_large"
    MULTI_FRAME = "multi_frame"
    COLOUR = "colour"
    BAD_GEOMETRY = "bad_geometry"
    BAD_RESCALE = "bad_rescale"
    UNDECODABLE = "undecodable"
    UNKNOWN_PLANE = "unknown_plane"
    PLANE_CONTRADICTION = "plane_contradiction"
    BAD_TABLE_ROW = "bad_table_row"
    NO_SUCH_SLICE = "no_such_slice"
    NO_SLICES = "no_slices"

    @property
    def is_note(self) -> bool:
        """Whether the thing was kept all the same, and this only says what is odd about it."""
        return self is RejectReason.PLANE_CONTRADICTION


@dataclass(frozen=True)
class Reject:
    """One thing that was left out, or kept with a note.

    Attributes:
        study_id: the study, "" where none is known.
        series_id: the series, "" where none is known.
        file_name: the file's name without its folders, "" for a whole series or study.
        reason: the stable code.
        message: one line for a person; holds no header values that could identify a patient.
    """

    study_id: str
    series_id: str
    file_name: str
    reason: RejectReason
    message: str


def no_slices(study_id: str) -> Reject:
    """Returns what is said of a study of which nothing could be used."""
    return Reject(study_id, "", "", RejectReason.NO_SLICES, "no slice of any plane could be used")


@dataclass(frozen=True, eq=False)
class Slice:
    """One image in patient space.

    Attributes:
        geometry: where its pixels lie, LPS mm.
        pixels: float32 [rows, columns], after rescale slope and intercept and with MONOCHROME1
            turned round, so that larger is always brighter.
        series_id: the series it belongs to.
        instance_number: InstanceNumber, only ever used to find a table's row; 0 where absent.
    """

    geometry: SliceGeometry
    pixels: NDArray[np.float32]
    series_id: str
    instance_number: int

    def __post_init__(self) -> None:
        expected = (self.geometry.rows, self.geometry.columns)
        if self.pixels.shape != expected:
            raise ValueError(
                f"`pixels` must have the geometry's shape {expected}. Received: {self.pixels.shape} "
                f"(series {self.series_id}, instance {self.instance_number})."
            )


@dataclass(frozen=True, eq=False)
class Study:
    """One patient's examination.

    Attributes:
        study_id: the name used in tables, records and results.
        patient_id: PatientID, "" where absent. Kept in memory only: it is never written anywhere.
        planes: for each plane that was found, its slices in `arrange_slices` order.
        rejects: what was left out or noted.
        source_digest: SHA-256 over the digests of the study's files.
    """

    study_id: str
    patient_id: str
    planes: Mapping[Plane, tuple[Slice, ...]]
    rejects: tuple[Reject, ...] = ()
    source_digest: str = ""


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
