"""Small pictures of a study's slices, with the annotated level points on them."""

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lumbar_tf.dicom.study import Slice, SliceGroup, Study, arrange_slices
from lumbar_tf.labels import FINDINGS, MISSING_LABEL, Family, Level, Plane, Severity
from lumbar_tf.reports.slice_resampling import Floats, View, choose_slice, cut_view

#: Slices of a sagittal plane: the middle one and two to either side; of the axial one: one a level.
NUM_PICTURES = 5
#: L1/L2 to L5/S1 is 110 to 160 mm; the rest shows what else is in the image, mm.
_SAGITTAL_MM = (190.0, 250.0)
_AXIAL_MM = (130.0, 130.0)
#: Fine enough to tell a disc from its neighbour; a dozen studies of two sagittal planes and one axial
#: make a page of about 7 MB.
_PITCH_MM = 0.8
#: Grey levels: as many as a reader can tell apart, and a third smaller than 256.
_NUM_GREYS = 64
#: A point farther than this from an axial slice is not projected on it: half a level, mm.
_MAX_DISTANCE_MM = 15.0


@dataclass(frozen=True, eq=False)
class LevelPoints:
    """A study's annotated points.

    Attributes:
        positions: LPS mm, float32 [25, 3], NaN where there is none.
        slices: the series and InstanceNumber of the slice that each was placed on, by the finding's row.
        labels: int8 [25], None where there is no row.
    """

    positions: Floats
    slices: Mapping[int, tuple[str, int]]
    labels: NDArray[np.int8] | None

    def on(self, each: Slice) -> list[int]:
        """Returns the rows of the findings that were placed on a slice."""
        name = (each.series_id, each.instance_number)
        return [index for index, placed in sorted(self.slices.items()) if placed == name]

    def at(self, level: Level) -> list[int]:
        """Returns the rows of the findings of a level that have a point."""
        return [index for index in sorted(self.slices) if FINDINGS[index].level is level]


@dataclass(frozen=True)
class Mark:
    """A point on a picture.

    Attributes:
        x: mm from the picture's left edge.
        y: mm from its upper edge.
        name: a few characters beside it, "" for none.
        title: the finding and its grade.
        family: of the finding, a `labels.Family` value.
        is_projected: whether it was placed on another slice.
    """

    x: float
    y: float
    name: str
    title: str
    family: str
    is_projected: bool


@dataclass(frozen=True)
class SlicePicture:
    """A slice as a PNG, seen along the patient's axes.

    Attributes:
        png: the file.
        width_mm: of the picture.
        height_mm: of the picture.
        caption: what is shown, a few words.
        edges: what lies to the left and to the right: R and L, A and P.
        marks: the points on it.
    """

    png: bytes
    width_mm: float
    height_mm: float
    caption: str
    edges: tuple[str, str]
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class MontageRow:
    """The pictures of one plane."""

    plane: Plane
    note: str
    pictures: tuple[SlicePicture, ...]


@dataclass(frozen=True)
class Montage:
    """A few slices of one study, a row a plane."""

    study_id: str
    rows: tuple[MontageRow, ...]


def make_montage(study: Study, points: LevelPoints) -> Montage:
    """Draws a few slices of each plane of a study.

    Sagittal planes show the middle slice and two to either side; slices that points were placed on come
    first. The axial plane shows the slice of each level; without points, slices spread evenly.
    """
    rows = []
    for plane, slices in study.planes.items():
        groups = arrange_slices(slices)
        make_pictures = _sagittal_pictures if plane.is_sagittal else _axial_pictures
        num_series = len({each.series_id for each in slices})
        note = "1 slice" if len(slices) == 1 else f"{len(slices)} slices"
        note += f" in {num_series} series" if num_series > 1 else ""
        rows.append(MontageRow(plane, note, tuple(make_pictures(groups, points))))
    return Montage(study.study_id, tuple(rows))


def _sagittal_pictures(groups: Sequence[SliceGroup], points: LevelPoints) -> Iterator[SlicePicture]:
    group = max(groups, key=lambda each: (sum(bool(points.on(one)) for one in each.slices), len(each.slices)))
    known = _known(points.positions)
    middle = _middle_index(group.slices, points.positions)
    around = known.mean(axis=0) if len(known) else group.slices[middle].geometry.centre
    for index in _choose_indices(group.slices, points, middle):
        each = group.slices[index]
        view = cut_view(each, np.asarray(around, float), size_mm=_SAGITTAL_MM, is_sagittal=True)
        marks = [_mark(view, points, row, name=_short(FINDINGS[row].level)) for row in points.on(each)]
        yield _picture(view, _millimetres(view.centre[0], "L", "R"), ("A", "P"), marks)


def _middle_index(slices: Sequence[Slice], positions: Floats) -> int:
    """The slice through the canal, or between all points; without points the middle of the stack."""
    canal = [index for index, each in enumerate(FINDINGS) if each.condition.family is Family.CANAL]
    for known in (_known(positions[canal]), _known(positions)):
        if len(known):
            x = float(known[:, 0].mean())
            return int(np.argmin([abs(each.geometry.centre[0] - x) for each in slices]))
    return len(slices) // 2


def _choose_indices(slices: Sequence[Slice], points: LevelPoints, middle: int) -> list[int]:
    """The middle, then the slices with most points, then the nearest to the middle; in stack order."""
    order = sorted(
        range(len(slices)),
        key=lambda index: (index != middle, -len(points.on(slices[index])), abs(index - middle), index),
    )
    return sorted(order[:NUM_PICTURES])


def _axial_pictures(groups: Sequence[SliceGroup], points: LevelPoints) -> Iterator[SlicePicture]:
    slices = [each for group in groups for each in group.slices]
    if not points.slices:
        yield from _spread_pictures(slices)
        return
    for level in Level:
        rows = points.at(level)
        each = _choose_axial(slices, points, rows)
        if each is None:
            continue
        around = _known(points.positions[rows]).mean(axis=0)
        view = cut_view(each, np.asarray(around, float), size_mm=_AXIAL_MM, is_sagittal=False)
        placed = set(points.on(each))
        marks = [
            _mark(view, points, row, is_projected=row not in placed)
            for row in sorted({*rows, *placed})
            if row in placed or abs(view.place(points.positions[row])[2]) <= _MAX_DISTANCE_MM
        ]
        yield _picture(view, level.title, ("R", "L"), marks)


def _choose_axial(slices: Sequence[Slice], points: LevelPoints, rows: Sequence[int]) -> Slice | None:
    """The slice that most of a level's points were placed on, or that passes nearest to them."""
    placed = Counter(points.slices[row] for row in rows)
    best = max(slices, key=lambda each: placed[each.series_id, each.instance_number])
    if placed[best.series_id, best.instance_number]:
        return best
    return choose_slice(slices, points.positions[list(rows)], max_distance_mm=_MAX_DISTANCE_MM)


def _spread_pictures(slices: Sequence[Slice]) -> Iterator[SlicePicture]:
    downwards = sorted(slices, key=lambda each: -each.geometry.centre[2])
    # The middles of five equal parts, so that the ends of the stack, often blank, are passed over.
    steps = (np.arange(NUM_PICTURES) + 0.5) / NUM_PICTURES * len(downwards)
    for index in sorted({int(step) for step in steps}):
        each = downwards[index]
        view = cut_view(each, each.geometry.centre, size_mm=_AXIAL_MM, is_sagittal=False)
        yield _picture(view, _millimetres(each.geometry.centre[2], "H", "F"), ("R", "L"), [])


def _mark(view: View, points: LevelPoints, row: int, *, name: str = "", is_projected: bool = False) -> Mark:
    x, y, _ = view.place(points.positions[row])
    finding = FINDINGS[row]
    title = f"{finding.condition.value.replace('_', ' ')} {finding.level.title}"
    if points.labels is not None:
        grade = points.labels[row]
        title += ": " + ("not graded" if grade == MISSING_LABEL else Severity(int(grade)).title)
    family = finding.condition.family.value
    width, height = view.size_mm
    return Mark(round(x + width / 2, 1), round(y + height / 2, 1), name, title, family, is_projected)


def _picture(view: View, caption: str, edges: tuple[str, str], marks: Sequence[Mark]) -> SlicePicture:
    width, height = view.size_mm
    return SlicePicture(encode_png(view.image, view.size_mm), width, height, caption, edges, tuple(marks))


def encode_png(image: Floats, size_mm: tuple[float, float], *, pitch_mm: float = _PITCH_MM) -> bytes:
    """Returns a PNG of an image, windowed to its own values (1st to 99.5th percentile), black where NaN.

    Args:
        image: float32 [height, width].
        size_mm: width and height.
        pitch_mm: the PNG's pixels are this far apart.
    """
    values = image[np.isfinite(image)]
    low, high = np.percentile(values, (1.0, 99.5)) if values.size else (0.0, 1.0)
    scaled = np.clip((np.nan_to_num(image, nan=low) - low) / max(high - low, 1e-6), 0, 1)
    grey = Image.fromarray(np.round(scaled * 255).astype(np.uint8))
    width, height = (round(size / pitch_mm) for size in size_mm)
    small = np.asarray(grey.resize((width, height), Image.Resampling.BOX), np.float32)
    levels = np.round(np.round(small / 255 * (_NUM_GREYS - 1)) * 255 / (_NUM_GREYS - 1))
    buffer = io.BytesIO()
    Image.fromarray(levels.astype(np.uint8)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _known(positions: Floats) -> Floats:
    return positions[np.isfinite(positions).all(axis=-1)]


def _short(level: Level) -> str:
    """`L4/5` for L4/L5: half as wide beside a point."""
    upper, lower = level.title.split("/")
    return f"{upper}/{lower.removeprefix('L')}"


def _millimetres(value: float, positive: str, negative: str) -> str:
    """`12 mm L`: a place along a patient axis."""
    rounded = round(value)
    return f"{abs(rounded)} mm {positive if rounded > 0 else negative}" if rounded else "0 mm"
