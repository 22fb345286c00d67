"""Predictions of the ensemble's members for serialized studies.

All functions consist of TensorFlow operations on tensors: they run eagerly and are traced into the exported
graph. Preprocessing uses the same functions as training.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from lumbar_tf.bundle.trained_ensemble import PlaneNetworks
from lumbar_tf.config import LocalizerConfig
from lumbar_tf.dicom.geometry import SliceGeometry
from lumbar_tf.dicom.study import Slice
from lumbar_tf.inputs.axial_localizer_dataset import axial_anchors, axial_input_spec, study_axial_inputs
from lumbar_tf.inputs.crop_layout import CropLayout, complete_points, localizer_rows, refine_points
from lumbar_tf.inputs.grader_dataset import study_crops
from lumbar_tf.inputs.localizer_dataset import field_of_view, study_localizer_inputs
from lumbar_tf.inputs.slice_selection import Record
from lumbar_tf.labels import NUM_LEVELS, Plane
from lumbar_tf.models.axial_localizer import locate_subarticular
from lumbar_tf.models.fold_ensemble import FoldEnsemble
from lumbar_tf.models.grader import log_probabilities
from lumbar_tf.models.localizer import LocatedLevels, combine_folds, locate_levels
from lumbar_tf.records.parsing import parse_example
from lumbar_tf.records.schema import FEATURES, FeatureAxis, encode_plane

#: Serialized Examples of a batch of studies by plane, string [study]; "" for a missing plane.
Examples = dict[Plane, tf.Tensor]
#: Coordinate of the placeholder for a missing plane, mm: beyond the reach of every landmark.
_NOWHERE_MM = 1.0e6
#: A feature with one value per slice.
_ONE_PER_SLICE = "slices/group"
_FINITE_FEATURES = tuple(
    name
    for name, spec in FEATURES.items()
    if spec.kind is float and spec.axis in (FeatureAxis.SERIES, FeatureAxis.SLICE) and not spec.may_be_nan
)


@dataclass(frozen=True, eq=False)
class MemberPredictions:
    """Predictions of all members for a batch of studies.

    Attributes:
        log_probabilities: float32 [member, study, 25, 3], NaN where a member has no prediction.
        landmarks: float32 [study, 25, 3], LPS mm, NaN where unknown.
        uncertainty: float32 [study, 25], 0 to 1, probability that a landmark is on another level's disc; NaN
            where unknown.
    """

    log_probabilities: tf.Tensor
    landmarks: tf.Tensor
    uncertainty: tf.Tensor


def placeholder_example() -> bytes:
    """Returns the record that replaces a missing plane: one black pixel beyond the reach of any landmark."""
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
    # Every loop over studies calls it: inlined, TensorFlow would optimize it once per loop.
    experimental_attributes={"_noinline": True},
)
def _parse_present(serialized: tf.Tensor, is_present: tf.Tensor) -> Record:
    with tf.device("/CPU:0"):
        # A branch instead of `tf.where`, which would copy the megabytes of an Example.
        return parse_example(tf.cond(is_present, lambda: serialized, lambda: tf.constant(_PLACEHOLDER)))


def has_slices(serialized: tf.Tensor) -> tf.Tensor:
    """Returns which Examples contain slices that can be graded, bool [study]; other planes count as missing.

    A plane whose intensities or geometry are not finite (NaN or infinity in `series/low`, `slices/offset` and
    so on) cannot be graded: its crops would be black or arbitrary, and the result would look like any other.
    """
    with tf.device("/CPU:0"):
        spec: dict[str, tf.io.RaggedFeature] = {_ONE_PER_SLICE: tf.io.RaggedFeature(tf.int64)}
        spec.update({name: tf.io.RaggedFeature(tf.float32) for name in _FINITE_FEATURES})
        parsed = tf.io.parse_example(serialized, spec)
        is_usable = parsed[_ONE_PER_SLICE].row_lengths() > 0
        for name in _FINITE_FEATURES:
            is_usable &= _are_finite(parsed[name])
        return is_usable


def _are_finite(values: tf.RaggedTensor) -> tf.Tensor:
    """Returns whether all values of each row are finite, bool [study]."""
    faults = tf.cumsum(tf.cast(~tf.math.is_finite(values.values), tf.int64))
    before = tf.gather(tf.pad(faults, [[1, 0]]), values.row_splits)
    return tf.equal(before[1:], before[:-1])


def _map_studies(read: Callable[..., Any], serialized: tf.Tensor, spec: Any, *inputs: tf.Tensor) -> Any:
    """Maps a function of one study's record over studies, on the CPU, where strings are parsed and decoded.

    Args:
        read: takes the record of one study (the placeholder's where the plane is missing) and its part of
            `inputs`.
        serialized: Examples, string [study].
        spec: tensor specs of the results of `read`.
        *inputs: tensors with a leading study axis.
    """

    def parse_and_read(study: tuple[tf.Tensor, ...]) -> Any:
        example, is_present, *rest = study
        return read(_parse_present(example, is_present), *rest)

    with tf.device("/CPU:0"):
        return tf.map_fn(
            parse_and_read, (serialized, has_slices(serialized), *inputs), fn_output_signature=spec
        )


def find_landmarks(networks: dict[Plane, PlaneNetworks], examples: Examples) -> tuple[tf.Tensor, tf.Tensor]:
    """Locates the landmarks of all findings: the level points, then the subarticular points around them.

    Returns:
        Landmarks float32 [study, 25, 3], LPS mm, and their uncertainty, float32 [study, 25]; NaN where
        unknown.
    """
    points, uncertainty = _find_levels(networks, examples)
    axial = networks.get(Plane.AXIAL_T2)
    if axial is not None and axial.config.localizer is not None and axial.localizer is not None:
        found = _find_subarticular(axial.config.localizer, axial.localizer, examples[Plane.AXIAL_T2], points)
        # These points lie on the discs of the level points, so the uncertainty is the same.
        points = refine_points(points, found)
    return points, uncertainty


def _find_subarticular(
    config: LocalizerConfig, localizer: FoldEnsemble, serialized: tf.Tensor, points: tf.Tensor
) -> tf.Tensor:
    """Returns the axial localizer's points, float32 [study, 10, 3]; NaN where no slice shows the level."""
    field = _map_studies(
        lambda record, landmarks: study_axial_inputs(record, landmarks, config),
        serialized,
        axial_input_spec(config),
        points,
    )
    certain = tf.zeros(tf.shape(axial_anchors(points))[:-1])
    by_fold = tf.map_fn(
        lambda logits: locate_subarticular(field, logits, certain),
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
    """Returns the points of the sagittal localizers, completed to all findings; see `find_landmarks`."""
    found: dict[Plane, tf.Tensor] = {}
    uncertainties: dict[Plane, tf.Tensor] = {}
    for plane, plane_networks in networks.items():
        config, localizer = plane_networks.config.localizer, plane_networks.localizer
        if config is None or localizer is None or not plane.is_sagittal:
            continue
        located = _locate_sagittal(config, localizer, plane, examples[plane])
        is_present = has_slices(examples[plane])[:, tf.newaxis, tf.newaxis]
        found[plane] = tf.where(is_present, located.points, float("nan"))
        is_found = tf.math.is_finite(found[plane])
        uncertainties[plane] = tf.where(is_found, located.uncertainty[..., tf.newaxis], float("nan"))
    if not found:
        studies = tf.shape(next(iter(examples.values())))[0]
        unknown = tf.fill([studies, NUM_LEVELS, 3], float("nan"))
        found[Plane.SAGITTAL_T2] = uncertainties[Plane.SAGITTAL_T2] = unknown
    # A level point midway between two foramina has the mean of their uncertainties.
    points, uncertainty = (
        complete_points(values.get(Plane.SAGITTAL_T2), values.get(Plane.SAGITTAL_T1))
        for values in (found, uncertainties)
    )
    return points, uncertainty[..., 0]


def _locate_sagittal(
    config: LocalizerConfig, localizer: FoldEnsemble, plane: Plane, serialized: tf.Tensor
) -> LocatedLevels:
    """Returns the points of a sagittal localizer, combined over its folds."""
    spec = field_of_view(config)
    slices, size = spec.num_slices, spec.side_px
    field = _map_studies(
        partial(study_localizer_inputs, field=spec),
        serialized,
        {
            "image": tf.TensorSpec([slices, size, size], tf.float32),
            "mask": tf.TensorSpec([slices], tf.bool),
            "lateral_mm": tf.TensorSpec([slices], tf.float32),
            "origin": tf.TensorSpec([slices, 3], tf.float32),
            "right": tf.TensorSpec([slices, 3], tf.float32),
            "down": tf.TensorSpec([slices, 3], tf.float32),
        },
    )
    by_fold = tf.map_fn(
        lambda logits: locate_levels(field, logits),
        localizer(field),
        fn_output_signature=_located_spec(len(localizer_rows(plane))),
    )
    return combine_folds(by_fold)


def predict_members(
    networks: dict[Plane, PlaneNetworks], members: tuple[str, ...], examples: Examples
) -> MemberPredictions:
    """Runs all members on a batch of studies.

    The prediction of a member is the mean of its folds' log-probabilities.

    Args:
        networks: by plane.
        members: names, in the order of the result.
        examples: by plane.
    """
    landmarks, uncertainty = find_landmarks(networks, examples)
    predictions: dict[str, tf.Tensor] = {}
    for plane, plane_networks in networks.items():
        inputs = cut_grader_inputs(plane_networks, examples[plane], landmarks)
        for backbone, folds in plane_networks.graders.items():
            predictions[f"{plane.value}/{backbone}"] = mean_log_probabilities(
                folds(inputs), inputs["mask"], plane_networks.layout
            )
    return MemberPredictions(tf.stack([predictions[member] for member in members]), landmarks, uncertainty)


def mean_log_probabilities(logits: tf.Tensor, mask: tf.Tensor, layout: CropLayout) -> tf.Tensor:
    """Averages the folds of a grader.

    Args:
        logits: float32 [fold, study, rows, 3].
        mask: bool [study, crop, slice], the grader's input.
        layout: the grader's crops and rows.

    Returns:
        Mean log-probabilities float32 [study, 25, 3]; see `grader.log_probabilities`.
    """
    mean = tf.reduce_mean(tf.nn.log_softmax(logits, axis=-1), axis=0)
    return log_probabilities(mean, mask, layout)


def cut_grader_inputs(
    networks: PlaneNetworks, serialized: tf.Tensor, landmarks: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Cuts the crops of a plane's graders.

    Args:
        networks: of the plane.
        serialized: its Examples, string [study].
        landmarks: float32 [study, 25, 3], LPS mm.

    Returns:
        The graders' inputs, with a leading study axis; see `inputs.crops.Crops`.
    """
    crop, layout = networks.config.grader.crop, networks.layout
    crops, slices, size = len(layout.sides), crop.num_slices, crop.side_px
    inputs: dict[str, tf.Tensor] = _map_studies(
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
