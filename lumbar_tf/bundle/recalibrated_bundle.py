"""A recalibrated version of a bundle, written from the bundle alone.

The graph of the new version calls the functions of the bundle that was exported first, takes the members'
predictions from their outputs, and applies the recalibrated stacker to them; landmarks, flags and saliency
pass through unchanged. Weights are stored once, and a version that is recalibrated again has the functions of
the first export inside, not those of the version between them.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from lumbar_tf.bundle.exporting import write_bundle
from lumbar_tf.bundle.file_check import DESCRIPTION_DIGEST
from lumbar_tf.bundle.graph import SERVING_INPUTS
from lumbar_tf.bundle.loading import ServedEnsemble
from lumbar_tf.bundle.members import MemberPredictions
from lumbar_tf.bundle.model_card import recalibrated_card
from lumbar_tf.bundle.saliency_graph import member_weights
from lumbar_tf.bundle.stacker_graph import find_intervals, find_prediction_sets, stack_predictions
from lumbar_tf.ensemble.features import MIN_PROBABILITY
from lumbar_tf.ensemble.stacker import StackerCoefficients
from lumbar_tf.ensemble.stacker_json import stacker_from_json, stacker_to_json
from lumbar_tf.files import file_sha256
from lumbar_tf.models.bundle_folder import (
    CARD_NAME,
    EXTRA,
    MANIFEST,
    ORIGINAL_STACKER_NAME,
    STACKER_NAME,
    WARMUP_NAME,
    next_version,
)
from lumbar_tf.serving.contract import GRADE, SALIENCY
from lumbar_tf.training.runs import training_versions

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

#: Key in `ensemble.json` of the recalibration's origin and figures.
RECALIBRATION_KEY = "recalibration"


class RecalibratedEnsemble(tf.Module):
    """The object that is saved: a bundle's weights and functions.

    Attributes:
        parameters: the weights.
        original: functions of the first export by the signature's name.
    """

    def __init__(self, path: Path) -> None:
        """Loads a bundle that has passed `servable_check`."""
        super().__init__(name="lumbar_tf")
        bundle = tf.saved_model.load(str(path))
        self.parameters = bundle.parameters
        functions = bundle.original if hasattr(bundle, "original") else bundle.signatures
        self.original = {name: functions[name] for name in (GRADE, SALIENCY) if name in functions}

    def signatures(self, stacker: StackerCoefficients) -> dict[str, Any]:
        """Returns the functions of a bundle with another stacker, by the signature's name."""
        return {name: _with_stacker(function, stacker) for name, function in self.original.items()}


def _with_stacker(function: Any, stacker: StackerCoefficients) -> Any:
    @tf.function(input_signature=SERVING_INPUTS, autograph=False)
    def serve(*examples: tf.Tensor) -> dict[str, tf.Tensor]:
        named = {spec.name: value for spec, value in zip(SERVING_INPUTS, examples, strict=True)}
        return restack(function(**named), stacker)

    return serve


def restack(outputs: Mapping[str, tf.Tensor], stacker: StackerCoefficients) -> dict[str, tf.Tensor]:
    """Returns the outputs of `ServableEnsemble` with another stacker's predictions.

    Args:
        outputs: of a signature of the bundle.
        stacker: of the same members.
    """
    members = tf.transpose(outputs["members"], [1, 0, 2, 3])
    is_there = tf.math.is_finite(members)
    # The stacker clips there, too; a probability of 0 is not a missing one.
    clipped = tf.maximum(tf.where(is_there, members, 1.0), MIN_PROBABILITY)
    log_probabilities = tf.where(is_there, tf.math.log(clipped), float("nan"))
    probability, competition, pattern = stack_predictions(stacker, log_probabilities)
    replaced = {"probability": probability, "competition": competition}
    # Bundles of earlier releases lack some of these.
    if "interval" in outputs:
        replaced["interval"] = find_intervals(stacker, log_probabilities, probability, pattern)
    if "prediction_set" in outputs:
        replaced["prediction_set"] = find_prediction_sets(stacker, probability, pattern)
    if "weight" in outputs:
        predictions = MemberPredictions(log_probabilities, outputs["landmarks"], outputs["doubt"])
        replaced["weight"] = member_weights(stacker, predictions, probability, pattern)
    return {**outputs, **replaced}


def read_stackers(path: Path) -> tuple[StackerCoefficients, StackerCoefficients]:
    """Returns the stacker of a version as it was fitted, and the one in its graph.

    They are the same unless the version is a recalibrated one.
    """
    served = stacker_from_json((path / EXTRA / STACKER_NAME).read_text(encoding="utf-8"))
    original = path / EXTRA / ORIGINAL_STACKER_NAME
    if not original.is_file():
        return served, served
    return stacker_from_json(original.read_text(encoding="utf-8")), served


def write_recalibrated(
    source: ServedEnsemble,
    stacker: StackerCoefficients,
    recalibration: Mapping[str, Any],
    models: Path,
    *,
    add: Callable[[Path, int], None] | None = None,
    signing_key: "Ed25519PrivateKey | None" = None,
) -> Path:
    """Writes a recalibrated bundle as the next version, and runs its self-test.

    Args:
        source: the bundle, which is not changed.
        stacker: the recalibrated stacker.
        recalibration: its origin and figures, for `ensemble.json` and the model card.
        models: folder of versions.
        add: see `exporting.export_ensemble`.
        signing_key: likewise.

    Returns:
        The version's folder.

    Raises:
        ValueError: the bundle fails its self-test.
    """
    dropped = ("files", DESCRIPTION_DIGEST)
    kept = {name: value for name, value in source.description.items() if name not in dropped}
    origin = {
        "source": {"version": source.version, "manifest_sha256": file_sha256(source.path / MANIFEST)},
        "original_version": kept.get(RECALIBRATION_KEY, {}).get("original_version", source.version),
    }
    description = {
        **kept,
        "version": next_version(models),
        "packages": training_versions(),
        RECALIBRATION_KEY: {**origin, **recalibration},
    }
    original, _ = read_stackers(source.path)
    module = RecalibratedEnsemble(source.path)
    card = (source.path / EXTRA / CARD_NAME).read_text(encoding="utf-8")
    return write_bundle(
        models,
        description,
        stacker,
        module,
        module.signatures(stacker),
        texts={
            CARD_NAME: recalibrated_card(card, description),
            ORIGINAL_STACKER_NAME: stacker_to_json(original),
        },
        add=add,
        is_compact=not (source.path / EXTRA / WARMUP_NAME).is_file(),
        signing_key=signing_key,
    )
