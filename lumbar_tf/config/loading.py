"""Configuration files: lookup, overrides, validation and YAML output."""

from collections.abc import Hashable, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from lumbar_tf.config.demo import DemoConfig
from lumbar_tf.config.fields import Config
from lumbar_tf.config.plane import PlaneConfig
from lumbar_tf.config.variety import VarietyConfig
from lumbar_tf.files import decode_text
from lumbar_tf.labels import Plane

Loaded = TypeVar("Loaded", bound=Config)

_FOLDER = "configs"
DEMO_CONFIG_PATH = Path(_FOLDER) / "demo.yaml"
PRETRAINED_CONFIG_PATH = Path(_FOLDER) / "pretrained" / "pretrained.yaml"


def default_config_path(plane: Plane) -> Path:
    """Returns `configs/<plane>.yaml`, a path that `load_plane_config` finds from any working folder."""
    return Path(_FOLDER) / f"{plane.value}.yaml"


def load_plane_config(path: Path, *, overrides: Sequence[str] = ()) -> PlaneConfig:
    """Reads the configuration of one plane.

    Args:
        path: a YAML file. A relative path under `configs/` that does not exist in the working folder is read
            from the configurations that are installed with the package.
        overrides: `key.path=value`, applied in order.

    Raises:
        ValueError: the file or a field is invalid; the message names the file, the field, the rule and the
            value.
    """
    return _load(path, overrides, PlaneConfig)


def parse_plane_config(text: str, path: Path) -> PlaneConfig:
    """Returns the configuration of one plane from YAML text that a file contains.

    Raises:
        ValueError: see `load_plane_config`; the message names the file.
    """
    return _parse(text, path, (), PlaneConfig)


def load_demo_config(path: Path, *, overrides: Sequence[str] = ()) -> DemoConfig:
    """Reads the configuration of the demo. See `load_plane_config`."""
    return _load(path, overrides, DemoConfig)


def load_variety_config(path: Path, *, overrides: Sequence[str] = ()) -> VarietyConfig:
    """Reads the distributions of varied synthetic studies. See `load_plane_config`."""
    return _load(path, overrides, VarietyConfig)


def _packaged_configs() -> Traversable:
    """Returns `configs/` as the wheel installs it, or as a checkout has it beside the package."""
    package = files("lumbar_tf")
    installed = package.joinpath(_FOLDER)
    return installed if installed.is_dir() else package.joinpath("..", _FOLDER)


def _find(path: Path) -> Traversable:
    if path.is_file():
        return path
    if path.parts[:1] == (_FOLDER,) and ".." not in path.parts:
        packaged = _packaged_configs().joinpath(*path.parts[1:])
        if packaged.is_file():
            return packaged
    raise ValueError(
        f"The configuration must be an existing YAML file, or one of configs/. Received: {path}."
    )


class _UniqueKeyLoader(yaml.SafeLoader):
    """A safe loader that rejects a repeated key, of which YAML would use the last value silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Returns a mapping after checking that its keys are distinct."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and keys.count(key.value) > 1:
                line = key.start_mark.line + 1
                raise yaml.YAMLError(f"the key {key.value!r} more than once, first in line {line}")
        return super().construct_mapping(node, deep)


def _load(path: Path, overrides: Sequence[str], kind: type[Loaded]) -> Loaded:
    text = decode_text(_find(path).read_bytes(), f"{path} must be YAML in UTF-8")
    return _parse(text, path, overrides, kind)


def _parse(text: str, path: Path, overrides: Sequence[str], kind: type[Loaded]) -> Loaded:
    try:
        values = yaml.load(text, _UniqueKeyLoader)  # noqa: S506 - a subclass of SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(f"{path} must be YAML. Received: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a mapping of fields. Received: {type(values).__name__}.")
    for override in overrides:
        _apply_override(values, override)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{path}: {_describe(error)}") from error


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ValueError(
            f"--set must read key=value, such as grader.training.epochs=3. Received: {override!r}."
        )
    *parents, last = key.split(".")
    place: Any = values
    for parent in parents:
        if isinstance(place, list) and parent.isdigit() and int(parent) < len(place):
            place = place[int(parent)]
        elif isinstance(place, dict):
            place = place.setdefault(parent, {})
        else:
            raise ValueError(f"--set {override!r}: {parent!r} is not a group of fields.")
    if not isinstance(place, dict):
        raise ValueError(f"--set {override!r}: {last!r} is not inside a group of fields.")
    place[last] = yaml.safe_load(text)


def _describe(error: ValidationError) -> str:
    lines = []
    for fault in error.errors():
        field = ".".join(str(part) for part in fault["loc"]) or "the whole"
        lines.append(f"field {field}: {fault['msg']}. Received: {fault['input']!r}")
    return "; ".join(lines)


def dump_config(config: BaseModel) -> str:
    """Returns the resolved configuration as YAML text; `load_*_config` reads it back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
