"""Writes what a common PyTorch pipeline starts from: a .npy stack a study, and where its crops lie."""

import json
from pathlib import Path

import numpy as np
import tensorflow as tf

from lumbar_tf.config import AugmentationConfig, PlaneConfig
from lumbar_tf.inputs.crop_layout import CropLayout, anchor_points
from lumbar_tf.inputs.crops import crop_affine, identity_warp, plane_axes
from lumbar_tf.inputs.slice_selection import select_slices, slice_normals
from lumbar_tf.labels import Side
from lumbar_tf.records.manifest import read_manifest
from lumbar_tf.records.parsing import decode_image, records_dataset

#: What `torch_loader.py` knows how to do; anything else in the configuration would make it unequal work.
KNOWN = ("rotation_deg", "zoom", "brightness", "contrast", "gamma", "noise", "drop_slice", "shift_mm")
_SLACK_SLICES = 1


def write_stacks(records: Path, config: PlaneConfig, out: Path, studies: tuple[str, ...]) -> None:
    """Writes `<study>.npy`, uint16 [slices, rows, columns], and `<study>.npz` of studies; `settings.json`.

    The .npz holds, for P crops of S + 2 slices around the annotated points: `index` int32 [P, S + 2], -1
    where there is no slice; `affine` float32 [P, S + 2, 2, 3], from (right, down, 1) in mm to a stored
    (column, row); `gain` and `bias` float32 [slices], to the series' intensity range; `labels` int64 [25].

    Raises:
        ValueError: the configuration has an augmentation that the other side does not know.
    """
    augmentation = config.grader.training.augmentation
    _check_known(augmentation)
    crop = config.grader.crop
    settings = {
        "side_mm": crop.side_mm,
        "side_px": crop.side_px,
        "num_slices": crop.num_slices,
        "jitter_mm": 2.0,
    }
    settings |= {name: getattr(augmentation, name) for name in KNOWN}
    (out / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    shards = read_manifest(records).planes[config.plane.value]
    for record in records_dataset([records / each.file for each in shards]):
        if len(record["slices/group"]) and record["study_id"].numpy().decode() in studies:
            _write_study(record, config, out)


def _check_known(augmentation: AugmentationConfig) -> None:
    nothing = AugmentationConfig.nothing()
    others = [
        name
        for name in (
            "bias_field",
            "blur_px",
            "spike",
            "motion_ghost",
            "cutout",
            "grid_mask",
            "mixup",
            "cutmix",
        )
        if getattr(augmentation, name) != getattr(nothing, name)
    ]
    if others or augmentation.num_operations:
        raise ValueError(f"The comparison knows {KNOWN} only. Received also: {others or 'a choice'}.")


def _write_study(record: dict[str, tf.Tensor], config: PlaneConfig, out: Path) -> None:
    study = record["study_id"].numpy().decode()
    np.save(out / f"{study}.npy", _stack(record))
    index, mask, affine = _place(record, config)
    series = record["slices/series"].numpy()
    low, high = record["series/low"].numpy()[series], record["series/high"].numpy()[series]
    width = np.maximum(high - low, 1e-6)
    np.savez(
        out / f"{study}.npz",
        index=np.where(mask, index, -1).astype(np.int32),
        affine=affine,
        gain=(record["slices/scale"].numpy() / width).astype(np.float32),
        bias=((record["slices/offset"].numpy() - low) / width).astype(np.float32),
        labels=record["labels"].numpy(),
    )


def _stack(record: dict[str, tf.Tensor]) -> np.ndarray:
    rows, columns = record["slices/rows"], record["slices/columns"]
    stack = np.zeros((len(rows), max(rows), max(columns)), np.uint16)
    for place in range(len(rows)):
        image = decode_image(record, place, (tf.zeros([], tf.int64), rows[place]))
        stack[place, : rows[place], : columns[place]] = image.numpy()
    return stack


def _place(record: dict[str, tf.Tensor], config: PlaneConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns index and mask [P, S + 2] and the affine [P, S + 2, 2, 3], as `data.crops` has them."""
    plane, crop = config.plane, config.grader.crop
    layout = CropLayout.of(config)
    points = anchor_points(record["points"], layout)
    is_right = tf.constant([side is Side.RIGHT for side in layout.sides])
    slices = crop.num_slices + 2 * _SLACK_SLICES
    selection = select_slices(
        record,
        points,
        num_slices=slices,
        max_distance_mm=crop.max_distance_mm,
        plane=plane,
        reverse=is_right if plane.is_sagittal else tf.zeros_like(is_right),
        max_offset_mm=crop.max_offset_mm,
    )
    flat = tf.reshape(selection.index, [-1])
    right, down = plane_axes(tf.gather(slice_normals(record), flat), is_sagittal=plane.is_sagittal)
    if not plane.is_sagittal:
        right = right * tf.repeat(tf.where(is_right, -1.0, 1.0), slices)[:, tf.newaxis]
    centre = tf.repeat(tf.where(tf.math.is_finite(points), points, 0.0), slices, axis=0)
    # One pixel of 1 mm: what it maps to is the point's own foot, and its steps are those of a millimetre.
    numbers = crop_affine(record, flat, centre, (right, down), pitch_mm=1.0, size_px=1, warp=identity_warp())
    affine = numbers.numpy()[:, :6].reshape(len(layout.sides), slices, 2, 3)
    return selection.index.numpy(), selection.mask.numpy(), affine
