"""What a study is once it has been read: planes of slices, and what was refused and why."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from lumbar_tf.dicom.geometry import SliceGeometry, order_slices
from lumbar_tf.dicom.origin import ImageOrigin, StudyHeader
from lumbar_tf.dicom.reasons import Reject
from lumbar_tf.labels import Plane


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
