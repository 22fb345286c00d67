"""The ensemble's networks, loaded from their runs, and what they say of serialized studies.

Everything here is TensorFlow operations on tensors, so it runs eagerly and traces into the exported
graph alike: preprocessing comes from the very functions that training uses.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lumbar_tf.config import LocalizerConfig, PlaneConfig
from lumbar_tf.dicom.geometry import SliceGeometry
from lumbar_tf.dicom.study import Slice
from lumbar_tf.inputs.axial_localizer_inputs import axial_anchors, axial_field_spec, study_axial_field
from lumbar_tf.inputs.crop_layout import CropLayout, complete_points, localizer_rows, refine_points
from lumbar_tf.inputs.grader_dataset import study_crops
from lumbar_tf.inputs.localizer_dataset import field_spec, study_field
from lumbar_tf.inputs.slice_selection import Record
from lumbar_tf.labels import NUM_LEVELS, Plane
from lumbar_tf.models.axial_localizer import build_axial_localizer, locate_subarticular
from lumbar_tf.models.fold_ensemble import FoldEnsemble, GraderFoldEnsemble
from lumbar_tf.models.grader import build_grader, log_probabilities
from lumbar_tf.models.localizer import LocatedLevels, build_localizer, combine_folds, locate_levels
from lumbar_tf.records.parsing import parse_example
from lumbar_tf.records.schema import encode_plane
from lumbar_tf.training.runs import LOCALIZER, WEIGHTS_NAME

#: Serialized Examples of a batch of studies by plane, string [study]; "" is a missing plane.
Examples = dict[Plane, tf.Tensor]
#: Where the placeholder of a missing plane lies, mm: out of every landmark's reach.
_NOWHERE_MM = 1.0e6
#: Any feature that a record has one of for each slice.
_ONE_PER_SLICE = "slices/group"


@dataclass(frozen=True, eq=False)
class PlaneNetworks:
    """The networks of one plane.

    Attributes:
        config: the plane's configuration.
        localizer: with the weights of all folds; None where axial T2 has none of its own.
        graders: by backbone, with the weights of all folds.
    """

    config: PlaneConfig
    localizer: FoldEnsemble | None
    graders: dict[str, GraderFoldEnsemble]

    @property
    def layout(self) -> CropLayout:
        """The plane's crops."""
        return CropLayout.of(self.config)


@dataclass(frozen=True, eq=False)
class MemberPredictions:
    """What all members say of a batch of studies.

    Attributes:
        log_probabilities: float32 [member, study, 25, 3], NaN where a member has no answer.
        landmarks: float32 [study, 25, 3], LPS mm, NaN where unknown.
        doubt: float32 [study, 25], 0 to 1, that a landmark is on another level's disc; NaN where unknown.
    """

    log_probabilities: tf.Tensor
    landmarks: tf.Tensor
    doubt: tf.Tensor


def load_networks(runs: Path, config: PlaneConfig, members: tuple[str, ...]) -> PlaneNetworks:
    """Builds a plane's networks and loads the weights of every fold that has them.

    Args:
        runs: folder of all runs.
        config: the plane's configuration.
        members: names such as `sagittal_t2/mobilenet_v2`; those of other planes are passed over.

    Raises:
        ValueError: a member has no trained fold.
    """
    # Serving computes in float32, whatever precision training used.
    keras.config.set_dtype_policy("float32")
    layout = CropLayout.of(config)
    localizer = None
    if config.localizer is not None:
        is_sagittal = config.plane.is_sagittal
        model = (
            build_localizer(config.localizer, config.plane)
            if is_sagittal
            else build_axial_localizer(config.localizer)
        )
        localizer = FoldEnsemble(model, _weights(runs, config.plane, LOCALIZER))
    graders = {
        backbone: GraderFoldEnsemble(
            build_grader(backbone, config.grader, layout), _weights(runs, config.plane, backbone), layout
        )
        for backbone in config.grader.backbones
        if f"{config.plane.value}/{backbone}" in members
    }
    return PlaneNetworks(config, localizer, graders)


def _weights(runs: Path, plane: Plane, member: str) -> list[Path]:
    paths = sorted((runs / plane.value / member).glob(f"fold*/{WEIGHTS_NAME}"))
    if not paths:
        raise ValueError(f"{plane.value}/{member} has no trained fold in {runs}. Run lumbar_tf.train first.")
    return paths


def placeholder_example() -> bytes:
    """Returns the record that stands for a missing plane: one black pixel out of reach of any point."""
    geometry = SliceGeometry(
        position=(_NOWHERE_MM, _NOWHERE_MM, _NOWHERE_MM),
        row_direction=(0.0, 1.0, 0.0),
        column_direction=(0.0, 0.0, -1.0),
        row_spacing_mm=1.0,
        column_spacing_mm=1.0,
        rows=1,
        columns=1,
    )
    black = Slice(geometry, np.zeros((1, 1), np.float32), series_id="", instance_number=0)
    return encode_plane("", Plane.SAGITTAL_T2, [black])


_PLACEHOLDER = placeholder_example()


@tf.function(
    input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.bool)],
    autograph=False,
    # All loops over studies call it: inlined, TensorFlow would plan it once in each of them.
    experimental_attributes={"_noinline": True},
)
def _parse_present(serialized: tf.Tensor, is_present: tf.Tensor) -> Record:
    with tf.device("/CPU:0"):
        # Chosen by a branch and not by `tf.where`, which copies the megabytes of an Example.
        return parse_example(tf.cond(is_present, lambda: serialized, lambda: tf.constant(_PLACEHOLDER)))


def has_slices(serialized: tf.Tensor) -> tf.Tensor:
    """Tells which Examples hold at least one slice, bool [study]; one without any is a missing plane, too."""
    with tf.device("/CPU:0"):
        spec = {_ONE_PER_SLICE: tf.io.RaggedFeature(tf.int64)}
        return tf.io.parse_example(serialized, spec)[_ONE_PER_SLICE].row_lengths() > 0


def _study_by_study(cut: Callable[..., Any], serialized: tf.Tensor, spec: Any, *given: tf.Tensor) -> Any:
    """Maps what reads records over studies, on the CPU: strings are parsed and decoded nowhere else.

    Args:
        cut: takes one study's record, the placeholder's where the plane is missing, and its part of `given`.
        serialized: Examples, string [study].
        spec: of what `cut` returns.
        given: tensors with a leading study axis.
    """

    def parse_and_cut(study: tuple[tf.Tensor, ...]) -> Any:
        each, is_present, *rest = study
        return cut(_parse_present(each, is_present), *rest)

    with tf.device("/CPU:0"):
        return tf.map_fn(
            parse_and_cut, (serialized, has_slices(serialized), *given), fn_output_signature=spec
        )


def find_landmarks(networks: dict[Plane, PlaneNetworks], examples: Examples) -> tuple[tf.Tensor, tf.Tensor]:
    """Locates the level points, and around them what an axial localizer looks for.

    Returns:
        float32 [study, 25, 3], LPS mm, and the doubt in each, float32 [study, 25]; NaN where unknown.
    """
    points, doubt = _find_levels(networks, examples)
    axial = networks.get(Plane.AXIAL_T2)
    if axial is not None and axial.config.localizer is not None and axial.localizer is not None:
        found = _find_subarticular(axial.config.localizer, axial.localizer, examples[Plane.AXIAL_T2], points)
        # Its points are on the discs that the level points are on: the doubt is theirs.
        points = refine_points(points, found)
    return points, doubt


def _find_subarticular(
    config: LocalizerConfig, localizer: FoldEnsemble, serialized: tf.Tensor, points: tf.Tensor
) -> tf.Tensor:
    """Returns the axial localizer's points, float32 [study, 10, 3], NaN where no slice holds its level's."""
    field = _study_by_study(
        lambda record, landmarks: study_axial_field(record, landmarks, config),
        serialized,
        axial_field_spec(config),
        points,
    )
    no_doubt = tf.zeros(tf.shape(axial_anchors(points))[:-1])
    by_fold = tf.map_fn(
        lambda logits: locate_subarticular(field, logits, no_doubt),
        localizer(field),
        fn_output_signature=_located_spec(len(localizer_rows(Plane.AXIAL_T2))),
    )
    return combine_folds(by_fold).points


def _located_spec(points: int) -> LocatedLevels:
    return LocatedLevels(
        tf.TensorSpec([None, points, 3], tf.float32),
        tf.TensorSpec([None, points], tf.float32),
        tf.TensorSpec([None, points], tf.float32),
    )


def _find_levels(networks: dict[Plane, PlaneNetworks], examples: Examples) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns what the sagittal localizers find, completed to all findings; see `find_landmarks`."""
    found: dict[Plane, tf.Tensor] = {}
    doubts: dict[Plane, tf.Tensor] = {}
    for plane, each in networks.items():
        if each.config.localizer is None or each.localizer is None or not plane.is_sagittal:
            continue
        spec = field_spec(each.config.localizer)
        size = spec.side_px
        field = _study_by_study(
            partial(study_field, spec=spec),
            examples[plane],
            {
                "image": tf.TensorSpec([spec.num_slices, size, size], tf.float32),
                "mask": tf.TensorSpec([spec.num_slices], tf.bool),
                "lateral_mm": tf.TensorSpec([spec.num_slices], tf.float32),
                "origin": tf.TensorSpec([spec.num_slices, 3], tf.float32),
                "right": tf.TensorSpec([spec.num_slices, 3], tf.float32),
                "down": tf.TensorSpec([spec.num_slices, 3], tf.float32),
            },
        )
        points = len(localizer_rows(plane))
        by_fold = tf.map_fn(
            lambda logits, field=field: locate_levels(field, logits),
            each.localizer(field),
            fn_output_signature=_located_spec(points),
        )
        located = combine_folds(by_fold)
        is_present = has_slices(examples[plane])[:, tf.newaxis, tf.newaxis]
        found[plane] = tf.where(is_present, located.points, float("nan"))
        is_known = tf.math.is_finite(found[plane])
        doubts[plane] = tf.where(is_known, located.doubt[..., tf.newaxis], float("nan"))
    if not found:
        studies = tf.shape(next(iter(examples.values())))[0]
        unknown = tf.fill([studies, NUM_LEVELS, 3], float("nan"))
        found[Plane.SAGITTAL_T2] = doubts[Plane.SAGITTAL_T2] = unknown
    # A level point midway between two foramina has the mean of their doubts.
    points, doubt = (
        complete_points(each.get(Plane.SAGITTAL_T2), each.get(Plane.SAGITTAL_T1)) for each in (found, doubts)
    )
    return points, doubt[..., 0]


def predict_members(
    networks: dict[Plane, PlaneNetworks], members: tuple[str, ...], examples: Examples
) -> MemberPredictions:
    """Runs all members on a batch of studies.

    A member's answer is the mean of its folds' log-probabilities.

    Args:
        networks: by plane.
        members: names, the order of the result.
        examples: by plane.

    Returns:
        The answers.
    """
    landmarks, doubt = find_landmarks(networks, examples)
    answers: dict[str, tf.Tensor] = {}
    for plane, each in networks.items():
        inputs = cut_inputs(each, examples[plane], landmarks)
        for backbone, folds in each.graders.items():
            mean = tf.reduce_mean(tf.nn.log_softmax(folds(inputs), axis=-1), axis=0)
            answers[f"{plane.value}/{backbone}"] = log_probabilities(mean, inputs["mask"], each.layout)
    return MemberPredictions(tf.stack([answers[member] for member in members]), landmarks, doubt)


def cut_inputs(networks: PlaneNetworks, serialized: tf.Tensor, landmarks: tf.Tensor) -> dict[str, tf.Tensor]:
    """Cuts what a plane's graders see.

    Args:
        networks: of the plane.
        serialized: its Examples, string [study].
        landmarks: float32 [study, 25, 3], LPS mm.

    Returns:
        Their inputs, with a leading study axis; see `grader_dataset.grader_inputs`.
    """
    crop, layout = networks.config.grader.crop, networks.layout
    crops, slices, size = len(layout.sides), crop.num_slices, crop.side_px
    inputs: dict[str, tf.Tensor] = _study_by_study(
        partial(study_crops, layout=layout, crop=crop),
        serialized,
        {
            "image": tf.TensorSpec([crops, slices, size, size], tf.float32),
            "mask": tf.TensorSpec([crops, slices], tf.bool),
            "offset_mm": tf.TensorSpec([crops, slices], tf.float32),
        },
        landmarks,
    )
    return inputs
