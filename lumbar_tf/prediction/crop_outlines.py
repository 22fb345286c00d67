"""Which part of which slices each finding's numbers came from: the crops that the exported graph cuts.

The graph says where its landmarks are, not what it cut around them. The very functions that choose slices and
place crops in it (`data.anchors`, `data.crops`) are called again here, with the same records and points.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import ValidationError

from lumbar_tf.config import PlaneConfig
from lumbar_tf.labels import Plane

Floats = NDArray[np.float32]

_LOG = logging.getLogger(__name__)
#: A crop's corners, in half sides right and down of its middle, clockwise from the upper left.
_CORNERS = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], np.float32)


@dataclass(frozen=True, eq=False)
class CropOutline:
    """What a grader saw of one slice.

    Attributes:
        index: the slice's place in its plane, in `arrange_slices` order.
        corners: LPS mm, float32 [4, 3], clockwise as a reader sees it. The mirroring that makes a right
            side look left is left out: it changes the order in which pixels are read, not which.
        distance_mm: from the crop's point to the slice.
        look: which of the finding's crops, from 0: a plane that is looked at from both sides has two of the
            canal.
        step: how many slices from the crop's nearest one, 0 for that one.
    """

    index: int
    corners: Floats
    distance_mm: float
    look: int = 0
    step: int = 0


@dataclass(frozen=True, eq=False)
class PlaneCropOutlines:
    """What a plane's graders saw.

    Attributes:
        side_mm: edge of a crop.
        crops: of each finding's row that the graders answer; empty where no slice was near enough.
    """

    side_mm: float
    crops: Mapping[int, tuple[CropOutline, ...]]


def read_plane_configs(description: Mapping[str, Any]) -> dict[Plane, PlaneConfig]:
    """Returns the configurations that a bundle's description holds, by plane.

    One that this version does not understand is left out, with a warning: then a report does not say which
    slices were looked at, and is right in all else.
    """
    configs = {}
    for name, content in description.get("planes", {}).items():
        try:
            configs[Plane(name)] = PlaneConfig.model_validate(yaml.safe_load(content["config"]))
        except (KeyError, TypeError, yaml.YAMLError, ValidationError) as error:
            _LOG.warning("the bundle's configuration of %s is not understood: %s", name, type(error).__name__)
    return configs


def find_crop_outlines(
    configs: Mapping[Plane, PlaneConfig], examples: Mapping[Plane, bytes], landmarks: Floats
) -> dict[Plane, PlaneCropOutlines]:
    """Places the crops of one study as the exported graph does.

    Args:
        configs: of the planes that have graders.
        examples: the study's serialized Examples, the ones that were graded.
        landmarks: LPS mm, float32 [25, 3], what the graph answered, NaN where there is none.

    Returns:
        By plane; one that is missing, or has no configuration, is absent.
    """
    return {
        plane: _find_in_plane(config, examples[plane], landmarks)
        for plane, config in configs.items()
        if plane in examples
    }


def _find_in_plane(config: PlaneConfig, example: bytes, landmarks: Floats) -> PlaneCropOutlines:
    # Here, not above: a client of a server, which has no other use for TensorFlow, waits for it at most once.
    import tensorflow as tf

    from lumbar_tf.inputs.crop_layout import CropLayout, anchor_points
    from lumbar_tf.inputs.crops import place_crops
    from lumbar_tf.records.parsing import parse_example

    layout, crop = CropLayout.of(config), config.grader.crop
    with tf.device("/CPU:0"):
        record = parse_example(tf.constant(example))
        if not len(record["slices/group"]):
            return PlaneCropOutlines(crop.side_mm, {layout.rows[place]: () for place in layout.target_places})
        points = anchor_points(tf.constant(landmarks, tf.float32), layout)
        # Unmirrored: a reader wants the patient's sides where they belong, and the slices are the same.
        plain = crop.model_copy(update={"mirror_right": False})
        placed = place_crops(record, points, config=plain, plane=layout.plane, sides=layout.sides)
    index, mask, offset_mm = (np.asarray(each) for each in placed.selection)
    origin, right, down = (np.asarray(each)[..., np.newaxis, :] for each in placed[1:])
    half_mm = crop.side_mm / 2
    corners = origin + half_mm * (_CORNERS[:, :1] * right + _CORNERS[:, 1:] * down)
    outlines = [
        tuple(
            CropOutline(
                int(index[place, each]),
                corners[place, each],
                float(abs(offset_mm[place, each])),
                step=int(each) - crop.num_slices // 2,
            )
            for each in np.flatnonzero(mask[place])
        )
        for place in range(len(mask))
    ]
    crops = {layout.rows[place]: _looks(outlines, layout.row_views[place]) for place in layout.target_places}
    return PlaneCropOutlines(crop.side_mm, crops)


def _looks(outlines: Sequence[tuple[CropOutline, ...]], is_shown: Sequence[bool]) -> tuple[CropOutline, ...]:
    """Returns the outlines of the crops that show a finding, numbered by crop."""
    mine = [each for each, is_mine in zip(outlines, is_shown, strict=True) if is_mine]
    return tuple(replace(each, look=look) for look, crop in enumerate(mine) for each in crop)
