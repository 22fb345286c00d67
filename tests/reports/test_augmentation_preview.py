from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.image import imread

from lumbar_tf.inputs.crop_layout import CropLayout
from lumbar_tf.labels import Family, Plane
from lumbar_tf.reports.augmentation_preview import Preview, StudyCrops, describe_target, draw_preview

AXIAL = CropLayout(Plane.AXIAL_T2, (Family.CANAL, Family.SUBARTICULAR))
CANAL = CropLayout(Plane.SAGITTAL_T2, (Family.CANAL,))


def _crops(layout: CropLayout) -> StudyCrops:
    num_crops = len(layout.sides)
    image = np.random.default_rng(0).random((num_crops, 3, 16, 16), np.float32)
    targets = np.tile(np.float32([0, 1, 0]), (len(layout.rows), 1))
    return StudyCrops(image, np.ones((num_crops, 3), np.bool_), targets)


def test_every_crop_has_its_level_side_and_labels(tmp_path: Path, written: list[str]) -> None:
    plain = _crops(AXIAL)
    targets = plain.targets.copy()
    targets[5] = [0.25, 0.75, 0]  # left subarticular, L1/L2
    mask = plain.mask.copy()
    mask[0, 0] = mask[3] = False
    draw_preview(
        tmp_path / "new" / "a.png",
        [Preview(plain, replace(plain, targets=targets, mask=mask)), Preview(plain, plain)],
        AXIAL,
        title="$a",
        note="$b",
    )
    assert imread(tmp_path / "new" / "a.png")[..., :3].std() > 0.1
    assert "$a" in written
    assert sum(text.startswith("$b") for text in written) == 1
    assert {"study 1", "study 2"} <= set(written)
    assert (written.count("plain"), written.count("augmented")) == (2, 2)
    for level in ("L1/L2", "L2/L3", "L3/L4", "L4/L5", "L5/S1"):
        assert (written.count(f"{level} left"), written.count(f"{level} right")) == (1, 1)
    # The canal is shown from both sides: 10 crops x 4 rows; each side has its own subarticular row.
    assert written.count("canal: Moderate") == 40
    assert written.count("subarticular: Moderate") == 39
    assert written.count("subarticular: N/M .25  Mod .75") == 1
    assert written.count("○●●") == 1
    assert (written.count("○○○"), written.count("no slice")) == (1, 1)


def test_a_plane_without_sides_names_no_side(tmp_path: Path, written: list[str]) -> None:
    crops = _crops(CANAL)
    draw_preview(tmp_path / "a.png", [Preview(crops, crops)], CANAL, title="a", note="b")
    assert "L4/L5" in written
    assert not any("left" in text or "right" in text for text in written)


def test_targets_are_formatted_as_shares() -> None:
    assert describe_target(np.float32([0, 0, 1])) == "Severe"
    assert describe_target(np.float32([0, 0, 0])) == "no label"
    assert describe_target(np.float32([0.5, 0.3, 0.2])) == "N/M .50  Mod .30  Sev .20"
    assert describe_target(np.float32([0, 0.4, 0])) == "Mod .40  ? .60"
