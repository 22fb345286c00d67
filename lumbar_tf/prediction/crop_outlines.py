"""Outlines of the crops that the exported graph graded.

The graph returns its landmarks, but not the crops around them. The functions that select slices and place
crops in the graph (`inputs.crop_layout`, `inputs.crops`) are called again here, with the same records and
points.
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
#: Corners of a crop in half sides to the right of and below its centre, clockwise from the upper left.
_CORNERS = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], np.float32)


@dataclass(frozen=True, eq=False)
class CropOutline:
    """Outline of a crop on one slice.

    Attributes:
        index: index of the slice in its plane, in `arrange_slices` order.
        corners: LPS mm, float32 [4, 3], clockwise as displayed. The mirroring of right-side crops is not
            applied: it changes the order in which pixels are read, but not which pixels.
        distance_mm: distance of the slice from the crop's point.
        look: index of the crop among those of the finding; a plane with crops of both sides has two crops of
            the canal.
        step: offset in slices from the slice nearest to the point, 0 for that slice.
    """

    index: int
    corners: Floats
    distance_mm: float
    look: int = 0
    step: int = 0


@dataclass(frozen=True, eq=False)
class PlaneCropOutlines:
    """Crops of a plane's graders.

    Attributes:
        side_mm: edge length of a crop.
        crops: outlines by row of the findings that the plane grades; empty if no slice was near enough.
    """

    side_mm: float
    crops: Mapping[int, tuple[CropOutline, ...]]


def read_plane_configs(description: Mapping[str, Any]) -> dict[Plane, PlaneConfig]:
    """Returns the configurations in a bundle's description, by plane.

    A configuration that this version cannot read is omitted with a warning; reports then lack the outlines of
    that plane.
    """
    configs = {}
    for name, content in description.get("planes", {}).items():
        try:
            configs[Plane(name)] = PlaneConfig.model_validate(yaml.safe_load(content["config"]))
        except (KeyError, TypeError, yaml.YAMLError, ValidationError) as error:
            _LOG.warning("the bundle's configuration of %s cannot be read: %s", name, type(error).__name__)
    return configs


def find_crop_outlines(
    configs: Mapping[Plane, PlaneConfig], examples: Mapping[Plane, bytes], landmarks: Floats
) -> dict[Plane, PlaneCropOutlines]:
    """Places the crops of one study as the exported graph does.

    Args:
        configs: configurations of the planes that have graders.
        examples: the serialized Examples that were graded.
        landmarks: output of the graph, LPS mm, float32 [25, 3], NaN where there is none.

    Returns:
        Outlines by plane, without planes that are missing or have no configuration.
    """
    return {
        plane: _find_in_plane(config, examples[plane], landmarks)
        for plane, config in configs.items()
        if plane in examples
    }


def _find_in_plane(config: PlaneConfig, example: bytes, landmarks: Floats) -> PlaneCropOutlines:
    # Imported here, because the client of a server needs TensorFlow for nothing else.
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
        # Without mirroring, so that the outlines are on the patient's own side; the slices are the same.
        plain = crop.model_copy(update={"mirror_right": False})
        placed = place_crops(record, points, config=plain, plane=layout.plane, sides=layout.sides)
    index, mask, offset_mm = (np.asarray(values) for values in placed.selection)
    origin, right, down = (np.asarray(vectors)[..., np.newaxis, :] for vectors in placed[1:])
    half_mm = crop.side_mm / 2
    corners = origin + half_mm * (_CORNERS[:, :1] * right + _CORNERS[:, 1:] * down)
    outlines = [
        tuple(
            CropOutline(
                int(index[place, number]),
                corners[place, number],
                float(abs(offset_mm[place, number])),
                step=int(number) - crop.num_slices // 2,
            )
            for number in np.flatnonzero(mask[place])
        )
        for place in range(len(mask))
    ]
    crops = {
        layout.rows[place]: _number_looks(outlines, layout.row_views[place]) for place in layout.target_places
    }
    return PlaneCropOutlines(crop.side_mm, crops)


def _number_looks(
    outlines: Sequence[tuple[CropOutline, ...]], is_shown: Sequence[bool]
) -> tuple[CropOutline, ...]:
    """Returns the outlines of the crops that show a finding, numbered by crop."""
    shown = [crop for crop, shows in zip(outlines, is_shown, strict=True) if shows]
    return tuple(replace(outline, look=look) for look, crop in enumerate(shown) for outline in crop)
