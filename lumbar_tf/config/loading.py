"""From YAML files and overrides to typed configurations, and back."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from lumbar_tf.config.demo import DemoConfig
from lumbar_tf.config.fields import Config
from lumbar_tf.config.plane import PlaneConfig
from lumbar_tf.labels import Plane


def default_config_path(plane: Plane) -> Path:
    """Returns `configs/<plane>.yaml` beside the package or in the working folder."""
    name = f"{plane.value}.yaml"
    here = Path("configs") / name
    return here if here.is_file() else Path(__file__).resolve().parents[2] / "configs" / name


def load_plane_config(path: Path, *, overrides: Sequence[str] = ()) -> PlaneConfig:
    """Reads one plane's configuration. See `load_config`."""
    return PlaneConfig.model_validate(_read(path, overrides, PlaneConfig))


def load_demo_config(path: Path, *, overrides: Sequence[str] = ()) -> DemoConfig:
    """Reads the demo's configuration. See `load_config`."""
    return DemoConfig.model_validate(_read(path, overrides, DemoConfig))


def _read(path: Path, overrides: Sequence[str], kind: type[Config]) -> dict[str, Any]:
    """Reads YAML, applies `key.path=value` overrides and checks types.

    Raises:
        ValueError: names the file, the field, the rule and what came.
    """
    if not path.is_file():
        raise ValueError(f"The configuration must be an existing YAML file. Received: {path}.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} must be YAML. Received: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a mapping of fields. Received: {type(values).__name__}.")
    for override in overrides:
        _apply_override(values, override)
    try:
        kind.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{path}: {_describe(error)}") from error
    return values


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
    for each in error.errors():
        field = ".".join(str(part) for part in each["loc"]) or "the whole"
        lines.append(f"field {field}: {each['msg']}. Received: {each['input']!r}")
    return "; ".join(lines)


def dump_config(config: BaseModel) -> str:
    """Returns the resolved configuration as YAML text; `load_*_config` reads it back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
