"""Records of a few small studies, one of them mirrored and one without slices."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from lumbar_tf.dicom.study import Slice
from lumbar_tf.inputs.record_source import RecordSource
from lumbar_tf.labels import Condition, Plane, mirror_indices
from lumbar_tf.records.schema import encode_plane

STUDIES = ("10", "11", "12", "13", "14")


def made_points() -> np.ndarray:
    """Points within the small scene: levels along z, sides along x."""
    points = np.zeros((25, 3), np.float32)
    for row in range(25):
        side = list(Condition)[row // 5].side
        x = 0.0 if side is None else 5.3 if side.value == "left" else -6.1
        points[row] = (x + 0.2 * (row % 5), 1.0, 10.3 - 5.1 * (row % 5))
    return points


def made_labels(place: int) -> np.ndarray:
    return np.random.default_rng(place).integers(-1, 3, 25)


@dataclass(frozen=True)
class Cohort:
    """Shards by plane; study 14 has no slice, "mirrored" is the mirrored study 10."""

    shards: dict[Plane, tuple[Path, ...]]
    points: dict[str, np.ndarray]

    def source(self, plane: Plane, *studies: str) -> RecordSource:
        return RecordSource(self.shards[plane], studies)


def write_cohort(
    folder: Path, make_stack: Callable[..., list[Slice]], mirror: Callable[[Slice], Slice]
) -> Cohort:
    """Writes the records of all planes."""
    points = {study: made_points() + np.float32(0.1 * place) for place, study in enumerate(STUDIES)}
    points["mirrored"] = (points["10"] * np.float32([-1, 1, 1]))[list(mirror_indices())]
    labels = {study: made_labels(place) for place, study in enumerate(STUDIES)}
    labels["mirrored"] = labels["10"][list(mirror_indices())]
    shards = {}
    for plane in Plane:
        plain = make_stack(plane, tilt=5.0, size=40, count=7)
        paths = (folder / plane.value / "a.tfrecord", folder / plane.value / "b.tfrecord")
        (folder / plane.value).mkdir()
        for path, members in zip(paths, (STUDIES[:3], (*STUDIES[3:], "mirrored")), strict=True):
            with tf.io.TFRecordWriter(str(path)) as writer:
                for study in members:
                    slices = (
                        []
                        if study == "14"
                        else [mirror(item) for item in plain]
                        if study == "mirrored"
                        else plain
                    )
                    annotated = points[study].copy()
                    annotated[3] = np.nan
                    writer.write(encode_plane(study, plane, slices, labels=labels[study], points=annotated))
        shards[plane] = paths
    return Cohort(shards, points)
