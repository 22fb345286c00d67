"""Saliency maps of the graders in the exported graph.

The maps are of the crops that are graded, cut by the same code; `models.saliency` defines their values. This
module averages the folds of a member, arranges crops by finding, and undoes the mirroring of right-side
crops.
"""

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lumbar_tf.bundle.members import (
    Examples,
    MemberPredictions,
    cut_grader_inputs,
    find_landmarks,
    mean_log_probabilities,
)
from lumbar_tf.bundle.trained_ensemble import PlaneNetworks
from lumbar_tf.ensemble.stacker import Head, StackerCoefficients, family_findings
from lumbar_tf.inputs.crop_layout import CropLayout
from lumbar_tf.labels import FINDINGS, NUM_FINDINGS, Plane, Severity, Side

#: Change of a member's centred log-probabilities that raises its log-odds of moderate or severe against
#: normal or mild by 1 and keeps their mean at 0.
_STEP = (-2 / 3, 1 / 3, 1 / 3)


def predict_members_with_saliency(
    networks: dict[Plane, PlaneNetworks], members: tuple[str, ...], examples: Examples
) -> tuple[MemberPredictions, tf.Tensor]:
    """Runs all members like `predict_members`, and maps the regions that speak for stenosis.

    Returns:
        The predictions, and the maps float32 [study, member, 25, view, slice, cell, cell]: at least 0, NaN
        where a member has no prediction or no slice. A finding has one view; the canal has two (left crop,
        right crop) in planes that are cropped on both sides, and the second view of other findings is NaN.
        The middle slice is the nearest to the point; the slice before it lies to the right of it or below.
        Rows and columns are those of the unmirrored crop, from its upper left corner, and cover it from edge
        to edge.
    """
    landmarks, uncertainty = find_landmarks(networks, examples)
    predictions: dict[str, tf.Tensor] = {}
    maps: dict[str, tf.Tensor] = {}
    for plane, plane_networks in networks.items():
        layout, mirrored = plane_networks.layout, plane_networks.config.grader.crop.mirror_right
        inputs = cut_grader_inputs(plane_networks, examples[plane], landmarks)
        for backbone, folds in plane_networks.graders.items():
            logits, contributions = folds.logits_and_saliency(inputs)
            name = f"{plane.value}/{backbone}"
            predictions[name] = mean_log_probabilities(logits, inputs["mask"], layout)
            maps[name] = arrange_maps(contributions, inputs["mask"], layout, is_mirrored=mirrored)
    stacked = tf.stack([predictions[member] for member in members])
    return (
        MemberPredictions(stacked, landmarks, uncertainty),
        stack_maps([maps[member] for member in members]),
    )


def arrange_maps(
    contributions: tf.Tensor, mask: tf.Tensor, layout: CropLayout, *, is_mirrored: bool
) -> tf.Tensor:
    """Arranges the maps of one member by finding, in the orientation of the patient.

    Args:
        contributions: float32 [study, family, crop, slice, cell, cell], from
            `SplitGrader.logits_and_saliency`.
        mask: bool [study, crop, slice], the grader's input.
        layout: the grader's crops and rows.
        is_mirrored: whether crops of the right side were mirrored to look like the left: sagittal crops in
            the order of their slices, axial ones in their columns.

    Returns:
        float32 [study, 25, view, slice, cell, cell]; see `predict_members_with_saliency`.
    """
    # Negative contributions are removed only now, after the folds were averaged.
    maps = tf.nn.relu(contributions)
    if is_mirrored:
        is_right = tf.constant([side is Side.RIGHT for side in layout.sides])
        slices = layout.plane.is_sagittal
        mirrored = tf.reverse(maps, [3] if slices else [5])
        maps = tf.where(is_right[:, tf.newaxis, tf.newaxis, tf.newaxis], mirrored, maps)
        mask = tf.where(is_right[:, tf.newaxis], tf.reverse(mask, [2]) if slices else mask, mask)
    maps = tf.where(mask[:, tf.newaxis, ..., tf.newaxis, tf.newaxis], maps, float("nan"))
    families, crops = len(layout.targets), len(layout.sides)
    flat = tf.reshape(maps, [-1, families * crops, *maps.shape[3:]])
    # The last map stands for views that do not exist.
    missing = tf.fill(tf.shape(flat[:, :1]), float("nan"))
    return tf.gather(tf.concat([flat, missing], axis=1), _view_indices(layout), axis=1)


def _view_indices(layout: CropLayout) -> NDArray[np.int32]:
    """Returns the index of each finding's views among the maps of family x crop, int32 [25, view]."""
    crops = len(layout.sides)
    views = {
        layout.rows[place]: [
            layout.targets.index(FINDINGS[layout.rows[place]].condition.family) * crops + crop
            for crop, is_shown in enumerate(layout.row_views[place])
            if is_shown
        ]
        for place in layout.target_places
    }
    indices = np.full((NUM_FINDINGS, max(map(len, views.values()))), len(layout.targets) * crops, np.int32)
    for row, row_views in views.items():
        indices[row, : len(row_views)] = row_views
    return indices


def stack_maps(maps: list[tf.Tensor]) -> tf.Tensor:
    """Stacks maps of different shapes: views and slices are padded with NaN, cells are interpolated."""
    views, slices, cells = (max(member.shape[axis] for member in maps) for axis in (2, 3, 4))
    padded = []
    for member in maps:
        if member.shape[4] != cells:
            images = tf.reshape(member, [-1, member.shape[4], member.shape[4], 1])
            # Bilinear interpolation keeps NaN, and the cells of an image are all NaN or none.
            fine = tf.image.resize(images, [cells, cells])
            member = tf.reshape(fine, [-1, *member.shape[1:4], cells, cells])
        margin = (slices - member.shape[3]) // 2
        edges = [[0, 0], [0, 0], [0, views - member.shape[2]], [margin, margin], [0, 0], [0, 0]]
        padded.append(tf.pad(member, edges, constant_values=float("nan")))
    return tf.stack(padded, axis=1)


def member_weights(
    stacker: StackerCoefficients, predictions: MemberPredictions, probability: tf.Tensor, pattern: tf.Tensor
) -> tf.Tensor:
    """Returns the weight of each member in each finding.

    The weight is the derivative of the calibrated log-odds of moderate or severe against normal or mild with
    respect to the member's own log-odds. It includes the member's share in the mean that replaces missing
    members, and excludes the stacker's terms for neighbouring findings.

    Args:
        stacker: a fitted stacker.
        predictions: of its members.
        probability: output of the stacker, float32 [study, 25, 3].
        pattern: of available sources, int32 [study, 25].

    Returns:
        float32 [study, member, 25], NaN where a member has no prediction.
    """
    abnormal = probability[..., Severity.MODERATE :]
    slope = abnormal / tf.maximum(tf.reduce_sum(abnormal, axis=-1, keepdims=True), 1e-20)
    slope = tf.concat([-tf.ones_like(slope[..., :1]), slope], axis=-1)
    # [study, 25, member]
    is_there = tf.transpose(
        tf.reduce_all(tf.math.is_finite(predictions.log_probabilities), axis=-1), [1, 2, 0]
    )
    columns: dict[tuple[int, int], tf.Tensor] = {}
    for family in stacker.families:
        rows, _ = family_findings(family.family)
        members = stacker.member_indices(family.family)
        if not members:
            continue
        fitted = family.heads[Head.PROBABILITY].weights
        # Increase of each logit, [pattern, member, 3].
        effect = tf.constant(fitted @ np.array(_STEP), tf.float32)
        gains = tf.einsum(
            "srmi,sri->srm",
            tf.gather(effect, tf.gather(pattern, rows, axis=1)),
            tf.gather(slope, rows, axis=1),
        )
        present = tf.cast(tf.gather(tf.gather(is_there, rows, axis=1), members, axis=2), tf.float32)
        # The features of a missing member are the mean of the others'.
        count = tf.maximum(tf.reduce_sum(present, axis=-1, keepdims=True), 1.0)
        gains += tf.reduce_sum(gains * (1 - present), axis=-1, keepdims=True) / count
        for place, member in enumerate(members):
            columns.update({(member, row): gains[:, number, place] for number, row in enumerate(rows)})
    zero = tf.zeros(tf.shape(probability)[:1])
    weights = [
        tf.stack([columns.get((member, row), zero) for row in range(NUM_FINDINGS)], axis=1)
        for member in range(len(stacker.members))
    ]
    return tf.where(tf.transpose(is_there, [0, 2, 1]), tf.stack(weights, axis=1), float("nan"))
