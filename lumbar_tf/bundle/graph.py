"""The servable module: serialized Examples in, findings out, core TensorFlow operations only."""

import tensorflow as tf

from lumbar_tf.bundle.interval_graph import centred_features, find_intervals
from lumbar_tf.bundle.members import (
    Examples,
    MemberPredictions,
    PlaneNetworks,
    predict_members,
)
from lumbar_tf.bundle.saliency_graph import explain_members, member_weights
from lumbar_tf.ensemble.features import NEIGHBOURS
from lumbar_tf.ensemble.stacker import FamilyStacker, Head, StackerCoefficients, family_findings
from lumbar_tf.labels import FINDINGS, NUM_FINDINGS, PLANE_FLAGS, Flag, Plane
from lumbar_tf.models.level_decoding import SHIFT_UNCERTAINTY
from lumbar_tf.serving.contract import GRADE

#: Serialized Examples of each plane, string [study]; "" where it is missing.
_INPUTS = [tf.TensorSpec([None], tf.string, name=plane.value) for plane in Plane]
SIGNATURE = GRADE


class ServableEnsemble(tf.Module):
    """What is exported.

    Only variables are tracked, not the Keras objects, so that each weight is stored once.
    """

    def __init__(self, networks: dict[Plane, PlaneNetworks], stacker: StackerCoefficients) -> None:
        """Takes loaded networks and a fitted stacker whose members they are."""
        super().__init__(name="lumbar_tf")
        self.parameters = [
            folded.parameters
            for each in networks.values()
            for folded in (each.localizer, *each.graders.values())
            if folded is not None
        ]
        # In a closure and not in an attribute: tf.Module would track (and store) the networks again.
        self._answer = lambda examples: answer(networks, stacker, examples)
        self._explain = lambda examples: explain(networks, stacker, examples)

    # All loops and branches of Python are over the configuration; none is over a tensor.
    @tf.function(input_signature=_INPUTS, autograph=False)
    def serve(
        self, sagittal_t1: tf.Tensor, sagittal_t2: tf.Tensor, axial_t2: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Grades studies.

        Args:
            sagittal_t1: serialized Examples, string [study]; "" where the plane is missing.
            sagittal_t2: likewise.
            axial_t2: likewise.

        Returns:
            `probability` and `competition` float32 [study, 25, 3]; `interval` float32 [study, 25, 3, 2],
            lower and upper bound of `probability` (`intervals.py`; NaN where fewer than two members
            answer); `members` float32 [study, member, 25, 3] (each member alone, uncalibrated, NaN
            where it has no answer); `landmarks` float32 [study, 25, 3] (LPS mm, NaN where there is none);
            `doubt` float32 [study, 25], 0 to 1, that the landmark is on another disc (NaN where there is
            none); `flags` bool [study, 25, len(Flag)].
        """
        examples = {
            Plane.SAGITTAL_T1: sagittal_t1,
            Plane.SAGITTAL_T2: sagittal_t2,
            Plane.AXIAL_T2: axial_t2,
        }
        outputs: dict[str, tf.Tensor] = self._answer(examples)
        return outputs

    @tf.function(input_signature=_INPUTS, autograph=False)
    def explain(
        self, sagittal_t1: tf.Tensor, sagittal_t2: tf.Tensor, axial_t2: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Grades studies and says where in their crops the answers came from.

        Args:
            sagittal_t1: as `serve` takes them.
            sagittal_t2: likewise.
            axial_t2: likewise.

        Returns:
            What `serve` returns, and `saliency` float32 [study, member, 25, look, slice, cell, cell]
            (`saliency_graph.explain_members` says of what) and `weight` float32 [study, member, 25]
            (`saliency_graph.member_weights`).
        """
        examples = {
            Plane.SAGITTAL_T1: sagittal_t1,
            Plane.SAGITTAL_T2: sagittal_t2,
            Plane.AXIAL_T2: axial_t2,
        }
        outputs: dict[str, tf.Tensor] = self._explain(examples)
        return outputs


def answer(
    networks: dict[Plane, PlaneNetworks], stacker: StackerCoefficients, examples: Examples
) -> dict[str, tf.Tensor]:
    """Returns the servable's outputs for a batch of studies."""
    said = predict_members(networks, stacker.members, examples)
    return _conclude(stacker, said, stack_predictions(stacker, said))


def explain(
    networks: dict[Plane, PlaneNetworks], stacker: StackerCoefficients, examples: Examples
) -> dict[str, tf.Tensor]:
    """Returns the servable's outputs for a batch of studies, with the maps behind them."""
    said, maps = explain_members(networks, stacker.members, examples)
    stacked = stack_predictions(stacker, said)
    probability, _, pattern = stacked
    return {
        **_conclude(stacker, said, stacked),
        "saliency": maps,
        "weight": member_weights(stacker, said, probability, pattern),
    }


def _conclude(
    stacker: StackerCoefficients, said: MemberPredictions, stacked: tuple[tf.Tensor, tf.Tensor, tf.Tensor]
) -> dict[str, tf.Tensor]:
    probability, competition, pattern = stacked
    return {
        "probability": probability,
        "competition": competition,
        "interval": find_intervals(stacker, said.log_probabilities, probability, pattern),
        "members": tf.transpose(tf.exp(said.log_probabilities), [1, 0, 2, 3]),
        "landmarks": said.landmarks,
        "doubt": said.doubt,
        "flags": _flags(stacker, said, pattern),
    }


def stack_predictions(
    stacker: StackerCoefficients, said: MemberPredictions
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Applies the stacker in the graph; `stacking.apply_stacker` is its NumPy twin.

    Returns:
        probability and competition float32 [study, 25, 3], and the pattern of available sources
        int32 [study, 25].
    """
    features, is_finite = centred_features(said.log_probabilities)
    context = _context(stacker, features, is_finite)
    columns: dict[Head, dict[int, tf.Tensor]] = {head: {} for head in Head}
    patterns: dict[int, tf.Tensor] = {}
    for family in stacker.families:
        rows, levels = family_findings(family.family)
        members = tf.constant(stacker.member_indices(family.family), tf.int32)
        mine = tf.gather(tf.gather(features, members, axis=0), rows, axis=2)
        is_there = tf.gather(tf.gather(is_finite[..., 0], members, axis=0), rows, axis=2)
        pattern = _pattern(family, is_there)
        mine = tf.where(is_there[..., tf.newaxis], mine, _mean_of_present(mine, is_there[..., tf.newaxis]))
        around = tf.gather(context, rows, axis=1)
        for head, fitted in family.heads.items():
            weights = tf.gather(tf.constant(fitted.weights, tf.float32), pattern)
            bias = tf.gather_nd(
                tf.constant(fitted.bias, tf.float32),
                tf.stack(
                    [pattern, tf.broadcast_to(tf.constant(levels, tf.int32), tf.shape(pattern))], axis=-1
                ),
            )
            logits = tf.einsum("srmij,msrj->sri", weights, mine) + bias
            if fitted.context.any():
                beside = tf.gather(tf.constant(fitted.context, tf.float32), pattern)
                logits += tf.einsum("srkij,srkj->sri", beside, around)
            values = tf.nn.softmax(logits)
            columns[head].update({row: values[:, place] for place, row in enumerate(rows)})
        patterns.update({row: pattern[:, place] for place, row in enumerate(rows)})
    heads = {head: tf.stack([columns[head][row] for row in range(NUM_FINDINGS)], axis=1) for head in Head}
    return (
        heads[Head.PROBABILITY],
        heads[Head.COMPETITION],
        tf.stack([patterns[row] for row in range(NUM_FINDINGS)], axis=1),
    )


def _mean_of_present(features: tf.Tensor, is_there: tf.Tensor) -> tf.Tensor:
    """Returns the mean over axis 0 of features [member, ..., 3] that are 0 where missing; 0 where all are."""
    counts = tf.reduce_sum(tf.cast(is_there, tf.float32), axis=0)
    return tf.reduce_sum(features, axis=0) / tf.maximum(counts, 1.0)


def _context(stacker: StackerCoefficients, features: tf.Tensor, is_finite: tf.Tensor) -> tf.Tensor:
    """Returns float32 [study, 25, slot, 3]; `context.context_features` is its NumPy twin."""
    is_known = tf.reduce_any(is_finite, axis=0)
    unusual = _mean_of_present(features, is_finite) - tf.constant(stacker.context_centre, tf.float32)
    unusual = tf.where(is_known, unusual, 0.0)
    return tf.einsum("kij,sjc->sikc", tf.constant(NEIGHBOURS, tf.float32), unusual)


def _pattern(family: FamilyStacker, is_there: tf.Tensor) -> tf.Tensor:
    """Returns int32 [study, row] from bool [member, study, row]."""
    pattern = tf.zeros(tf.shape(is_there)[1:], tf.int32)
    for source in range(len(family.sources)):
        mine = [place for place, each in enumerate(family.member_sources) if each == source]
        pattern += tf.cast(tf.reduce_any(tf.gather(is_there, mine, axis=0), axis=0), tf.int32) * (1 << source)
    return pattern


def _flags(stacker: StackerCoefficients, said: MemberPredictions, pattern: tf.Tensor) -> tf.Tensor:
    """Returns bool [study, 25, flag]."""
    never = tf.zeros_like(pattern, tf.bool)
    flags = dict.fromkeys(Flag, never)
    for plane, flag in PLANE_FLAGS.items():
        bits = [_source_bit(stacker.family(finding.condition.family), plane) for finding in FINDINGS]
        expected = tf.constant(bits, tf.int32)
        flags[flag] = (expected > 0) & tf.equal(tf.bitwise.bitwise_and(pattern, expected), 0)
    flags[Flag.NO_LANDMARK] = ~tf.reduce_all(tf.math.is_finite(said.landmarks), axis=-1)
    flags[Flag.PRIOR_ONLY] = tf.equal(pattern, 0)
    # A doubt of NaN, where there is no landmark, is no level shift.
    flags[Flag.LEVEL_SHIFT] = said.doubt > SHIFT_UNCERTAINTY
    return tf.stack([flags[flag] for flag in Flag], axis=-1)


def _source_bit(family: FamilyStacker, plane: Plane) -> int:
    """Returns the pattern bit of a plane, 0 where no member of the family reads it."""
    return 1 << family.sources.index(plane.value) if plane.value in family.sources else 0
