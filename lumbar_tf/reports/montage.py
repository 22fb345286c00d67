"""Montages: small pictures of a study's slices with the annotated level points."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.dicom.study import Slice, SliceGroup, Study, arrange_slices
from lumbar_tf.labels import FINDINGS, MISSING_LABEL, Family, Level, Plane, Severity
from lumbar_tf.reports.slice_pictures import Floats, ResampledSlice, choose_slice, encode_png, resample_slice

#: Pictures per plane. Sagittal: the middle slice and two on either side; axial: one per level.
NUM_PICTURES = 5
#: Size of a sagittal picture, mm: L1/L2 to L5/S1 spans 110 to 160 mm; the rest is context.
_SAGITTAL_MM = (190.0, 250.0)
_AXIAL_MM = (130.0, 130.0)
#: Largest distance at which a point is projected on an axial slice, mm: half the spacing of levels.
_MAX_DISTANCE_MM = 15.0


@dataclass(frozen=True, eq=False)
class LevelPoints:
    """A study's annotated points.

    Attributes:
        positions: LPS mm, float32 [25, 3], NaN if absent.
        slices: series and InstanceNumber of the slice that each point was placed on, by the finding's row.
        labels: int8 [25]; None if the study has no row in the label table.
    """

    positions: Floats
    slices: Mapping[int, tuple[str, int]]
    labels: NDArray[np.int8] | None

    def on(self, source: Slice) -> list[int]:
        """Returns the rows of the findings whose points were placed on a slice."""
        name = (source.series_id, source.instance_number)
        return [index for index, placed in sorted(self.slices.items()) if placed == name]

    def at(self, level: Level) -> list[int]:
        """Returns the rows of a level's findings that have a point."""
        return [index for index in sorted(self.slices) if FINDINGS[index].level is level]


@dataclass(frozen=True)
class Mark:
    """A point on a picture.

    Attributes:
        x: mm from the left edge of the picture.
        y: mm from the top edge.
        name: short text beside the point, or "".
        title: the finding and its grade.
        family: name of the finding's `labels.Family`.
        is_projected: whether the point was placed on another slice.
    """

    x: float
    y: float
    name: str
    title: str
    family: str
    is_projected: bool


@dataclass(frozen=True)
class SlicePicture:
    """A slice as a PNG in radiological orientation.

    Attributes:
        png: the file.
        width_mm: width of the picture.
        height_mm: height of the picture.
        caption: position of the slice, in a few words.
        edges: patient directions at the left and right edge, such as R and L, or A and P.
        marks: the points on the slice.
    """

    png: bytes
    width_mm: float
    height_mm: float
    caption: str
    edges: tuple[str, str]
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class MontageRow:
    """The pictures of one plane and a short note about them."""

    plane: Plane
    note: str
    pictures: tuple[SlicePicture, ...]


@dataclass(frozen=True)
class Montage:
    """A few slices of one study, one row per plane."""

    study_id: str
    rows: tuple[MontageRow, ...]


def make_montage(study: Study, points: LevelPoints) -> Montage:
    """Selects and encodes a few slices of each plane of a study.

    Sagittal planes show the middle slice and four others; slices with points are preferred, then those
    nearest to the middle. The axial plane shows one slice per level or, without points, evenly spread slices.
    """
    rows = []
    for plane, slices in study.planes.items():
        groups = arrange_slices(slices)
        make_pictures = _sagittal_pictures if plane.is_sagittal else _axial_pictures
        num_series = len({source.series_id for source in slices})
        note = "1 slice" if len(slices) == 1 else f"{len(slices)} slices"
        note += f" in {num_series} series" if num_series > 1 else ""
        rows.append(MontageRow(plane, note, tuple(make_pictures(groups, points))))
    return Montage(study.study_id, tuple(rows))


def _sagittal_pictures(groups: Sequence[SliceGroup], points: LevelPoints) -> Iterator[SlicePicture]:
    group = max(groups, key=lambda group: (sum(bool(points.on(s)) for s in group.slices), len(group.slices)))
    known = _known(points.positions)
    middle = _middle_index(group.slices, points.positions)
    around = known.mean(axis=0) if len(known) else group.slices[middle].geometry.centre
    for index in _choose_indices(group.slices, points, middle):
        source = group.slices[index]
        resampled = resample_slice(source, np.asarray(around, float), size_mm=_SAGITTAL_MM, is_sagittal=True)
        marks = [_mark(resampled, points, row, name=_short(FINDINGS[row].level)) for row in points.on(source)]
        yield _picture(resampled, _millimetres(resampled.centre[0], "L", "R"), ("A", "P"), marks)


def _middle_index(slices: Sequence[Slice], positions: Floats) -> int:
    """Returns the slice nearest to the canal points, else to all points, else the middle of the stack."""
    canal = [row for row, finding in enumerate(FINDINGS) if finding.condition.family is Family.CANAL]
    for known in (_known(positions[canal]), _known(positions)):
        if len(known):
            x = float(known[:, 0].mean())
            return int(np.argmin([abs(source.geometry.centre[0] - x) for source in slices]))
    return len(slices) // 2


def _choose_indices(slices: Sequence[Slice], points: LevelPoints, middle: int) -> list[int]:
    """Prefers the middle slice, then those with most points, then the nearest; returns stack order."""
    order = sorted(
        range(len(slices)),
        key=lambda index: (index != middle, -len(points.on(slices[index])), abs(index - middle), index),
    )
    return sorted(order[:NUM_PICTURES])


def _axial_pictures(groups: Sequence[SliceGroup], points: LevelPoints) -> Iterator[SlicePicture]:
    slices = [source for group in groups for source in group.slices]
    if not points.slices:
        yield from _spread_pictures(slices)
        return
    for level in Level:
        rows = points.at(level)
        source = _choose_axial(slices, points, rows)
        if source is None:
            continue
        around = _known(points.positions[rows]).mean(axis=0)
        resampled = resample_slice(source, np.asarray(around, float), size_mm=_AXIAL_MM, is_sagittal=False)
        placed = set(points.on(source))
        marks = [
            _mark(resampled, points, row, is_projected=row not in placed)
            for row in sorted({*rows, *placed})
            if row in placed or abs(resampled.place(points.positions[row])[2]) <= _MAX_DISTANCE_MM
        ]
        yield _picture(resampled, level.title, ("R", "L"), marks)


def _choose_axial(slices: Sequence[Slice], points: LevelPoints, rows: Sequence[int]) -> Slice | None:
    """Returns the slice with most of a level's points, else the slice nearest to them."""
    placed = Counter(points.slices[row] for row in rows)
    best = max(slices, key=lambda source: placed[source.series_id, source.instance_number])
    if placed[best.series_id, best.instance_number]:
        return best
    return choose_slice(slices, points.positions[list(rows)], max_distance_mm=_MAX_DISTANCE_MM)


def _spread_pictures(slices: Sequence[Slice]) -> Iterator[SlicePicture]:
    downwards = sorted(slices, key=lambda source: -source.geometry.centre[2])
    # Centres of five equal parts: the ends of a stack are often blank.
    steps = (np.arange(NUM_PICTURES) + 0.5) / NUM_PICTURES * len(downwards)
    for index in sorted({int(step) for step in steps}):
        source = downwards[index]
        centre = source.geometry.centre
        resampled = resample_slice(source, centre, size_mm=_AXIAL_MM, is_sagittal=False)
        yield _picture(resampled, _millimetres(centre[2], "H", "F"), ("R", "L"), [])


def _mark(
    resampled: ResampledSlice, points: LevelPoints, row: int, *, name: str = "", is_projected: bool = False
) -> Mark:
    x, y, _ = resampled.place(points.positions[row])
    finding = FINDINGS[row]
    title = f"{finding.condition.value.replace('_', ' ')} {finding.level.title}"
    if points.labels is not None:
        grade = points.labels[row]
        title += ": " + ("not graded" if grade == MISSING_LABEL else Severity(int(grade)).title)
    family = finding.condition.family.value
    width, height = resampled.size_mm
    return Mark(round(x + width / 2, 1), round(y + height / 2, 1), name, title, family, is_projected)


def _picture(
    resampled: ResampledSlice, caption: str, edges: tuple[str, str], marks: Sequence[Mark]
) -> SlicePicture:
    width, height = resampled.size_mm
    png = encode_png(resampled.image, resampled.size_mm)
    return SlicePicture(png, width, height, caption, edges, tuple(marks))


def _known(positions: Floats) -> Floats:
    return positions[np.isfinite(positions).all(axis=-1)]


def _short(level: Level) -> str:
    """Returns `L4/5` for L4/L5, which takes less room beside a point."""
    upper, lower = level.title.split("/")
    return f"{upper}/{lower.removeprefix('L')}"


def _millimetres(value: float, positive: str, negative: str) -> str:
    """Formats a position along a patient axis, such as `12 mm L`."""
    rounded = round(value)
    return f"{abs(rounded)} mm {positive if rounded > 0 else negative}" if rounded else "0 mm"
