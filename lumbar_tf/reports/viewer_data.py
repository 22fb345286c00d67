"""What the script of a study report draws from: pictures, points and outlines as plain values."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.labels import FINDINGS, Condition, Level, Plane, finding_index
from lumbar_tf.prediction.crop_outlines import CropOutline, PlaneCropOutlines
from lumbar_tf.prediction.results import StudyFindings
from lumbar_tf.prediction.saliency import Overlay
from lumbar_tf.reports.finding_texts import name_place
from lumbar_tf.reports.slice_stacks import Stack, StackPicture

Floats = NDArray[np.float32]

#: A point farther than this from a slice is not drawn on it, mm: as on the sheets.
_MAX_DISTANCE_MM = 10.0
#: From left to right of a picture, of a sagittal and of an axial slice.
_EDGES = {True: ("A", "P"), False: ("R", "L")}


def viewer_data(
    stacks: Mapping[Plane, Stack],
    result: StudyFindings,
    evidence: Mapping[Plane, PlaneCropOutlines],
    overlays: Mapping[int, Overlay],
) -> dict[str, Any]:
    """Returns what the script draws from; all places are mm from a picture's left and upper edge.

    Args:
        stacks: the pictures.
        result: its landmarks are drawn.
        evidence: its crops are outlined.
        overlays: what lies in them, by the finding's row.

    Returns:
        Plain values: of each plane its pictures, each finding's crops, and which picture it opens at.
    """
    return {
        "findings": [f"{each.condition.title} {each.level.title}" for each in FINDINGS],
        "levels": [each.level.title for each in FINDINGS],
        "peers": [[finding_index(each.condition, level) for level in Level] for each in FINDINGS],
        "planes": {
            plane.value: _plane_data(plane, stack, result.landmarks, evidence.get(plane), overlays)
            for plane, stack in stacks.items()
        },
        "saliency": {row: _describe(each, evidence[each.plane].crops[row]) for row, each in overlays.items()},
    }


def _describe(overlay: Overlay, outlines: Sequence[CropOutline]) -> dict[str, Any]:
    peak = [each.index + 1 for each in outlines if (each.look, each.step) == overlay.peak]
    return {
        "plane": overlay.plane.value,
        "words": f"{overlay.member}, on {overlay.plane.series_description}",
        "percent": round(100 * overlay.strength),
        "number": peak[0] if peak else None,
    }


def _plane_data(
    plane: Plane,
    stack: Stack,
    landmarks: Floats,
    seen: PlaneCropOutlines | None,
    overlays: Mapping[int, Overlay],
) -> dict[str, Any]:
    canal = {level: landmarks[finding_index(Condition.SPINAL_CANAL_STENOSIS, level)] for level in Level}
    known = {level: point for level, point in canal.items() if np.isfinite(point).all()}
    places = {each.index: place for place, each in enumerate(stack.pictures)}
    by_index = {each.index: each for each in stack.pictures}
    crops = {
        row: [
            {
                "slice": places[each.index],
                "corners": [_rounded(by_index[each.index].place(corner)[:2]) for corner in each.corners],
                "distance": round(each.distance_mm, 1),
                **_overlay_data(overlays.get(row), plane, each),
            }
            for each in outlines
            if each.index in places
        ]
        for row, outlines in (seen.crops.items() if seen else ())
    }
    return {
        "title": plane.series_description,
        "edges": _EDGES[plane.is_sagittal],
        "total": stack.num_slices,
        "slices": [_picture_data(plane, each, landmarks, known) for each in stack.pictures],
        "crops": crops,
        "start": [_start(row, stack, landmarks, crops.get(row, [])) for row in range(len(FINDINGS))],
    }


def _overlay_data(overlay: Overlay | None, plane: Plane, outline: CropOutline) -> dict[str, str]:
    picture = overlay.picture(outline) if overlay is not None and overlay.plane is plane else None
    if picture is None:
        return {}
    return {"map": "data:image/png;base64," + base64.b64encode(picture).decode("ascii")}


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
        "image": "data:image/jpeg;base64," + base64.b64encode(picture.jpeg).decode("ascii"),
        "size": _rounded(picture.size_mm),
        "number": picture.index + 1,
        "place": name_place(plane, geometry.centre, geometry.normal, levels),
        "series": picture.series_id,
        "instance": picture.instance_number,
        "window": picture.window,
        "points": points,
    }


def _start(row: int, stack: Stack, landmarks: Floats, crops: Sequence[Mapping[str, Any]]) -> int:
    """Returns the picture that a finding opens at: the crop's nearest, else the point's, else the middle."""
    if crops:
        return int(min(crops, key=lambda each: each["distance"])["slice"])
    if np.isfinite(landmarks[row]).all():
        away = [abs(each.place(landmarks[row])[2]) for each in stack.pictures]
        return int(np.argmin(away)) if away else 0
    return len(stack.pictures) // 2


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(float(each), 2) for each in values]
