r"""Points, labels and outlines of a presentation state on one slice, in the units PIXEL.

The top left corner of the first pixel is 0.0\0.0, so its centre is 0.5\0.5, and the bottom right corner of
the last one is Columns\Rows. No object leaves this range (PS3.3 section C.10.5).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from highdicom.pr import GraphicObject, TextObject
from numpy.typing import NDArray

from lumbar_tf.dicom.geometry import SliceGeometry, is_sagittal, patient_to_pixel
from lumbar_tf.interop.report_content import GradedFinding
from lumbar_tf.interop.source_references import ImagePoint, SourceStudy, derived_uid
from lumbar_tf.labels import Severity, Side

Points = NDArray[np.float64]

_UNITS = "PIXEL"
#: Size of a character of a label, and distance of a label from its point, mm.
_CHARACTER_MM, _LINE_MM, _GAP_MM = 2.4, 5.0, 8.0


@dataclass(frozen=True, eq=False)
class SliceGraphics:
    """Objects that are drawn on a slice.

    Attributes:
        points: level points.
        labels: a text for each point.
        outlines: closed outlines of crops.
    """

    points: list[GraphicObject] = field(default_factory=list)
    labels: list[TextObject] = field(default_factory=list)
    outlines: list[GraphicObject] = field(default_factory=list)

    def add_point(
        self,
        place: ImagePoint,
        geometry: SliceGeometry,
        graded: GradedFinding,
        grade: Severity,
        source: SourceStudy,
    ) -> None:
        """Adds the level point of a finding with a label: side and condition, and below level and grade.

        Both have the finding's tracking UID of the structured report.
        """
        finding = graded.finding
        side, family = finding.condition.side, finding.condition.family.value
        words = family if side is None else f"{side.value} {family}"
        lines = (words.capitalize(), f"{finding.level.title}: {grade.title}")
        tracking = {
            "tracking_id": graded.title,
            "tracking_uid": derived_uid("finding", source.study_uid, finding.name),
        }
        column, row = place.column + 0.5, place.row + 0.5
        left, top, right, bottom = _label_box((column, row), lines, side, geometry)
        self.points.append(GraphicObject("POINT", np.array([[column, row]]), _UNITS, **tracking))
        self.labels.append(
            TextObject(
                # PS3.5 section 6.1.3.
                "\r\n".join(lines),
                _UNITS,
                bounding_box=(left, top, right, bottom),
                anchor_point=(column, row),
                text_justification="RIGHT" if right <= column else "LEFT" if left >= column else "CENTER",
                **tracking,
            )
        )

    def add_outline(self, corners: NDArray[np.float32], geometry: SliceGeometry) -> None:
        """Adds the part of a crop's outline that is inside the slice's image, once.

        Args:
            corners: LPS mm [n, 3], in the plane of the slice.
            geometry: the slice.
        """
        pixels = [patient_to_pixel(geometry, corner.tolist())[:2] for corner in corners]
        inside = clip_polygon(np.array(pixels) + 0.5, (geometry.columns, geometry.rows))
        if len(inside) < 3:
            return
        outline = GraphicObject("POLYLINE", np.vstack([inside, inside[:1]]), _UNITS)
        if all(outline.GraphicData != other.GraphicData for other in self.outlines):
            self.outlines.append(outline)


def clip_polygon(polygon: Points, size: Sequence[float]) -> Points:
    """Returns the part of a convex polygon inside a rectangle from 0, 0 (Sutherland and Hodgman, 1974).

    Args:
        polygon: corners in their order, [n, 2].
        size: opposite corner of the rectangle.

    Returns:
        Corners in the same order, [m, 2]; none if the polygon is outside.

    >>> clip_polygon(np.array([(-1.0, 1.0), (2.0, 1.0), (2.0, 3.0), (-1.0, 3.0)]), (4, 2)).tolist()
    [[0.0, 1.0], [2.0, 1.0], [2.0, 2.0], [0.0, 2.0]]
    """
    for axis, limit in enumerate(size):
        polygon = _cut(polygon, polygon[:, axis], axis, 0.0)
        polygon = _cut(polygon, limit - polygon[:, axis], axis, float(limit))
    return polygon


def _cut(polygon: Points, depth: Points, axis: int, bound: float) -> Points:
    """Returns the part of a polygon with a depth of at least 0, which begins where an axis has a value."""
    kept = []
    for start, stop, before, after in zip(
        polygon, np.roll(polygon, -1, axis=0), depth, np.roll(depth, -1), strict=True
    ):
        if before >= 0:
            kept.append(start)
        if (before >= 0) != (after >= 0):
            crossing = start + before / (before - after) * (stop - start)
            # Exactly, so that rounding does not leave the image.
            crossing[axis] = bound
            kept.append(crossing)
    return np.array(kept, np.float64).reshape(-1, 2)


def _label_box(
    point: tuple[float, float], lines: Sequence[str], side: Side | None, geometry: SliceGeometry
) -> tuple[float, float, float, float]:
    """Returns left, top, right and bottom of the label of a point, inside the image.

    Labels of a level do not cover each other: on an axial slice they are at the patient's own side of their
    points, and the canal's is above its point. On a sagittal slice all are to the right of their points.
    """
    pixel_mm = np.array([geometry.column_spacing_mm, geometry.row_spacing_mm])
    image = np.array([geometry.columns, geometry.rows], np.float64)
    size_mm = np.array([max(map(len, lines)) * _CHARACTER_MM, len(lines) * _LINE_MM])
    size = np.minimum(size_mm / pixel_mm, image)
    gap = _GAP_MM / pixel_mm
    if is_sagittal(geometry):
        shift = np.array([gap[0] + size[0] / 2, 0.0])
    elif side is None:
        shift = np.array([0.0, -2 * gap[1]])
    else:
        # Patient left is +x.
        is_rightward = (side is Side.LEFT) == (geometry.row_direction[0] > 0)
        shift = np.array([gap[0] + size[0] / 2, 0.0]) * (1 if is_rightward else -1)
    corner = np.clip(point + shift - size / 2, 0.0, image - size)
    opposite = np.minimum(corner + size, image)
    return float(corner[0]), float(corner[1]), float(opposite[0]), float(opposite[1])
