"""Servable module: serialized Examples in, findings out, with TensorFlow's core operations only."""

import tensorflow as tf

from lumbar_tf.bundle.members import Examples, MemberPredictions, predict_members
from lumbar_tf.bundle.saliency_graph import member_weights, predict_members_with_saliency
from lumbar_tf.bundle.stacker_graph import find_intervals, find_prediction_sets, stack_predictions
from lumbar_tf.bundle.trained_ensemble import PlaneNetworks
from lumbar_tf.ensemble.stacker import FamilyStacker, StackerCoefficients
from lumbar_tf.labels import FINDINGS, PLANE_FLAGS, Flag, Plane
from lumbar_tf.models.level_decoding import SHIFT_UNCERTAINTY

#: Serialized Examples of each plane, string [study]; "" where the plane is missing.
SERVING_INPUTS = [tf.TensorSpec([None], tf.string, name=plane.value) for plane in Plane]


class ServableEnsemble(tf.Module):
    """The module that is exported.

    It tracks variables only, not the Keras objects, so that each weight is stored once.
    """

    def __init__(self, networks: dict[Plane, PlaneNetworks], stacker: StackerCoefficients) -> None:
        """Takes trained networks and the fitted stacker of their members."""
        super().__init__(name="lumbar_tf")
        self.parameters = [folds.parameters for plane in networks.values() for folds in plane.fold_ensembles]
        # Closures instead of attributes: tf.Module would track (and store) the networks again.
        self._grade = lambda examples: compute_outputs(networks, stacker, examples)
        self._grade_with_saliency = lambda examples: compute_outputs_with_saliency(
            networks, stacker, examples
        )

    # All Python loops and branches are over the configuration; none is over a tensor.
    @tf.function(input_signature=SERVING_INPUTS, autograph=False)
    def serve(self, *examples: tf.Tensor) -> dict[str, tf.Tensor]:
        """Grades studies.

        Args:
            *examples: serialized Examples of each `Plane` in order, string [study]; "" where the plane is
                missing. In the SavedModel's signature they are named by the plane's value.

        Returns:
            - `probability` and `competition`: float32 [study, 25, 3].
            - `interval`: float32 [study, 25, 3, 2], lower and upper bound of `probability`; NaN where fewer
              than two members have a prediction (see `ensemble.intervals`).
            - `prediction_set`: bool [study, 25, 3], grades of the set that contains the reader's grade with
              the coverage that the stacker was fitted for (see `ensemble.prediction_sets`); absent if the
              stacker has no sets.
            - `members`: float32 [study, member, 25, 3], uncalibrated probabilities of each member; NaN where
              it has no prediction.
            - `landmarks`: float32 [study, 25, 3], LPS mm; NaN where there is none.
            - `doubt`: float32 [study, 25], probability that the landmark is on another disc; NaN where there
              is no landmark.
            - `flags`: bool [study, 25, len(Flag)].
        """
        outputs: dict[str, tf.Tensor] = self._grade(dict(zip(Plane, examples, strict=True)))
        return outputs

    @tf.function(input_signature=SERVING_INPUTS, autograph=False)
    def serve_with_saliency(self, *examples: tf.Tensor) -> dict[str, tf.Tensor]:
        """Grades studies and maps the regions of the crops that speak for stenosis.

        Args:
            *examples: as for `serve`.

        Returns:
            The outputs of `serve`, `saliency` float32 [study, member, 25, view, slice, cell, cell] (see
            `saliency_graph.predict_members_with_saliency`), and `weight` float32 [study, member, 25] (see
            `saliency_graph.member_weights`).
        """
        outputs: dict[str, tf.Tensor] = self._grade_with_saliency(dict(zip(Plane, examples, strict=True)))
        return outputs


def make_describe(text: str) -> tf.types.experimental.GenericFunction:
    """Returns a signature for the ensemble's description, because a model server provides no files.

    Args:
        text: JSON, as in `assets.extra/ensemble.json`.

    Returns:
        Function from `study`, string [study], whose content is ignored, to `description`, string [study]. The
        first dimension is the study's as in the other signatures, so that a server can batch requests.
    """

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="study")], autograph=False)
    def describe(study: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"description": tf.fill(tf.shape(study), tf.constant(text))}

    return describe


def compute_outputs(
    networks: dict[Plane, PlaneNetworks], stacker: StackerCoefficients, examples: Examples
) -> dict[str, tf.Tensor]:
    """Returns the outputs of `ServableEnsemble.serve` for a batch of studies."""
    predictions = predict_members(networks, stacker.members, examples)
    return _outputs(stacker, predictions, stack_predictions(stacker, predictions.log_probabilities))


def compute_outputs_with_saliency(
    networks: dict[Plane, PlaneNetworks], stacker: StackerCoefficients, examples: Examples
) -> dict[str, tf.Tensor]:
    """Returns the outputs of `ServableEnsemble.serve_with_saliency` for a batch of studies."""
    predictions, maps = predict_members_with_saliency(networks, stacker.members, examples)
    stacked = stack_predictions(stacker, predictions.log_probabilities)
    probability, _, pattern = stacked
    return {
        **_outputs(stacker, predictions, stacked),
        "saliency": maps,
        "weight": member_weights(stacker, predictions, probability, pattern),
    }


def _outputs(
    stacker: StackerCoefficients,
    predictions: MemberPredictions,
    stacked: tuple[tf.Tensor, tf.Tensor, tf.Tensor],
) -> dict[str, tf.Tensor]:
    probability, competition, pattern = stacked
    # Stackers of earlier releases have no sets.
    has_sets = stacker.set_coverage is not None
    sets = {"prediction_set": find_prediction_sets(stacker, probability, pattern)} if has_sets else {}
    return {
        **sets,
        "probability": probability,
        "competition": competition,
        "interval": find_intervals(stacker, predictions.log_probabilities, probability, pattern),
        "members": tf.transpose(tf.exp(predictions.log_probabilities), [1, 0, 2, 3]),
        "landmarks": predictions.landmarks,
        "doubt": predictions.uncertainty,
        "flags": _flags(stacker, predictions, pattern),
    }


def _flags(stacker: StackerCoefficients, predictions: MemberPredictions, pattern: tf.Tensor) -> tf.Tensor:
    """Returns bool [study, 25, flag]."""
    never = tf.zeros_like(pattern, tf.bool)
    flags = dict.fromkeys(Flag, never)
    for plane, flag in PLANE_FLAGS.items():
        bits = [_source_bit(stacker.family(finding.condition.family), plane) for finding in FINDINGS]
        expected = tf.constant(bits, tf.int32)
        flags[flag] = (expected > 0) & tf.equal(tf.bitwise.bitwise_and(pattern, expected), 0)
    flags[Flag.NO_LANDMARK] = ~tf.reduce_all(tf.math.is_finite(predictions.landmarks), axis=-1)
    flags[Flag.PRIOR_ONLY] = tf.equal(pattern, 0)
    # NaN, where there is no landmark, compares as False.
    flags[Flag.LEVEL_SHIFT] = predictions.uncertainty > SHIFT_UNCERTAINTY
    return tf.stack([flags[flag] for flag in Flag], axis=-1)


def _source_bit(family: FamilyStacker, plane: Plane) -> int:
    """Returns the pattern bit of a plane, 0 where no member of the family uses it."""
    return 1 << family.sources.index(plane.value) if plane.value in family.sources else 0
