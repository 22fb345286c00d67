"""Installation: versions, devices, optional parts, and the bundles that are found."""

import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from lumbar_tf.api.arguments import PathLike

#: Packages whose versions decide results, in addition to those that make records.
_PACKAGES = ("tensorflow", "keras", "keras-cv", "pandas", "scikit-learn", "fire")
#: Extras for developers, which a user does not miss.
_DEVELOPMENT = ("dev", "docs")
_EXTRA_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+).*\bextra\s*==\s*['\"](?P<extra>[a-z0-9]+)['\"]")


@dataclass(frozen=True)
class BundleInfo:
    """A bundle on disk.

    Attributes:
        path: folder of the version.
        members: names of its networks.
        training: sentences on its training data, as in every result.
        faults: faults of its files and of its graph; its networks were not run.
        has_passed_self_test: whether a self-test with or without saliency is recorded for this machine.
    """

    path: Path
    members: tuple[str, ...]
    training: str
    faults: tuple[str, ...]
    has_passed_self_test: bool

    @property
    def verdict(self) -> str:
        """The outcome of the checks in a few words."""
        if self.faults:
            return f"refused: {'; '.join(self.faults)}"
        return "files and graph checked, self-test " + (
            "passed" if self.has_passed_self_test else "not run yet"
        )

    def to_json(self) -> dict[str, Any]:
        """Returns its fields for JSON."""
        return {
            "path": str(self.path),
            "members": list(self.members),
            "training": self.training,
            "faults": list(self.faults),
            "has_passed_self_test": self.has_passed_self_test,
        }


@dataclass(frozen=True)
class Environment:
    """Installation that commands run in.

    Attributes:
        versions: of Python and of the packages that decide results.
        devices: TensorFlow's devices, such as `CPU:0`.
        extras: optional parts, and what each lacks; nothing where it is complete. Empty if the package is not
            installed, but run from a checkout.
        bundles: the pretrained ensemble, and the newest version of the models' folder.
    """

    versions: dict[str, str]
    devices: tuple[str, ...]
    extras: dict[str, tuple[str, ...]]
    bundles: tuple[BundleInfo, ...]


def info(models: PathLike = "models/lumbar") -> Environment:
    """Describes the installation; runs no network and writes nothing.

    Args:
        models: folder of versions, or a version; it may be absent.
    """
    import tensorflow as tf

    from lumbar_tf.models.bundle_folder import find_version, has_version
    from lumbar_tf.models.pretrained import pretrained_folder
    from lumbar_tf.records.manifest import package_versions

    folders = [Path(models), pretrained_folder()]
    return Environment(
        versions={"python": platform.python_version(), **package_versions(*_PACKAGES)},
        devices=tuple(
            device.name.removeprefix("/physical_device:") for device in tf.config.list_physical_devices()
        ),
        extras=_find_extras(_requirements()),
        bundles=tuple(_describe_bundle(find_version(path)) for path in folders if has_version(path)),
    )


def _requirements() -> Sequence[str]:
    try:
        return requires("lumbar_tf") or ()
    except PackageNotFoundError:
        return ()


def _find_extras(requirements: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Returns the packages that each extra lacks."""
    missing: dict[str, list[str]] = {}
    for match in filter(None, map(_EXTRA_REQUIREMENT.match, requirements)):
        if match["extra"] not in _DEVELOPMENT:
            lacking = missing.setdefault(match["extra"], [])
            try:
                version(match["name"])
            except PackageNotFoundError:
                lacking.append(match["name"])
    return {extra: tuple(names) for extra, names in sorted(missing.items())}


def _describe_bundle(path: Path) -> BundleInfo:
    from lumbar_tf.bundle.file_check import find_file_faults
    from lumbar_tf.bundle.self_test_record import describe_conditions, has_passed
    from lumbar_tf.bundle.servable_check import find_faults
    from lumbar_tf.models.bundle_folder import read_ensemble_json
    from lumbar_tf.serving.training_data import parse_training

    try:
        description = read_ensemble_json(path)
    except ValueError as error:
        return BundleInfo(path, (), "", (str(error),), has_passed_self_test=False)
    faults = find_file_faults(path) or find_faults(path)
    tested = (describe_conditions(path, with_saliency=with_saliency) for with_saliency in (True, False))
    return BundleInfo(
        path,
        tuple(description["members"]),
        parse_training(description).note,
        tuple(faults),
        has_passed_self_test=not faults and any(map(has_passed, tested)),
    )
