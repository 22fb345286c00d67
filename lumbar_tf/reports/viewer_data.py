"""Data for the script of a study report: pictures, points and crop outlines as JSON-compatible values."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.labels import FINDINGS, Condition, Level, Plane, finding_index
from lumbar_tf.prediction.crop_outlines import CropOutline, PlaneCropOutlines
from lumbar_tf.prediction.results import StudyFindings
from lumbar_tf.prediction.saliency import Overlay
from lumbar_tf.reports.finding_texts import describe_position
from lumbar_tf.reports.pages import data_uri
from lumbar_tf.reports.slice_stacks import Stack, StackPicture

Floats = NDArray[np.float32]

#: Largest distance of a point from a slice on which it is drawn, mm, as on the sheets.
_MAX_DISTANCE_MM = 10.0
#: Patient directions at the left and right edge, by whether the slice is sagittal.
_EDGES = {True: ("A", "P"), False: ("R", "L")}


def viewer_data(
    stacks: Mapping[Plane, Stack],
    result: StudyFindings,
    crop_outlines: Mapping[Plane, PlaneCropOutlines],
    overlays: Mapping[int, Overlay],
) -> dict[str, Any]:
    """Returns the data of the page's script; positions are mm from the left and top edge of a picture.

    Args:
        stacks: the pictures.
        result: findings with the landmarks to draw.
        crop_outlines: outlines of the graders' crops.
        overlays: saliency overlays, by the finding's row.

    Returns:
        JSON-compatible values: for each plane its pictures, the crops of each finding, and the index of the
        picture that is shown first when a finding is selected.
    """
    return {
        "findings": [finding.title for finding in FINDINGS],
        "levels": [finding.level.title for finding in FINDINGS],
        "peers": [[finding_index(finding.condition, level) for level in Level] for finding in FINDINGS],
        "planes": {
            plane.value: _plane_data(plane, stack, result.landmarks, crop_outlines.get(plane), overlays)
            for plane, stack in stacks.items()
        },
        "saliency": {
            row: _describe(overlay, crop_outlines[overlay.plane].crops[row])
            for row, overlay in overlays.items()
        },
    }


def _describe(overlay: Overlay, outlines: Sequence[CropOutline]) -> dict[str, Any]:
    peak = [outline.index + 1 for outline in outlines if (outline.look, outline.step) == overlay.peak]
    return {
        "plane": overlay.plane.value,
        "source": f"{overlay.member}, on {overlay.plane.series_description}",
        "percent": round(100 * overlay.strength),
        "number": peak[0] if peak else None,
    }


def _plane_data(
    plane: Plane,
    stack: Stack,
    landmarks: Floats,
    plane_outlines: PlaneCropOutlines | None,
    overlays: Mapping[int, Overlay],
) -> dict[str, Any]:
    canal = {level: landmarks[finding_index(Condition.SPINAL_CANAL_STENOSIS, level)] for level in Level}
    known = {level: point for level, point in canal.items() if np.isfinite(point).all()}
    places = {picture.index: place for place, picture in enumerate(stack.pictures)}
    by_index = {picture.index: picture for picture in stack.pictures}
    crops = {
        row: [
            {
                "slice": places[outline.index],
                "corners": [
                    _rounded(by_index[outline.index].place(corner)[:2]) for corner in outline.corners
                ],
                "distance": round(outline.distance_mm, 1),
                **_overlay_data(overlays.get(row), plane, outline),
            }
            for outline in outlines
            if outline.index in places
        ]
        for row, outlines in (plane_outlines.crops.items() if plane_outlines else ())
    }
    return {
        "title": plane.series_description,
        "edges": _EDGES[plane.is_sagittal],
        "total": stack.num_slices,
        "slices": [_picture_data(plane, picture, landmarks, known) for picture in stack.pictures],
        "crops": crops,
        "start": [_start(row, stack, landmarks, crops.get(row, [])) for row in range(len(FINDINGS))],
    }


def _overlay_data(overlay: Overlay | None, plane: Plane, outline: CropOutline) -> dict[str, str]:
    picture = overlay.picture(outline) if overlay is not None and overlay.plane is plane else None
    if picture is None:
        return {}
    return {"map": data_uri(picture)}


def _picture_data(
    plane: Plane, picture: StackPicture, landmarks: Floats, levels: Mapping[Level, Floats]
) -> dict[str, Any]:
    points = []
    for row in np.flatnonzero(np.isfinite(landmarks).all(axis=-1)).tolist():
        x, y, distance = picture.place(landmarks[row])
        if abs(distance) <= _MAX_DISTANCE_MM:
            points.append([row, *_rounded((x, y, distance))])
    geometry = picture.geometry
    return {
        "image": data_uri(picture.jpeg, "image/jpeg"),
        "size": _rounded(picture.size_mm),
        "number": picture.index + 1,
        "place": describe_position(plane, geometry.centre, geometry.normal, levels),
        "series": picture.series_id,
        "instance": picture.instance_number,
        "window": picture.window,
        "points": points,
    }


def _start(row: int, stack: Stack, landmarks: Floats, crops: Sequence[Mapping[str, Any]]) -> int:
    """Returns the picture shown first: nearest to the crop's point, else to the landmark, else the middle."""
    if crops:
        return int(min(crops, key=lambda crop: crop["distance"])["slice"])
    if np.isfinite(landmarks[row]).all():
        distances = [abs(picture.place(landmarks[row])[2]) for picture in stack.pictures]
        return int(np.argmin(distances)) if distances else 0
    return len(stack.pictures) // 2


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(float(value), 2) for value in values]
