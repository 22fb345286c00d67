"""The exported ensemble on disk: `<models>/<version>/`, as TF Serving expects it."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from lumbar_tf.config import PlaneConfig, dump_config
from lumbar_tf.ensemble.description import make_describe
from lumbar_tf.ensemble.graph import SIGNATURE, ServableEnsemble
from lumbar_tf.ensemble.members import PlaneNetworks, load_networks
from lumbar_tf.ensemble.runs import LOCALIZER, OOF_NAME, WEIGHTS_NAME, find_plane_configs
from lumbar_tf.ensemble.stacking import Stacker, from_json, to_json
from lumbar_tf.files import file_sha256
from lumbar_tf.labels import FINDINGS, Flag, Plane, Severity, parse_plane
from lumbar_tf.records.manifest import package_versions
from lumbar_tf.records.schema import SCHEMA_VERSION
from lumbar_tf.serving.contract import DESCRIBE

#: TF Serving leaves this folder of a version alone.
_EXTRA = "assets.extra"
_DESCRIPTION = "ensemble.json"


@dataclass(frozen=True, eq=False)
class LoadedEnsemble:
    """Networks and stacker as trained, before export.

    Attributes:
        networks: by plane.
        stacker: over their members.
    """

    networks: dict[Plane, PlaneNetworks]
    stacker: Stacker


def load_ensemble(runs: Path, stacker_path: Path) -> LoadedEnsemble:
    """Loads the members that a stacker names from their runs.

    Raises:
        ValueError: a member's plane or weights are missing.
    """
    stacker = from_json(stacker_path.read_text(encoding="utf-8"))
    foreign = [each for each in stacker.members if "/" not in each]
    if foreign:
        raise ValueError(
            f"Only members that were trained here can be exported. {stacker_path} stacks "
            f"{', '.join(foreign)}."
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


def next_version(models: Path) -> int:
    """Returns one more than the largest numbered version in a folder, at least 1."""
    versions = [int(path.name) for path in models.glob("*") if path.is_dir() and path.name.isdecimal()]
    return max(versions, default=0) + 1


def export_ensemble(
    ensemble: LoadedEnsemble, runs: Path, models: Path, *, version: int | None = None
) -> Path:
    """Writes the SavedModel under its version; it appears whole or not at all.

    Args:
        ensemble: from `load_ensemble`.
        runs: where it was loaded from, for the digests of the weights.
        models: the folder that TF Serving watches.
        version: the next free one by default.

    Returns:
        The version's folder.

    Raises:
        ValueError: the version exists.
    """
    version = next_version(models) if version is None else version
    target = models / str(version)
    if target.exists():
        raise ValueError(f"{target} exists; a served version must not change. Choose another --version.")
    # A name that is no number is ignored by TF Serving while it is being written.
    partial = models / f".partial-{version}"
    shutil.rmtree(partial, ignore_errors=True)
    module = ServableEnsemble(ensemble.networks, ensemble.stacker)
    text = json.dumps(describe_ensemble(ensemble, runs, version), indent=1)
    signatures = {SIGNATURE: module.serve, DESCRIBE: make_describe(text)}
    tf.saved_model.save(module, str(partial), signatures=signatures)
    extra = partial / _EXTRA
    extra.mkdir()
    (extra / _DESCRIPTION).write_text(text, encoding="utf-8")
    (extra / "stacker.json").write_text(to_json(ensemble.stacker), encoding="utf-8")
    partial.rename(target)
    return target


def describe_ensemble(ensemble: LoadedEnsemble, runs: Path, version: int) -> dict[str, Any]:
    """Returns what the export was made from and how its arrays are laid out."""
    planes = {}
    for plane, networks in ensemble.networks.items():
        folder = runs / plane.value
        names = [*([LOCALIZER] if networks.localizer else []), *networks.graders]
        planes[plane.value] = {
            "config": dump_config(networks.config),
            "weights_sha256": {
                path.relative_to(folder).as_posix(): file_sha256(path)
                for name in names
                for path in sorted((folder / name).glob(f"fold*/{WEIGHTS_NAME}"))
            },
        }
    return {
        "version": version,
        "record_schema_version": SCHEMA_VERSION,
        "members": list(ensemble.stacker.members),
        "planes": planes,
        "findings": [finding.name for finding in FINDINGS],
        "severities": [severity.column for severity in Severity],
        "flags": [flag.value for flag in Flag],
        "packages": package_versions(),
        "intended_use": "Research. Not a medical device.",
    }


class ServedEnsemble:
    """A SavedModel on disk, asked through its signature.

    Attributes:
        path: the version's folder.
        version: its number.
        members: names of the members, the second axis of the output `members`.
    """

    def __init__(self, path: Path) -> None:
        """Loads a version's folder, or the newest version in a folder of versions.

        Raises:
            ValueError: there is no SavedModel.
        """
        if not (path / "saved_model.pb").is_file():
            path = path / str(next_version(path) - 1)
        if not (path / "saved_model.pb").is_file():
            raise ValueError(
                f"The model must be an exported version or a folder of versions. Received: {path.parent}."
            )
        self.path = path
        self.version = path.name
        description = json.loads((path / _EXTRA / _DESCRIPTION).read_text(encoding="utf-8"))
        self.members: tuple[str, ...] = tuple(description["members"])
        self._loaded = tf.saved_model.load(str(path))
        self._serve = self._loaded.signatures[SIGNATURE]

    def answer(self, studies: Sequence[Mapping[Plane, bytes]]) -> dict[str, tf.Tensor]:
        """Grades studies.

        Args:
            studies: each study's serialized Examples by plane; a plane left out is missing.

        Returns:
            The signature's outputs; see `ServableEnsemble.serve`.
        """
        inputs = {
            plane.value: tf.constant([study.get(plane, b"") for study in studies], tf.string)
            for plane in Plane
        }
        outputs: dict[str, tf.Tensor] = self._serve(**inputs)
        return outputs
