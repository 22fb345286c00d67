"""Pictures of single findings, cut from the records by the functions that cut the graders' crops.

Unlike a grader's crops they are not mirrored, so that the patient's sides stay in place.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lumbar_tf.cli.progress import ProgressMaker, silent_progress
from lumbar_tf.config import CropConfig
from lumbar_tf.inputs.crop_layout import level_points
from lumbar_tf.inputs.crops import cut_crops, identity_warp, plane_axes
from lumbar_tf.inputs.slice_decoding import decode_slices
from lumbar_tf.inputs.slice_selection import Record, Selection, select_slices, slice_normals
from lumbar_tf.labels import FINDINGS, NUM_LEVELS, Finding, Plane
from lumbar_tf.records.manifest import Manifest
from lumbar_tf.records.parsing import records_dataset
from lumbar_tf.reports.montage import Mark, MontageRow, SlicePicture
from lumbar_tf.reports.slice_pictures import encode_png
from lumbar_tf.tables.landmarks import Points

#: The finding with its surroundings on three neighbouring slices, at 0.5 mm, about the acquired resolution.
REVIEW_CROP = CropConfig(side_mm=60.0, side_px=120, num_slices=3, max_distance_mm=10.0)

#: Largest distance of an annotated point from a slice on which it is marked, mm: slightly more than half of
#: an axial spacing of 4 mm.
_ON_SLICE_MM = 2.5

#: Study id and the finding's row, 0 to 24.
FindingKey = tuple[str, int]


def cut_finding_crops(
    records: Path,
    manifest: Manifest,
    findings: Sequence[FindingKey],
    predicted: Mapping[str, Points],
    *,
    progress: ProgressMaker = silent_progress,
) -> dict[FindingKey, list[MontageRow]]:
    """Cuts pictures of the given findings.

    Args:
        records: folder of the records.
        manifest: manifest of the records.
        findings: the findings.
        predicted: points by study, float32 [25, 3], LPS mm; the annotated point replaces a missing one.
        progress: makes a progress display, advanced once per study and plane.

    Returns:
        By finding, a row of pictures for each plane that shows it.
    """
    pictures: dict[FindingKey, list[MontageRow]] = {key: [] for key in findings}
    wanted = {
        plane: _wanted(plane, findings) for plane in (Plane.SAGITTAL_T2, Plane.SAGITTAL_T1, Plane.AXIAL_T2)
    }
    with progress(sum(map(len, wanted.values()))) as advance:
        for plane, rows in wanted.items():
            num_read = 0
            for record in _read(records, manifest, plane, rows):
                study_id = record["study_id"].numpy().decode()
                for row, montage_row in _cut(record, plane, rows[study_id], predicted.get(study_id)):
                    pictures[study_id, row].append(montage_row)
                advance(1)
                num_read += 1
            # Studies that lack the plane.
            advance(len(rows) - num_read)
    return pictures


def _wanted(plane: Plane, findings: Sequence[FindingKey]) -> dict[str, list[int]]:
    """Returns, by study, the rows of the findings that are graded on a plane."""
    wanted: dict[str, list[int]] = {}
    for study_id, row in findings:
        if plane in FINDINGS[row].condition.family.spec.graded_on:
            wanted.setdefault(study_id, []).append(row)
    return wanted


def _read(records: Path, manifest: Manifest, plane: Plane, wanted: Mapping[str, object]) -> Iterator[Record]:
    """Yields the records of the wanted studies that have a slice, opening only their shards."""
    for shard in manifest.planes.get(plane.value, ()):
        if any(study_id in wanted for study_id in shard.study_ids):
            for record in records_dataset([records / shard.file]):
                if record["study_id"].numpy().decode() in wanted and len(record["slices/group"]):
                    yield record


def _cut(
    record: Record, plane: Plane, rows: Sequence[int], predicted: Points | None
) -> Iterator[tuple[int, MontageRow]]:
    """Yields (finding's row, its pictures) for each of a study's findings that a slice shows."""
    annotated = record["points"].numpy()
    located = np.full_like(annotated, np.nan) if predicted is None else predicted
    given = np.where(np.isfinite(located), located, annotated)
    # A finding without a point of its own is cut around the point of its level.
    levels = np.tile(level_points(tf.constant(given)).numpy(), (len(FINDINGS) // NUM_LEVELS, 1))
    points = tf.constant(np.where(np.isfinite(given), given, levels)[list(rows)])
    selection = _select(record, points, plane)
    if not selection.mask.numpy().any():
        return
    kept = decode_slices(record, tf.boolean_mask(selection.index, selection.mask))
    sides = (None,) * len(rows)
    crops = cut_crops(kept, points, config=REVIEW_CROP, plane=plane, sides=sides, warp=identity_warp())
    for place, row in enumerate(rows):
        shown = [number for number, is_valid in enumerate(crops.mask[place].numpy()) if is_valid]
        offsets = _place(record, selection, place, annotated[row] - points[place].numpy(), plane)
        pictures = [
            _picture(
                crops.image[place, number].numpy(),
                float(crops.offset_mm[place, number]),
                number,
                plane,
                _marks(FINDINGS[row], offsets[number]),
            )
            for number in shown
        ]
        if pictures:
            note = _note(located[row], annotated[row])
            yield row, MontageRow(plane, note, tuple(pictures))


def _select(record: Record, points: tf.Tensor, plane: Plane) -> Selection:
    return select_slices(
        record,
        points,
        num_slices=REVIEW_CROP.num_slices,
        max_distance_mm=REVIEW_CROP.max_distance_mm,
        plane=plane,
        reverse=tf.zeros(len(points), tf.bool),
    )


def _place(
    record: Record, selection: Selection, place: int, from_centre: NDArray[np.float32], plane: Plane
) -> NDArray[np.float32]:
    """Returns the annotated point relative to each slice: float32 [S, 3], mm right, down and off it."""
    normals = tf.gather(slice_normals(record), selection.index[place])
    right, down = plane_axes(normals, is_sagittal=plane.is_sagittal)
    across, along, off = (tf.linalg.matvec(axes, from_centre).numpy() for axes in (right, down, normals))
    return np.stack([across, along, off - selection.offset_mm[place].numpy()], axis=-1)


def _marks(finding: Finding, offset: NDArray[np.float32]) -> tuple[Mark, ...]:
    across, along, off = (float(value) for value in offset)
    half = REVIEW_CROP.side_mm / 2
    # Comparisons with NaN, a finding without annotation, are False.
    if not (abs(off) <= _ON_SLICE_MM and abs(across) <= half and abs(along) <= half):
        return ()
    x, y = round(across + half, 1), round(along + half, 1)
    return (Mark(x, y, "", "annotated point", finding.condition.family.value, False),)


def _picture(
    image: NDArray[np.float32], offset_mm: float, number: int, plane: Plane, marks: tuple[Mark, ...]
) -> SlicePicture:
    side, pitch = REVIEW_CROP.side_mm, REVIEW_CROP.side_mm / REVIEW_CROP.side_px
    positive, negative = ("left", "right") if plane.is_sagittal else ("up", "down")
    distance = f"{abs(offset_mm):.0f} mm {positive if offset_mm > 0 else negative}"
    caption = "nearest" if number == REVIEW_CROP.num_slices // 2 else distance
    edges = ("A", "P") if plane.is_sagittal else ("R", "L")
    return SlicePicture(encode_png(image, (side, side), pitch_mm=pitch), side, side, caption, edges, marks)


def _note(located: NDArray[np.float32], annotated: NDArray[np.float32]) -> str:
    """Names the point around which the pictures are cut."""
    if not np.isfinite(located).all():
        return "around the annotated point" if np.isfinite(annotated).all() else "around the level's point"
    distance = float(np.linalg.norm(annotated - located))
    apart = f", {distance:.1f} mm from the annotated point" if np.isfinite(distance) else ""
    return f"around the localizer's point{apart}"
