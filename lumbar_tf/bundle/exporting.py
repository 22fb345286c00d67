"""From trained runs to a bundle on disk: `<models>/<version>/`, as TF Serving expects it."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from lumbar_tf.bundle.description import make_describe
from lumbar_tf.bundle.graph import SIGNATURE, ServableEnsemble
from lumbar_tf.bundle.members import PlaneNetworks, load_networks
from lumbar_tf.bundle.model_card import ModelFacts, render_card
from lumbar_tf.bundle.prediction_log import LoggedRequest, write_requests
from lumbar_tf.bundle.reference_study import MIRRORED, NOTHING, PLAIN, reference_cases
from lumbar_tf.bundle.self_test import check_answers, refuse
from lumbar_tf.bundle.servable_check import find_faults
from lumbar_tf.bundle.served_ensemble import (
    CARD_NAME,
    DESCRIPTION_NAME,
    EXTRA,
    PARITY_NAME,
    STACKER_NAME,
    WARMUP_NAME,
    ServedEnsemble,
    model_inputs,
    next_version,
)
from lumbar_tf.config import PlaneConfig, dump_config
from lumbar_tf.ensemble.stacker import StackerCoefficients, from_json, to_json
from lumbar_tf.files import file_sha256
from lumbar_tf.labels import FINDINGS, Flag, Plane, Severity, parse_plane
from lumbar_tf.records.schema import SCHEMA_VERSION
from lumbar_tf.serving.contract import DESCRIBE, EXPLAIN
from lumbar_tf.training.fold_metadata import training_versions
from lumbar_tf.training.runs import LOCALIZER, OOF_NAME, RUN_NAME, WEIGHTS_NAME, find_plane_configs

__all__ = ["LoadedEnsemble", "ServedEnsemble", "export_ensemble", "load_trained_ensemble", "next_version"]

#: The known study's cases that a server warms up with: all that is done once is done after these.
_WARMUP_CASES = (PLAIN, NOTHING, MIRRORED, PLAIN)


@dataclass(frozen=True, eq=False)
class LoadedEnsemble:
    """Networks and stacker as trained, before export.

    Attributes:
        networks: by plane.
        stacker: over their members.
    """

    networks: dict[Plane, PlaneNetworks]
    stacker: StackerCoefficients


def load_trained_ensemble(runs: Path, stacker_path: Path) -> LoadedEnsemble:
    """Loads the members that a stacker names from their runs.

    Raises:
        ValueError: a member's plane or weights are missing.
    """
    stacker = from_json(stacker_path.read_text(encoding="utf-8"))
    foreign = [each for each in stacker.members if "/" not in each]
    if foreign:
        raise ValueError(
            f"Only members that were trained here can be exported. {stacker_path} stacks "
            f"{', '.join(foreign)}: choose others with --members."
        )
    configs = find_plane_configs(runs)
    needed = {parse_plane(source) for source in stacker.sources}
    missing = [plane.value for plane in needed if plane not in configs]
    if missing:
        names = ", ".join(sorted(missing))
        raise ValueError(f"{runs} must hold a run of {names}, which {stacker_path} stacks.")
    # A sagittal plane without a member still locates for the axial one.
    wanted = [plane for plane in configs if plane in needed or _is_located(runs, plane, configs[plane])]
    networks = {plane: load_networks(runs, configs[plane], stacker.members) for plane in wanted}
    return LoadedEnsemble(networks, stacker)


def _is_located(runs: Path, plane: Plane, config: PlaneConfig) -> bool:
    """Whether a plane's localizer and graders are done: then its points were in the out-of-fold crops."""
    members = [runs / plane.value / each / OOF_NAME for each in config.grader.backbones]
    return config.localizer is not None and all(path.is_file() for path in members)


def export_ensemble(
    ensemble: LoadedEnsemble,
    runs: Path,
    models: Path,
    *,
    version: int | None = None,
    facts: ModelFacts | None = None,
    add: Callable[[Path, int], None] | None = None,
    has_saliency: bool = True,
) -> Path:
    """Writes the bundle and tests it; its version appears whole and tested, or not at all.

    Args:
        ensemble: from `load_trained_ensemble`.
        runs: where it was loaded from, for the digests of the weights.
        models: the folder that TF Serving watches.
        version: the next free one by default.
        facts: what the model card says besides what the runs say.
        add: writes more into the folder of the version that it is given, before digests are taken of all
            files.
        has_saliency: whether it can say where its answers came from.

    Returns:
        The version's folder.

    Raises:
        ValueError: the version exists, or the bundle fails its self-test.
    """
    version = next_version(models) if version is None else version
    target = models / str(version)
    if target.exists():
        raise ValueError(f"{target} exists; a served version must not change. Choose another --version.")
    # A name that is no number is ignored by TF Serving while it is being written.
    partial = models / f".partial-{version}"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        description = describe_ensemble(ensemble, runs, version)
        text = json.dumps(description, indent=1)
        _write_model(ensemble, partial, text, has_saliency=has_saliency)
        extra = partial / EXTRA
        extra.mkdir()
        (extra / STACKER_NAME).write_text(to_json(ensemble.stacker), encoding="utf-8")
        (extra / CARD_NAME).write_text(render_card(description, facts or ModelFacts()), encoding="utf-8")
        _write_requests(partial, ensemble.stacker.members, text)
        if add is not None:
            add(partial, version)
        _write_manifest(partial, description)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _write_model(ensemble: LoadedEnsemble, folder: Path, text: str, *, has_saliency: bool) -> None:
    module = ServableEnsemble(ensemble.networks, ensemble.stacker)
    signatures = {SIGNATURE: module.serve, DESCRIBE: make_describe(text)}
    if has_saliency:
        signatures[EXPLAIN] = module.explain
    tf.saved_model.save(
        module,
        str(folder),
        signatures=signatures,
        # Nobody trains a bundle: the gradients of its activations would be two of three functions.
        options=tf.saved_model.SaveOptions(experimental_custom_gradients=False),
    )
    refuse(folder, find_faults(folder))


def _write_manifest(folder: Path, description: dict[str, Any]) -> None:
    """Writes the description and the digests of all other files, which are there by now."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    digests = {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}
    text = json.dumps({**description, "files": digests}, indent=1)
    (folder / EXTRA / DESCRIPTION_NAME).write_text(text, encoding="utf-8")


def _write_requests(folder: Path, members: Sequence[str], text: str) -> None:
    """Asks the written SavedModel about the known study, checks the answers and keeps them.

    Args:
        folder: the SavedModel.
        members: names of its members.
        text: what it says of itself.
    """
    served, cases = ServedEnsemble(folder), reference_cases()
    requests = {case: _ask(served, case, study, SIGNATURE) for case, study in cases.items()}
    explained = {}
    if served.has_saliency:
        explained = {case: _ask(served, case, study, EXPLAIN) for case, study in cases.items()}
    for asked in filter(None, (requests, explained)):
        answers = {
            case: {name: value[0] for name, value in each.outputs.items()} for case, each in asked.items()
        }
        refuse(folder, check_answers(answers, members))
    nobody, said = np.array([b""], object), np.array([text.encode()], object)
    describe = LoggedRequest(DESCRIBE, {"study": nobody}, {"description": said}, model=DESCRIBE)
    others = [*([explained[MIRRORED]] if explained else []), describe]
    write_requests(folder / EXTRA / PARITY_NAME, [*requests.values(), *others])
    warmup = [requests[case] for case in _WARMUP_CASES] + others
    write_requests(
        folder / EXTRA / WARMUP_NAME, [LoggedRequest(each.signature, each.inputs) for each in warmup]
    )


def _ask(served: ServedEnsemble, case: str, study: Mapping[Plane, bytes], signature: str) -> LoggedRequest:
    outputs = served.answer([study], explained=signature == EXPLAIN)
    inputs = {name: np.array(values, object) for name, values in model_inputs([study]).items()}
    arrays = {name: value.numpy() for name, value in outputs.items()}
    return LoggedRequest(signature, inputs, arrays, model=case)


def describe_ensemble(ensemble: LoadedEnsemble, runs: Path, version: int) -> dict[str, Any]:
    """Returns what the export was made from and how its arrays are laid out."""
    return {
        "version": version,
        "record_schema_version": SCHEMA_VERSION,
        "members": list(ensemble.stacker.members),
        "planes": {
            plane.value: _describe_plane(networks, runs / plane.value)
            for plane, networks in ensemble.networks.items()
        },
        "findings": [finding.name for finding in FINDINGS],
        "severities": [severity.column for severity in Severity],
        "flags": [flag.value for flag in Flag],
        "packages": training_versions(),
        "intended_use": "Research. Not a medical device.",
    }


def _describe_plane(networks: PlaneNetworks, folder: Path) -> dict[str, Any]:
    names = [*([LOCALIZER] if networks.localizer else []), *networks.graders]
    folded = [each for each in (networks.localizer, *networks.graders.values()) if each is not None]
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
        "weights_bytes": sum(each.size_bytes for each in folded),
        "num_folds": max(each.num_folds for each in folded),
        **_describe_run(folder / RUN_NAME),
    }


def _describe_run(path: Path) -> Mapping[str, Any]:
    """Returns what trained a plane, without naming a study."""
    if not path.is_file():
        return {}
    run = json.loads(path.read_text(encoding="utf-8"))
    digests = {key: value for key, value in run.items() if key.endswith("_sha256")}
    studies: Sequence[str] = run.get("studies", ())
    return {"digests": digests, "num_studies": len(studies), "training_packages": run.get("packages", {})}
