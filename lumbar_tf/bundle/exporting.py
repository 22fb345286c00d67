"""Export of a trained ensemble to a bundle, `<models>/<version>/`, as TensorFlow Serving expects it."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from lumbar_tf.bundle.file_check import seal_description
from lumbar_tf.bundle.graph import ServableEnsemble, make_describe
from lumbar_tf.bundle.loading import ServedEnsemble, model_inputs, raise_faults
from lumbar_tf.bundle.model_card import ModelFacts, render_card
from lumbar_tf.bundle.prediction_log import LoggedRequest, write_requests
from lumbar_tf.bundle.reference_study import MIRRORED, NOTHING, PLAIN, reference_cases
from lumbar_tf.bundle.self_test import find_case_faults
from lumbar_tf.bundle.servable_check import find_faults
from lumbar_tf.bundle.signing import sign_bundle
from lumbar_tf.bundle.trained_ensemble import PlaneNetworks, TrainedEnsemble
from lumbar_tf.config import dump_config
from lumbar_tf.ensemble.stacker import StackerCoefficients
from lumbar_tf.ensemble.stacker_json import stacker_to_json
from lumbar_tf.files import file_sha256
from lumbar_tf.labels import FINDINGS, Flag, Plane, Severity
from lumbar_tf.models.bundle_folder import (
    CARD_NAME,
    DESCRIPTION_NAME,
    EXTRA,
    PARITY_NAME,
    STACKER_NAME,
    WARMUP_NAME,
    next_version,
)
from lumbar_tf.records.schema import SCHEMA_VERSION
from lumbar_tf.serving.contract import COVERAGE_KEY, DESCRIBE, GRADE, SALIENCY
from lumbar_tf.serving.training_data import TRAINING_KEY, TrainingData, summarise_origin, training_to_json
from lumbar_tf.training.checkpoints import WEIGHTS_NAME
from lumbar_tf.training.runs import LOCALIZER, RUN_NAME, training_versions

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

#: Cases of the reference study for warming up a server: they trigger everything that happens only once.
_WARMUP_CASES = (PLAIN, NOTHING, MIRRORED, PLAIN)


def export_ensemble(
    ensemble: TrainedEnsemble,
    runs: Path,
    models: Path,
    *,
    version: int | None = None,
    facts: ModelFacts | None = None,
    add: Callable[[Path, int], None] | None = None,
    has_saliency: bool = True,
    is_compact: bool = False,
    signing_key: "Ed25519PrivateKey | None" = None,
) -> Path:
    """Writes a bundle and runs its self-test; the version's folder appears only if both succeed.

    Args:
        ensemble: from `load_trained_ensemble`.
        runs: folder that it was loaded from, for the digests of the weights.
        models: the folder that TensorFlow Serving watches.
        version: version number; the next free one by default.
        facts: what the runs do not contain: the training data, and content of the model card.
        add: called with the folder and the version to write more files, before the digests are computed.
        has_saliency: whether to include the signature with saliency.
        is_compact: leave out the warm-up requests of TensorFlow Serving and the inputs of the recorded
            requests, which this package has itself.
        signing_key: from `signing.read_signing_key`; None leaves the bundle unsigned.

    Returns:
        The version's folder.

    Raises:
        ValueError: the version exists, or the bundle fails its self-test.
    """
    facts = facts or ModelFacts()
    version = next_version(models) if version is None else version
    description = describe_ensemble(ensemble, runs, version, facts)
    module = ServableEnsemble(ensemble.networks, ensemble.stacker)
    signatures = {GRADE: module.serve}
    if has_saliency:
        signatures[SALIENCY] = module.serve_with_saliency
    # Of an object with the variables alone, TensorFlow saves the functions of the signatures and no others.
    variables = tf.Module()
    variables.parameters = module.parameters
    return write_bundle(
        models,
        description,
        ensemble.stacker,
        variables,
        signatures,
        texts={CARD_NAME: render_card(description, facts)},
        add=add,
        is_compact=is_compact,
        signing_key=signing_key,
    )


def write_bundle(
    models: Path,
    description: Mapping[str, Any],
    stacker: StackerCoefficients,
    module: tf.Module,
    signatures: Mapping[str, Any],
    *,
    texts: Mapping[str, str],
    add: Callable[[Path, int], None] | None = None,
    is_compact: bool = False,
    signing_key: "Ed25519PrivateKey | None" = None,
) -> Path:
    """Writes a module as a bundle and runs its self-test; the folder appears only if both succeed.

    Args:
        models: the folder that TensorFlow Serving watches.
        description: content of `ensemble.json` without the digests, with the `version` to write.
        stacker: the stacker in the graph.
        module: the object that is saved. It tracks all variables, and functions to keep beside those of the
            signatures.
        signatures: its functions by the signature's name, without that of the description.
        texts: content of further files in `assets.extra`, by name.
        add: see `export_ensemble`.
        is_compact: likewise.
        signing_key: likewise.

    Returns:
        The version's folder.

    Raises:
        ValueError: the version exists, or the bundle fails its self-test.
    """
    version: int = description["version"]
    target = models / str(version)
    if target.exists():
        raise ValueError(f"{target} exists; a served version must not change. Choose another --version.")
    # TensorFlow Serving ignores folders whose names are not numbers.
    partial = models / f".partial-{version}"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        text = json.dumps(description, indent=1)
        _write_model(module, {**signatures, DESCRIBE: make_describe(text)}, partial)
        extra = partial / EXTRA
        extra.mkdir()
        for name, content in {**texts, STACKER_NAME: stacker_to_json(stacker)}.items():
            (extra / name).write_text(content, encoding="utf-8")
        _write_requests(partial, stacker, text, is_compact=is_compact)
        if add is not None:
            add(partial, version)
        _write_manifest(partial, description)
        if signing_key is not None:
            sign_bundle(partial, signing_key)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _write_model(module: tf.Module, signatures: Mapping[str, Any], folder: Path) -> None:
    tf.saved_model.save(
        module,
        str(folder),
        signatures=dict(signatures),
        # A bundle is not trained further; the gradients of its activations would be two thirds of its
        # functions.
        options=tf.saved_model.SaveOptions(experimental_custom_gradients=False),
    )
    raise_faults(folder, find_faults(folder))


def _write_manifest(folder: Path, description: Mapping[str, Any]) -> None:
    """Writes the description with the digests of all other files, which must exist already."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    digests = {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}
    text = json.dumps(seal_description(description, digests), indent=1)
    (folder / EXTRA / DESCRIPTION_NAME).write_text(text, encoding="utf-8")


def _write_requests(folder: Path, stacker: StackerCoefficients, text: str, *, is_compact: bool) -> None:
    """Grades the reference study with the written SavedModel, checks the outputs and writes the requests.

    Args:
        folder: the SavedModel.
        stacker: the stacker of its members.
        text: its description.
        is_compact: see `export_ensemble`.
    """
    served, cases = ServedEnsemble(folder), reference_cases()
    requests = {case: _predict_case(served, case, study, GRADE) for case, study in cases.items()}
    with_saliency = {}
    if served.has_saliency:
        with_saliency = {case: _predict_case(served, case, study, SALIENCY) for case, study in cases.items()}
    for logged in filter(None, (requests, with_saliency)):
        outputs = {
            case: {name: value[0] for name, value in request.outputs.items()}
            for case, request in logged.items()
        }
        raise_faults(folder, find_case_faults(outputs, stacker.members, stacker))
    study, description = np.array([b""], object), np.array([text.encode()], object)
    describe = LoggedRequest(DESCRIBE, {"study": study}, {"description": description}, model=DESCRIBE)
    others = [*([with_saliency[MIRRORED]] if with_saliency else []), describe]
    recorded = [*requests.values(), *others]
    if is_compact:
        without_inputs = [replace(request, inputs={}) for request in recorded]
        write_requests(folder / EXTRA / PARITY_NAME, without_inputs)
        return
    write_requests(folder / EXTRA / PARITY_NAME, recorded)
    warmup = [requests[case] for case in _WARMUP_CASES] + others
    write_requests(
        folder / EXTRA / WARMUP_NAME, [LoggedRequest(request.signature, request.inputs) for request in warmup]
    )


def _predict_case(
    served: ServedEnsemble, case: str, study: Mapping[Plane, bytes], signature: str
) -> LoggedRequest:
    arrays = served.predict([study], with_saliency=signature == SALIENCY)
    inputs = {name: np.array(values, object) for name, values in model_inputs([study]).items()}
    return LoggedRequest(signature, inputs, arrays, model=case)


def describe_ensemble(
    ensemble: TrainedEnsemble, runs: Path, version: int, facts: ModelFacts
) -> dict[str, Any]:
    """Returns the content of `ensemble.json`: the origin of the export and the layout of its arrays."""
    training = TrainingData(summarise_origin(facts.data), facts.is_synthetic)
    return {
        "version": version,
        TRAINING_KEY: training_to_json(training),
        "record_schema_version": SCHEMA_VERSION,
        "members": list(ensemble.stacker.members),
        "planes": {
            plane.value: _describe_plane(networks, runs / plane.value)
            for plane, networks in ensemble.networks.items()
        },
        "findings": [finding.name for finding in FINDINGS],
        "severities": [severity.column for severity in Severity],
        "flags": [flag.value for flag in Flag],
        COVERAGE_KEY: ensemble.stacker.set_coverage,
        "packages": training_versions(),
        "intended_use": "Research. Not a medical device.",
    }


def _describe_plane(networks: PlaneNetworks, folder: Path) -> dict[str, Any]:
    names = [*([LOCALIZER] if networks.localizer else []), *networks.graders]
    return {
        "config": dump_config(networks.config),
        "graders": list(networks.graders),
        "families": [family.value for family in networks.config.grader.targets],
        "has_localizer": networks.localizer is not None,
        "weights_sha256": {
            path.relative_to(folder).as_posix(): file_sha256(path)
            for name in names
            for path in sorted((folder / name).glob(f"fold*/{WEIGHTS_NAME}"))
        },
        "weights_bytes": sum(folds.size_bytes for folds in networks.fold_ensembles),
        "num_folds": max(folds.num_folds for folds in networks.fold_ensembles),
        **_describe_run(folder / RUN_NAME),
    }


def _describe_run(path: Path) -> Mapping[str, Any]:
    """Returns the metadata of a training run, without the identifiers of studies."""
    if not path.is_file():
        return {}
    run = json.loads(path.read_text(encoding="utf-8"))
    digests = {key: value for key, value in run.items() if key.endswith("_sha256")}
    studies: Sequence[str] = run.get("studies", ())
    return {"digests": digests, "num_studies": len(studies), "training_packages": run.get("packages", {})}
