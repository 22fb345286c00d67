"""What the graders' answers came from, place by place, in the exported graph.

The crops are those that are graded, cut by the same code; `models/saliency.py` says what a map holds. Here
the folds become a member, crops become findings, and what was mirrored to look left is turned back.
"""

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lumbar_tf.bundle.members import Examples, MemberPredictions, PlaneNetworks, cut_inputs, find_landmarks
from lumbar_tf.ensemble.stacker import Head, StackerCoefficients, family_findings
from lumbar_tf.inputs.crop_layout import CropLayout
from lumbar_tf.labels import FINDINGS, NUM_FINDINGS, Plane, Severity, Side
from lumbar_tf.models.grader import log_probabilities

#: A member's log-odds of moderate or severe against normal or mild go up by 1, and the mean of its centred
#: log-probabilities stays 0.
_STEP = (-2 / 3, 1 / 3, 1 / 3)


def explain_members(
    networks: dict[Plane, PlaneNetworks], members: tuple[str, ...], examples: Examples
) -> tuple[MemberPredictions, tf.Tensor]:
    """Runs all members, as `ask_members` does, and maps what spoke for stenosis.

    Returns:
        The answers, and the maps float32 [study, member, 25, look, slice, cell, cell]: at least 0, NaN where
        a member has no answer or no slice. A finding has one look; the canal has two in a plane that is
        looked at from both sides, the left crop's and the right one's, and the second is NaN elsewhere. The
        middle slice is the nearest to the point, the one before it lies to the right of it or below. Rows and
        columns are those of the unmirrored crop, the upper left corner first, from edge to edge.
    """
    landmarks, doubt = find_landmarks(networks, examples)
    answers: dict[str, tf.Tensor] = {}
    maps: dict[str, tf.Tensor] = {}
    for plane, each in networks.items():
        layout = each.layout
        inputs = cut_inputs(each, examples[plane], landmarks)
        for backbone, folds in each.graders.items():
            said, parts = folds.explain(inputs)
            mean = tf.reduce_mean(tf.nn.log_softmax(said, axis=-1), axis=0)
            name = f"{plane.value}/{backbone}"
            answers[name] = log_probabilities(mean, inputs["mask"], layout)
            is_mirrored = each.config.grader.crop.mirror_right
            maps[name] = find_maps(parts, inputs["mask"], layout, is_mirrored=is_mirrored)
    said = tf.stack([answers[member] for member in members])
    return MemberPredictions(said, landmarks, doubt), _stack_maps([maps[member] for member in members])


def find_maps(parts: tf.Tensor, mask: tf.Tensor, layout: CropLayout, *, is_mirrored: bool) -> tf.Tensor:
    """Lays one member's parts into the 25 rows, as they lie in the patient.

    Args:
        parts: float32 [study, family, crop, slice, cell, cell], of `SplitGrader.explain`.
        mask: bool [study, crop, slice], the grader's input.
        layout: crops, and rows that the network says something of.
        is_mirrored: whether crops of the right side were turned to look left: the order of sagittal slices,
            the columns of axial ones.

    Returns:
        float32 [study, 25, look, slice, cell, cell]; see `explain_members`.
    """
    # What speaks against stenosis is left out only now: the parts of the folds add up.
    maps = tf.nn.relu(parts)
    if is_mirrored:
        is_right = tf.constant([side is Side.RIGHT for side in layout.sides])
        slices = layout.plane.is_sagittal
        turned = tf.reverse(maps, [3] if slices else [5])
        maps = tf.where(is_right[:, tf.newaxis, tf.newaxis, tf.newaxis], turned, maps)
        mask = tf.where(is_right[:, tf.newaxis], tf.reverse(mask, [2]) if slices else mask, mask)
    maps = tf.where(mask[:, tf.newaxis, ..., tf.newaxis, tf.newaxis], maps, float("nan"))
    families, crops = len(layout.targets), len(layout.sides)
    flat = tf.reshape(maps, [-1, families * crops, *maps.shape[3:]])
    # Behind the maps stands the map of what is not looked at.
    nothing = tf.fill(tf.shape(flat[:, :1]), float("nan"))
    return tf.gather(tf.concat([flat, nothing], axis=1), _places(layout), axis=1)


def _places(layout: CropLayout) -> NDArray[np.int32]:
    """Returns which map of family x crop each finding's looks are, int32 [25, look]."""
    crops = len(layout.sides)
    looks = {
        layout.rows[place]: [
            layout.targets.index(FINDINGS[layout.rows[place]].condition.family) * crops + crop
            for crop, is_shown in enumerate(layout.row_views[place])
            if is_shown
        ]
        for place in layout.answered
    }
    places = np.full((NUM_FINDINGS, max(map(len, looks.values()))), len(layout.targets) * crops, np.int32)
    for row, mine in looks.items():
        places[row, : len(mine)] = mine
    return places


def _stack_maps(maps: list[tf.Tensor]) -> tf.Tensor:
    """Stacks the members' maps: the same looks, slices (theirs in the middle) and cells (interpolated)."""
    looks, slices, cells = (max(each.shape[axis] for each in maps) for axis in (2, 3, 4))
    laid = []
    for each in maps:
        if each.shape[4] != cells:
            pictures = tf.reshape(each, [-1, each.shape[4], each.shape[4], 1])
            # Bilinear: a mean of numbers that are not there is not there, and all of a picture are or none.
            fine = tf.image.resize(pictures, [cells, cells])
            each = tf.reshape(fine, [-1, *each.shape[1:4], cells, cells])
        around = (slices - each.shape[3]) // 2
        edges = [[0, 0], [0, 0], [0, looks - each.shape[2]], [around, around], [0, 0], [0, 0]]
        laid.append(tf.pad(each, edges, constant_values=float("nan")))
    return tf.stack(laid, axis=1)


def member_weights(
    stacker: StackerCoefficients, said: MemberPredictions, probability: tf.Tensor, pattern: tf.Tensor
) -> tf.Tensor:
    """Says how much each member weighs in each finding.

    A member's weight is by how much the calibrated log-odds of moderate or severe against normal or mild go
    up where the member's own go up by 1, and so does its part in what stands for members that are missing.
    What the stacker takes from neighbouring findings is no part of it.

    Args:
        stacker: the stacker.
        said: its members' answers.
        probability: float32 [study, 25, 3], what it made of them.
        pattern: of available sources, int32 [study, 25].

    Returns:
        float32 [study, member, 25], NaN where a member has no answer.
    """
    sick = probability[..., Severity.MODERATE :]
    slope = sick / tf.maximum(tf.reduce_sum(sick, axis=-1, keepdims=True), 1e-20)
    slope = tf.concat([-tf.ones_like(slope[..., :1]), slope], axis=-1)
    # [study, 25, member]
    is_there = tf.transpose(tf.reduce_all(tf.math.is_finite(said.log_probabilities), axis=-1), [1, 2, 0])
    columns: dict[tuple[int, int], tf.Tensor] = {}
    for family in stacker.families:
        rows, _ = family_findings(family.family)
        members = stacker.member_indices(family.family)
        if not members:
            continue
        fitted = family.heads[Head.PROBABILITY].weights
        # By how much each logit goes up, [pattern, member, 3].
        effect = tf.constant(fitted @ np.array(_STEP), tf.float32)
        mine = tf.einsum(
            "srmi,sri->srm",
            tf.gather(effect, tf.gather(pattern, rows, axis=1)),
            tf.gather(slope, rows, axis=1),
        )
        present = tf.cast(tf.gather(tf.gather(is_there, rows, axis=1), members, axis=2), tf.float32)
        # A missing member's features are the mean of the others'.
        count = tf.maximum(tf.reduce_sum(present, axis=-1, keepdims=True), 1.0)
        mine += tf.reduce_sum(mine * (1 - present), axis=-1, keepdims=True) / count
        for place, member in enumerate(members):
            columns.update({(member, row): mine[:, number, place] for number, row in enumerate(rows)})
    nothing = tf.zeros(tf.shape(probability)[:1])
    weights = [
        tf.stack([columns.get((member, row), nothing) for row in range(NUM_FINDINGS)], axis=1)
        for member in range(len(stacker.members))
    ]
    return tf.where(tf.transpose(is_there, [0, 2, 1]), tf.stack(weights, axis=1), float("nan"))
