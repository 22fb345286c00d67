"""What a report lays over its slices: where in its crops the grader that weighed most found its answer."""

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

#: The model's outputs that are no part of its answer.
OUTPUTS = ("saliency", "weight")
#: Magenta: nothing in a grey slice has it, nor have outlines (blue) and points (orange, yellow).
_COLOUR = (255, 46, 190)
#: Of 255 at the strongest place: the slice is still seen through it.
_MOST_OPAQUE = 190
#: A tenth of the strongest is a fifth as opaque: linearly it could not be seen.
_GAMMA = 0.7
#: Edge of an overlay; a map's few cells are interpolated to so many pixels.
_SIDE_PX = 32


@dataclass(frozen=True, eq=False)
class StudySaliency:
    """What the model's signature `saliency` says of one study beyond its answer.

    Attributes:
        maps: float32 [member, 25, look, slice, cell, cell], at least 0, NaN where there is none; see
            `bundle.saliency_graph.explain_members`.
        weight: of each member in each finding, float32 [member, 25], NaN where it has no answer.
    """

    maps: Floats
    weight: Floats


@dataclass(frozen=True, eq=False)
class Overlay:
    """What is laid over one finding's slices.

    Attributes:
        member: whose map it is: the one that weighed most.
        plane: which it reads.
        strength: the finding's strongest place as a share of the strongest of all that the member grades in
            this study, 0 to 1.
        peak: look and step of the picture that has it.
        pictures: a PNG by look and step, see `evidence.CropOutline`; it covers the crop from edge to edge.
    """

    member: str
    plane: Plane
    strength: float
    peak: tuple[int, int] = (0, 0)
    pictures: Mapping[tuple[int, int], bytes] = field(default_factory=dict)

    def picture(self, outline: CropOutline) -> bytes | None:
        """Returns what lies in an outline."""
        return self.pictures.get((outline.look, outline.step))


def take_saliency(outputs: dict[str, NDArray[Any]]) -> StudySaliency | None:
    """Takes the maps out of one study's outputs; None where the model gives none."""
    maps, weight = (outputs.pop(name, None) for name in OUTPUTS)
    return None if maps is None or weight is None else StudySaliency(maps, weight)


def make_overlays(
    saliency: StudySaliency, members: Sequence[str], evidence: Mapping[Plane, PlaneCropOutlines]
) -> dict[int, Overlay]:
    """Draws what is laid over the slices of each finding.

    All of a member's maps have one scale, its strongest place in the study: a finding in which it found
    little looks so. Places that speak against stenosis are no part of a map.

    Args:
        saliency: of the study.
        members: names of the model's members, in their order.
        evidence: where the crops lie; a plane without it has no overlay.

    Returns:
        By the finding's row; one that no member answers, or whose crops are not known, has none.
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
    """Returns the place of the largest weight, the first of those that are the same; None without any.

    >>> find_heaviest(np.array([0.2, np.nan, 0.7, -0.9], np.float32))
    2
    """
    # A stacker may give all members one weight: the order of a sum must not choose among them.
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
    peak = max(pictures, key=lambda each: float(pictures[each].max()))
    drawn = {each: encode_overlay(picture) for each, picture in pictures.items()}
    return Overlay(name, plane, float(pictures[peak].max()), peak, drawn)


def encode_overlay(shares: Floats) -> bytes:
    """Returns a PNG of one colour, the more opaque the larger the share.

    Args:
        shares: float32 [cell, cell], 0 to 1.

    Returns:
        32 by 32 pixels, from edge to edge of the cells, interpolated bilinearly between their centres.
    """
    size = (_SIDE_PX, _SIDE_PX)
    fine = Image.fromarray(shares.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    alpha = np.rint(np.clip(np.asarray(fine), 0, 1) ** _GAMMA * _MOST_OPAQUE).astype(np.uint8)
    pixels = np.empty((*alpha.shape, 4), np.uint8)
    pixels[..., :3], pixels[..., 3] = _COLOUR, alpha
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
