"""Saliency maps of a study and their overlays: the map of the member with the largest weight in a finding."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lumbar_tf.labels import FINDINGS, Plane, parse_plane
from lumbar_tf.prediction.crop_outlines import CropOutline, PlaneCropOutlines

Floats = NDArray[np.float32]

#: Outputs of the signature `saliency` besides those of grading.
OUTPUTS = ("saliency", "weight")
#: Magenta, in contrast to grey slices, outlines (blue) and points (orange, yellow).
_COLOUR = (255, 46, 190)
#: Largest opacity of 255; the slice stays visible.
_MOST_OPAQUE = 190
#: A tenth of the maximum gets a fifth of the opacity; with a linear scale it would be invisible.
_GAMMA = 0.7
#: Edge length of an overlay in pixels; the cells of a map are interpolated.
_SIDE_PX = 32


@dataclass(frozen=True, eq=False)
class StudySaliency:
    """Saliency maps of a study.

    Attributes:
        maps: float32 [member, 25, look, slice, cell, cell], at least 0, NaN where there is none; see
            `bundle.saliency_graph`.
        weight: weight of each member in each finding, float32 [member, 25], NaN without a prediction.
    """

    maps: Floats
    weight: Floats


@dataclass(frozen=True, eq=False)
class Overlay:
    """Overlay over the slices of a finding.

    Attributes:
        member: the member with the largest weight, whose map is shown.
        plane: plane of the member.
        strength: maximum of the finding's map relative to the maximum over all findings of the member in this
            study, 0 to 1.
        peak: look and step of the picture with the maximum.
        pictures: PNG files by look and step (see `CropOutline`), each covering the whole crop.
    """

    member: str
    plane: Plane
    strength: float
    peak: tuple[int, int] = (0, 0)
    pictures: Mapping[tuple[int, int], bytes] = field(default_factory=dict)

    def picture(self, outline: CropOutline) -> bytes | None:
        """Returns the picture for an outline; None if there is none."""
        return self.pictures.get((outline.look, outline.step))


def take_saliency(outputs: dict[str, NDArray[Any]]) -> StudySaliency | None:
    """Removes the maps from the outputs of a study and returns them; None if there are none."""
    maps, weight = (outputs.pop(name, None) for name in OUTPUTS)
    return None if maps is None or weight is None else StudySaliency(maps, weight)


def make_overlays(
    saliency: StudySaliency, members: Sequence[str], evidence: Mapping[Plane, PlaneCropOutlines]
) -> dict[int, Overlay]:
    """Draws the overlay of each finding.

    All maps of a member are scaled by its maximum in the study, so weak maps look weak. Maps contain only
    evidence for stenosis, not against it.

    Args:
        saliency: maps of the study.
        members: names of the model's members, in their order.
        evidence: crop outlines by plane; a plane without them has no overlay.

    Returns:
        Overlays by row, without findings that no member predicts or whose crops are unknown.
    """
    overlays = {}
    for row in range(len(FINDINGS)):
        place = find_heaviest(saliency.weight[:, row])
        if place is None:
            continue
        name = members[place]
        plane = parse_plane(name.partition("/")[0])
        if plane in evidence and evidence[plane].crops.get(row):
            overlays[row] = _draw(name, plane, saliency.maps[place], row)
    return overlays


def find_heaviest(weight: Floats) -> int | None:
    """Returns the index of the largest weight, the first of equal ones; None if all are NaN.

    >>> find_heaviest(np.array([0.2, np.nan, 0.7, -0.9], np.float32))
    2
    """
    # Rounded, because a stacker may give all members the same weight up to rounding of a sum.
    return None if np.isnan(weight).all() else int(np.nanargmax(np.round(weight, 3)))


def _draw(name: str, plane: Plane, maps: Floats, row: int) -> Overlay:
    """Draws the maps of one member, [25, look, slice, cell, cell], for one finding."""
    strongest = float(np.nanmax(maps))
    if strongest <= 0:
        return Overlay(name, plane, 0.0)
    shares = maps[row] / strongest
    middle = shares.shape[1] // 2
    pictures = {
        (look, number - middle): shares[look, number]
        for look, number in np.argwhere(np.isfinite(shares).all(axis=(-1, -2))).tolist()
    }
    peak = max(pictures, key=lambda key: float(pictures[key].max()))
    drawn = {key: encode_overlay(picture) for key, picture in pictures.items()}
    return Overlay(name, plane, float(pictures[peak].max()), peak, drawn)


def encode_overlay(shares: Floats) -> bytes:
    """Returns a PNG of one colour whose opacity grows with the share.

    Args:
        shares: float32 [cell, cell], 0 to 1.

    Returns:
        PNG of 32 x 32 pixels that covers the cells edge to edge, interpolated bilinearly between their
        centres.
    """
    size = (_SIDE_PX, _SIDE_PX)
    fine = Image.fromarray(shares.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    alpha = np.rint(np.clip(np.asarray(fine), 0, 1) ** _GAMMA * _MOST_OPAQUE).astype(np.uint8)
    pixels = np.empty((*alpha.shape, 4), np.uint8)
    pixels[..., :3], pixels[..., 3] = _COLOUR, alpha
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
