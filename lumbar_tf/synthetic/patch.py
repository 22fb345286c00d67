"""Tissues, their signal, and the image patch that they are painted on."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.synthetic.anatomy import Segment

Field = NDArray[np.floating[Any]]

#: Windows are searched on every third row and column.
WINDOW_STRIDE = 3


class SyntheticContrast(Enum):
    """The contrast of a series; the value is its `SeriesDescription` tag."""

    T1 = "T1"
    T2 = "T2"


class Tissue(Enum):
    """Tissues."""

    FAT = auto()
    MARROW = auto()
    CORTEX = auto()
    MUSCLE = auto()
    CSF = auto()
    CORD = auto()
    ROOT = auto()
    ANNULUS = auto()
    NUCLEUS = auto()
    DRY_NUCLEUS = auto()
    FLAVUM = auto()
    LIGAMENT = auto()
    JOINT = auto()
    BLOOD = auto()
    BOWEL = auto()


#: Signal relative to CSF on T2 and to fat on T1, as typical of fast spin echo at 1.5 T.
CONTRAST: Mapping[SyntheticContrast, Mapping[Tissue, float]] = {
    SyntheticContrast.T2: {
        Tissue.FAT: 0.78,
        Tissue.MARROW: 0.42,
        Tissue.CORTEX: 0.10,
        Tissue.MUSCLE: 0.19,
        Tissue.CSF: 1.0,
        Tissue.CORD: 0.42,
        Tissue.ROOT: 0.38,
        Tissue.ANNULUS: 0.13,
        Tissue.NUCLEUS: 0.78,
        Tissue.DRY_NUCLEUS: 0.15,
        Tissue.FLAVUM: 0.15,
        Tissue.LIGAMENT: 0.06,
        Tissue.JOINT: 0.60,
        Tissue.BLOOD: 0.04,
        Tissue.BOWEL: 0.36,
    },
    SyntheticContrast.T1: {
        Tissue.FAT: 1.0,
        Tissue.MARROW: 0.52,
        Tissue.CORTEX: 0.08,
        Tissue.MUSCLE: 0.30,
        Tissue.CSF: 0.15,
        Tissue.CORD: 0.36,
        Tissue.ROOT: 0.30,
        Tissue.ANNULUS: 0.25,
        Tissue.NUCLEUS: 0.34,
        Tissue.DRY_NUCLEUS: 0.30,
        Tissue.FLAVUM: 0.24,
        Tissue.LIGAMENT: 0.10,
        Tissue.JOINT: 0.25,
        Tissue.BLOOD: 0.07,
        Tissue.BOWEL: 0.34,
    },
}


@dataclass
class Patch:
    """The pixels around one segment; all arrays float32 [sub-slice, row, column].

    Attributes:
        u: sideways position, mm.
        v: distance behind the back wall of the bodies, mm.
        d: distance along the spine from the disc's centre, mm, increasing towards the feet.
        image: signal, painted in place.
        softness: width of an edge, mm.
        contrast: signal of each tissue.
    """

    u: Field
    v: Field
    d: Field
    image: Field
    softness: float
    contrast: Mapping[Tissue, float]

    def __post_init__(self) -> None:
        self.abs_u = np.abs(self.u)
        self.u_range = float(self.u.min()), float(self.u.max())

    def crosses(self, low: float, high: float) -> bool:
        """Returns whether any pixel has u in [low, high]."""
        return self.u_range[0] <= high and self.u_range[1] >= low

    def within(self, u: tuple[float, float], v: tuple[float, float]) -> "Patch | None":
        """Returns a view of the part with u and v in these ranges, possibly a pixel larger, or None if empty.

        Structures are small compared with the patch, and the time for painting is proportional to the pixels.
        """
        thin = (len(self.u) // 2, slice(None, None, WINDOW_STRIDE), slice(None, None, WINDOW_STRIDE))
        near = (self.u[thin] > u[0] - 2) & (self.u[thin] < u[1] + 2)
        near &= (self.v[thin] > v[0] - 2) & (self.v[thin] < v[1] + 2)
        window = bounding_window(near)
        if window is None:
            return None
        part = (slice(None), *window)
        return Patch(
            u=self.u[part],
            v=self.v[part],
            d=self.d[part],
            image=self.image[part],
            softness=self.softness,
            contrast=self.contrast,
        )

    def cover(self, tissue: Tissue, distance: Field, opacity: Field | float = 1.0) -> None:
        """Paints a tissue at pixels with a negative distance."""
        self.cover_with(self.contrast[tissue], distance, opacity)

    def cover_with(self, signal: Field | float, distance: Field, opacity: Field | float = 1.0) -> None:
        """Paints a signal at pixels with a negative distance."""
        if distance.min() >= self.softness / 2:
            return
        alpha = distance * np.float32(-1 / self.softness)
        alpha += np.float32(0.5)
        np.maximum(alpha, 0, out=alpha)  # np.clip takes twice as long for arrays of this size
        np.minimum(alpha, 1, out=alpha)
        alpha *= opacity
        change = signal - self.image
        change *= alpha
        self.image += change

    def bone(self, distance: Field, *, cortex_mm: float = 1.2) -> None:
        """Paints marrow with a dark rim of cortex."""
        self.cover(Tissue.CORTEX, distance)
        self.cover(Tissue.MARROW, distance + cortex_mm)


def bounding_window(near: NDArray[np.bool_]) -> tuple[slice, slice] | None:
    """Returns rows and columns around the true pixels of a mask of every third row and column.

    >>> near = np.zeros((4, 4), bool)
    >>> near[1, 2] = True
    >>> bounding_window(near)
    (slice(0, 7, None), slice(3, 10, None))
    """
    rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
    if rows.size == 0:
        return None
    return (
        slice(max(0, (int(rows[0]) - 1) * WINDOW_STRIDE), (int(rows[-1]) + 1) * WINDOW_STRIDE + 1),
        slice(max(0, (int(columns[0]) - 1) * WINDOW_STRIDE), (int(columns[-1]) + 1) * WINDOW_STRIDE + 1),
    )


def ellipse(first: Field, second: Field, radii: tuple[float, float]) -> Field:
    """Returns the distance to an ellipse around 0, exact at its edge and approximate elsewhere."""
    return (np.sqrt((first / radii[0]) ** 2 + (second / radii[1]) ** 2) - 1) * min(radii)


def along(patch: Patch, segment: Segment, above: float, below: float) -> Field:
    """Interpolates a value from the centre of the body above to the centre of the body below."""
    top, bottom = (edge - segment.s_mm for edge in segment.s_range)
    share = np.clip((patch.d - top) / (bottom - top), 0, 1)
    return above + share * (below - above)
