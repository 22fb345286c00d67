"""A study's slices as small pictures that one file can hold: turned upright, 8 bits, JPEG."""

import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lumbar_tf.dicom.geometry import SliceGeometry, patient_to_pixel
from lumbar_tf.dicom.study import Slice, Study, arrange_slices
from lumbar_tf.labels import Plane
from lumbar_tf.reports.slice_resampling import turn_upright

Floats = NDArray[np.float32]

#: What all pictures of a study may take. In base64 they are a third larger: 7.3 MB of a file's 8.
MAX_BYTES = 5_500_000
#: What is tried one after the other until the pictures fit: longest edge in pixels, and JPEG's quality.
_RUNGS = ((512, 85), (384, 80), (256, 70))
#: Percentiles of a series' values that become 0 and 255: what is brighter is fat beside the coil.
_STORED_PERCENTILES = (0.1, 99.9)
#: The window that a picture is first shown with, as the sheets are.
_SHOWN_PERCENTILES = (1.0, 99.5)
#: Percentiles are taken of every so many pixels along each axis.
_STEP = 3


@dataclass(frozen=True, eq=False)
class StackPicture:
    """A slice as it is shown.

    Attributes:
        index: its place in its plane, in `arrange_slices` order.
        jpeg: grey; it covers the image from edge to edge of the outer pixels, whatever its own size.
        geometry: of the upright slice that it was made of, whose pixels its points are told in.
        series_id: the series.
        instance_number: InstanceNumber, by which a PACS names it; 0 where absent.
        window: the grey values, 0 to 255, that are first shown as black and as white.
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
        each = self.geometry
        return each.columns * each.column_spacing_mm, each.rows * each.row_spacing_mm

    def place(self, point: Sequence[float] | Floats) -> tuple[float, float, float]:
        """Returns where a patient point lies: mm from the left and the upper edge, and mm off the slice."""
        column, row, distance = patient_to_pixel(self.geometry, np.asarray(point, float).tolist())
        # A whole number is a pixel's centre, which is half a pixel from the edge.
        each = self.geometry
        return (column + 0.5) * each.column_spacing_mm, (row + 0.5) * each.row_spacing_mm, distance


@dataclass(frozen=True, eq=False)
class Stack:
    """A plane's pictures.

    Attributes:
        pictures: in `arrange_slices` order.
        num_slices: that the plane has; more than there are pictures where all would not fit.
    """

    pictures: tuple[StackPicture, ...]
    num_slices: int


def make_stacks(
    study: Study, points: Floats, wanted: Mapping[Plane, Collection[int]], *, max_bytes: int = MAX_BYTES
) -> dict[Plane, Stack]:
    """Makes the pictures of all planes of a study.

    Where they do not fit, those of the slices that are neither wanted nor near to a point are left out first;
    where that is not enough, all are made smaller.

    Args:
        study: the study.
        points: LPS mm, float32 [n, 3]; rows with NaN are passed over.
        wanted: places in a plane of slices that must be shown.
        max_bytes: for all pictures together.

    Returns:
        A stack for each plane that the study has.
    """
    planes = {plane: _upright(plane, slices) for plane, slices in study.planes.items() if slices}
    ranges = {plane: _series_ranges(slices) for plane, slices in planes.items()}
    ranks = _rank(planes, points, wanted)
    must = sum(len(set(places)) for plane, places in wanted.items() if plane in planes)
    chosen: dict[tuple[Plane, int], bytes] = {}
    for edge_px, quality in _RUNGS:
        chosen, size = {}, 0
        for plane, index in ranks:
            each = planes[plane][index]
            jpeg = _encode(each.pixels, ranges[plane][each.series_id], edge_px, quality)
            size += len(jpeg)
            if size > max_bytes:
                break
            chosen[plane, index] = jpeg
        if len(chosen) >= must:
            break
    return {
        plane: Stack(_pictures(plane, slices, ranges[plane], chosen), len(slices))
        for plane, slices in planes.items()
    }


def _upright(plane: Plane, slices: Sequence[Slice]) -> list[Slice]:
    ordered = [each for group in arrange_slices(slices) for each in group.slices]
    return [turn_upright(each, is_sagittal=plane.is_sagittal) for each in ordered]


def _pictures(
    plane: Plane,
    slices: Sequence[Slice],
    ranges: Mapping[str, Floats],
    chosen: Mapping[tuple[Plane, int], bytes],
) -> tuple[StackPicture, ...]:
    pictures = []
    for index, each in enumerate(slices):
        if (plane, index) in chosen:
            low, high, black, white = (float(value) for value in ranges[each.series_id])
            scale = 255 / max(high - low, 1e-6)
            window = (round((black - low) * scale, 1), round((white - low) * scale, 1))
            jpeg = chosen[plane, index]
            pictures.append(
                StackPicture(index, jpeg, each.geometry, each.series_id, each.instance_number, window)
            )
    return tuple(pictures)


def _series_ranges(slices: Sequence[Slice]) -> dict[str, Floats]:
    """Returns the percentiles of each series, float32 [4]: stored from and to, shown from and to."""
    samples: dict[str, list[Floats]] = {}
    for each in slices:
        samples.setdefault(each.series_id, []).append(each.pixels[::_STEP, ::_STEP].ravel())
    percentiles = (*_STORED_PERCENTILES, *_SHOWN_PERCENTILES)
    return {
        series_id: np.percentile(np.concatenate(values), percentiles).astype(np.float32)
        for series_id, values in samples.items()
    }


def _rank(
    planes: Mapping[Plane, Sequence[Slice]], points: Floats, wanted: Mapping[Plane, Collection[int]]
) -> list[tuple[Plane, int]]:
    """Returns (plane, place) of all slices: the wanted ones, then by distance from the nearest point.

    Without a point, from the middle of the plane's slices.
    """
    known = points[np.isfinite(points).all(axis=-1)].astype(np.float64)
    ranked = []
    for plane, slices in planes.items():
        for index, each in enumerate(slices):
            away = known - np.asarray(each.geometry.position)
            middle = float(abs(index - (len(slices) - 1) / 2))
            distance = float(np.abs(away @ each.geometry.normal).min()) if len(known) else middle
            ranked.append((index not in wanted.get(plane, ()), distance, plane, index))
    ranked.sort(key=lambda each: each[:2])
    return [(plane, index) for _, _, plane, index in ranked]


def _encode(pixels: NDArray[np.generic], bounds: Floats, edge_px: int, quality: int) -> bytes:
    low, high = float(bounds[0]), float(bounds[1])
    grey = np.clip((pixels.astype(np.float32) - low) * (255 / max(high - low, 1e-6)), 0, 255)
    image = Image.fromarray(np.round(grey).astype(np.uint8))
    longest = max(image.size)
    if longest > edge_px:
        width, height = (max(1, round(each * edge_px / longest)) for each in image.size)
        # By area, so that the small picture's edges are the large one's.
        image = image.resize((width, height), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
