"""Stacks of a study's slices as 8-bit JPEG pictures within a size limit."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.dicom.geometry import SliceGeometry, patient_to_pixel
from lumbar_tf.dicom.study import Slice, Study, arrange_slices
from lumbar_tf.labels import Plane
from lumbar_tf.reports.slice_pictures import DISPLAY_PERCENTILES, encode_jpeg, turn_upright

Floats = NDArray[np.float32]

#: Limit of all pictures of a study. Base64 adds a third: 7.3 MB of a file of at most 8 MB.
MAX_BYTES = 5_500_000
#: (longest edge in pixels, JPEG quality), tried in order until the pictures fit.
_ENCODINGS = ((512, 85), (384, 80), (256, 70))
#: Percentiles of a series' values that are stored as 0 and 255. Brighter values are fat near the coil.
_STORED_PERCENTILES = (0.1, 99.9)
#: Percentiles are computed from every third pixel along each axis.
_STEP = 3


@dataclass(frozen=True, eq=False)
class StackPicture:
    """A slice of a stack.

    Attributes:
        index: position in its plane, in `arrange_slices` order.
        jpeg: grey picture; it extends to the outer edges of the outer pixels, whatever its own resolution.
        geometry: geometry of the upright slice that it was made from.
        series_id: the series.
        instance_number: InstanceNumber, which identifies the image in a PACS; 0 if absent.
        window: grey values, 0 to 255, that are initially displayed as black and as white.
    """

    index: int
    jpeg: bytes
    geometry: SliceGeometry
    series_id: str
    instance_number: int
    window: tuple[float, float]

    @property
    def size_mm(self) -> tuple[float, float]:
        """Width and height."""
        geometry = self.geometry
        return geometry.columns * geometry.column_spacing_mm, geometry.rows * geometry.row_spacing_mm

    def place(self, point: Sequence[float] | Floats) -> tuple[float, float, float]:
        """Returns a patient point as mm from the left edge, mm from the top edge, and mm off the slice."""
        geometry = self.geometry
        column, row, distance = patient_to_pixel(geometry, np.asarray(point, float).tolist())
        # Whole numbers are pixel centres, half a pixel from the edge.
        return (column + 0.5) * geometry.column_spacing_mm, (row + 0.5) * geometry.row_spacing_mm, distance


@dataclass(frozen=True, eq=False)
class Stack:
    """The pictures of one plane.

    Attributes:
        pictures: in `arrange_slices` order.
        num_slices: slices of the plane; larger than the number of pictures if not all fit.
    """

    pictures: tuple[StackPicture, ...]
    num_slices: int


def make_stacks(
    study: Study, points: Floats, wanted: Mapping[Plane, Collection[int]], *, max_bytes: int = MAX_BYTES
) -> dict[Plane, Stack]:
    """Encodes the slices of all planes of a study.

    If the limit is exceeded, slices that are not wanted are dropped first, those farthest from the points
    before others. If the wanted slices alone exceed it, all pictures are reduced.

    Args:
        study: the study.
        points: LPS mm, float32 [n, 3]; rows with NaN are ignored.
        wanted: indices of the slices that must be included, by plane.
        max_bytes: limit of all pictures together.

    Returns:
        A stack for each plane of the study.
    """
    planes = {plane: _upright(plane, slices) for plane, slices in study.planes.items() if slices}
    ranges = {plane: _series_ranges(slices) for plane, slices in planes.items()}
    ranks = _rank(planes, points, wanted)
    num_wanted = sum(len(set(places)) for plane, places in wanted.items() if plane in planes)
    chosen: dict[tuple[Plane, int], bytes] = {}
    for max_edge_px, quality in _ENCODINGS:
        chosen, size = {}, 0
        for plane, index in ranks:
            ranked = planes[plane][index]
            low, high, *_ = ranges[plane][ranked.series_id].tolist()
            jpeg = encode_jpeg(ranked.pixels, (low, high), max_edge_px=max_edge_px, quality=quality)
            size += len(jpeg)
            if size > max_bytes:
                break
            chosen[plane, index] = jpeg
        if len(chosen) >= num_wanted:
            break
    return {
        plane: Stack(_pictures(plane, slices, ranges[plane], chosen), len(slices))
        for plane, slices in planes.items()
    }


def _upright(plane: Plane, slices: Sequence[Slice]) -> list[Slice]:
    ordered = [member for group in arrange_slices(slices) for member in group.slices]
    return [turn_upright(member, is_sagittal=plane.is_sagittal) for member in ordered]


def _pictures(
    plane: Plane,
    slices: Sequence[Slice],
    ranges: Mapping[str, Floats],
    chosen: Mapping[tuple[Plane, int], bytes],
) -> tuple[StackPicture, ...]:
    return tuple(
        StackPicture(
            index,
            chosen[plane, index],
            source.geometry,
            source.series_id,
            source.instance_number,
            _initial_window(ranges[source.series_id]),
        )
        for index, source in enumerate(slices)
        if (plane, index) in chosen
    )


def _initial_window(series_range: Floats) -> tuple[float, float]:
    low, high, black, white = (float(value) for value in series_range)
    scale = 255 / max(high - low, 1e-6)
    return round((black - low) * scale, 1), round((white - low) * scale, 1)


def _series_ranges(slices: Sequence[Slice]) -> dict[str, Floats]:
    """Returns percentiles by series, float32 [4]: stored minimum and maximum, displayed black and white."""
    samples: dict[str, list[Floats]] = {}
    for source in slices:
        samples.setdefault(source.series_id, []).append(source.pixels[::_STEP, ::_STEP].ravel())
    percentiles = (*_STORED_PERCENTILES, *DISPLAY_PERCENTILES)
    return {
        series_id: np.percentile(np.concatenate(values), percentiles).astype(np.float32)
        for series_id, values in samples.items()
    }


def _rank(
    planes: Mapping[Plane, Sequence[Slice]], points: Floats, wanted: Mapping[Plane, Collection[int]]
) -> list[tuple[Plane, int]]:
    """Returns (plane, index) of all slices: the wanted ones first, then by distance from the nearest point.

    Without points, by distance from the middle of the stack.
    """
    known = points[np.isfinite(points).all(axis=-1)].astype(np.float64)
    ranked = []
    for plane, slices in planes.items():
        for index, source in enumerate(slices):
            offsets = known - np.asarray(source.geometry.position)
            from_middle = float(abs(index - (len(slices) - 1) / 2))
            distance = float(np.abs(offsets @ source.geometry.normal).min()) if len(known) else from_middle
            ranked.append((index not in wanted.get(plane, ()), distance, plane, index))
    ranked.sort(key=lambda entry: entry[:2])
    return [(plane, index) for _, _, plane, index in ranked]
