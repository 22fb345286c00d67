"""Initial weights from another run, without leakage from held-out studies.

Out-of-fold tables are valid only if a fold's weights were never trained on its held-out studies. Of a run
with the same folds the weights of the same fold are used, of a run with other studies those of any fold;
every other run is refused. Studies are compared by their id: one patient with two ids is not detected.
The name `pretrained` stands for the package's own ensemble, which was trained on synthetic studies.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.config import LocalizerConfig, PlaneConfig, load_plane_config
from lumbar_tf.inputs.crop_layout import CropLayout
from lumbar_tf.models.pretrained import PRETRAINED
from lumbar_tf.training.checkpoints import WEIGHTS_NAME
from lumbar_tf.training.pretrained_weights import PretrainedPlane, read_pretrained_plane
from lumbar_tf.training.runs import CONFIG_NAME, LOCALIZER, RUN_NAME, PlaneRun


@dataclass(frozen=True)
class _Source:
    """Another run of the plane.

    Attributes:
        directory: folder of the plane, `RUNS/<plane>`.
        origin: content of its `run.json`.
        config: its configuration.
    """

    directory: Path
    origin: dict[str, Any]
    config: PlaneConfig

    @classmethod
    def read(cls, directory: Path) -> "_Source":
        """Reads the run of a folder."""
        origin = json.loads((directory / RUN_NAME).read_text(encoding="utf-8"))
        return cls(directory, origin, load_plane_config(directory / CONFIG_NAME))


def initial_weights(run: PlaneRun, member: str, fold: int) -> Path | NDArray[np.float32] | None:
    """Returns the initial weights of one fold of a member.

    `init_from` of the member's configuration is another run's folder (`RUNS` or `RUNS/<plane>`), a file of
    weights, or `pretrained`. A file outside of a run is used without a check of its training studies.

    Args:
        run: run that starts.
        member: `LOCALIZER` or a backbone's name; the other run must have the same member.
        fold: held-out fold.

    Returns:
        A `.weights.h5` file, or all weights in Keras' order, float32 [weights]; None without `init_from`.

    Raises:
        ValueError: there are no weights, their network is another, or they were (or may have been) trained on
            studies of the held-out fold.
    """
    named = _init_from(run.config, member)
    if named is None:
        return None
    own = json.loads((run.directory / RUN_NAME).read_text(encoding="utf-8"))
    if named == PRETRAINED:
        pretrained = read_pretrained_plane(run.config.plane)
        _require_suitable(pretrained, run.config, member, own["folds_sha256"])
        return pretrained.read_weights(member, fold)
    init_from = Path(named)
    source = _find_source(init_from, run)
    if source is None:
        return init_from
    _require_same_network(source.config, run.config, member, source.directory)
    has_same_folds = source.origin.get("folds_sha256") == own["folds_sha256"]
    if not has_same_folds:
        _require_other_studies(source, run, member)
    if init_from.is_file():
        if has_same_folds and _fold_folder(source, init_from) != f"fold{fold}":
            raise ValueError(
                f"Weights of a run with the same folds must be those of the same fold, {fold}; others were "
                f"trained on its held-out studies. Received: {init_from}. Pass the run's folder instead."
            )
        return init_from
    return _choose_fold(source, member, fold, has_same_folds=has_same_folds)


def _init_from(config: PlaneConfig, member: str) -> str | None:
    """Returns the value of `init_from` in the configuration of a member."""
    network = config.localizer if member == LOCALIZER else config.grader
    return network.init_from if network is not None else None


def _find_source(init_from: Path, run: PlaneRun) -> _Source | None:
    """Returns the run of a folder, or the run that contains a file; None for a file outside of any run."""
    if init_from.is_file():
        # RUNS/<plane>/<member>/fold<k>/weights.weights.h5, or one folder deeper for the first of two training
        # steps. A member's folder has a run.json, too, but no configuration.
        candidates = list(init_from.resolve().parents)
    elif init_from.is_dir():
        candidates = [init_from / run.config.plane.value, init_from]
    else:
        raise ValueError(f"init_from must be a run's folder or a file of weights. Received: {init_from}.")
    for directory in candidates:
        if (directory / RUN_NAME).is_file() and (directory / CONFIG_NAME).is_file():
            if directory.resolve() == run.directory.resolve():
                raise ValueError(f"init_from must be another run than the one that starts, {run.directory}.")
            return _Source.read(directory)
    if init_from.is_file():
        return None
    raise ValueError(
        f"init_from must contain a run of {run.config.plane.value} ({RUN_NAME}). Received: {init_from}."
    )


def _fold_folder(source: _Source, path: Path) -> str:
    """Returns the name of the fold's folder that contains a file of a run, or ""."""
    # <member>/fold<k>/...
    _, *inside = path.resolve().relative_to(source.directory.resolve()).parts
    return inside[0] if inside else ""


def _require_other_studies(source: _Source, run: PlaneRun, member: str) -> None:
    """Raises ValueError if the weights or their initial weights were trained on studies of the run."""
    studies = source.origin.get("studies")
    if studies is None:
        raise ValueError(
            f"{source.directory} has other folds, and its {RUN_NAME} does not list its studies: its weights "
            "may have been trained on studies that are held out here."
        )
    shared = sorted(set(studies) & set(run.folds))
    if shared:
        raise ValueError(
            "Weights of a run with other folds must be of other studies. "
            f"Received: {source.directory}, which shares {len(shared)} of {len(run.folds)} studies, "
            f"such as {shared[0]}."
        )
    named = _init_from(source.config, member)
    # The pretrained ensemble has seen synthetic studies only.
    ancestor = _find_source(Path(named), run) if named not in (None, PRETRAINED) else None
    if ancestor is not None:
        _require_other_studies(ancestor, run, member)


def _require_suitable(
    pretrained: PretrainedPlane, config: PlaneConfig, member: str, folds_sha256: str
) -> None:
    """Raises ValueError if the pretrained ensemble lacks the network or was trained on the same studies."""
    known = pretrained.config.localizer.backbone if pretrained.config.localizer else None
    wanted = config.localizer.backbone if member == LOCALIZER and config.localizer else member
    if not (wanted == known if member == LOCALIZER else wanted in pretrained.networks):
        raise ValueError(
            f"The backbone must be one that the pretrained ensemble has for {config.plane.value}: "
            f"{pretrained.describe_networks()}. "
            f"Received: {wanted} for {'the localizer' if member == LOCALIZER else 'a grader'}."
        )
    _require_same_network(pretrained.config, config, member, pretrained.version)
    if pretrained.folds_sha256 == folds_sha256:
        raise ValueError(
            "The pretrained ensemble must have been trained on other studies than those that are held out "
            f"here. Received: {pretrained.version}, which was trained on the same folds."
        )


def _require_same_network(source: PlaneConfig, config: PlaneConfig, member: str, origin: Path) -> None:
    """Raises ValueError for weights of the right shapes but of another network."""
    source_network = _network_of(source, member)
    for name, value in _network_of(config, member).items():
        if source_network.get(name) != value:
            raise ValueError(
                f"init_from must be of the same network: {member} of {config.plane.value} has {name} {value}."
                f" Received: {source_network.get(name)}, of {origin}."
            )


def _network_of(config: PlaneConfig, member: str) -> dict[str, object]:
    """Returns the settings that determine the meaning of a member's weights."""
    if member != LOCALIZER:
        return {"plane": config.plane.value, **_grader_network(config)}
    return {"plane": config.plane.value, **(_localizer_network(config.localizer) if config.localizer else {})}


def _grader_network(config: PlaneConfig) -> dict[str, object]:
    # Keras loads by class and order, and does not distinguish heads of the same shapes.
    grader = config.grader
    return {
        "targets": sorted(family.value for family in grader.targets),
        "auxiliary": sorted(family.value for family in grader.auxiliary),
        "both sides": CropLayout.of(config).is_sided,
        "mirror_right": grader.crop.mirror_right,
        "channels": grader.channels,
        "pooling": grader.pooling,
        "level_context": grader.level_context,
        "more than one slice": grader.crop.num_slices > 1,
    }


def _localizer_network(config: LocalizerConfig) -> dict[str, object]:
    return {"backbone": config.backbone, "decoder_channels": config.decoder_channels}


def _choose_fold(source: _Source, member: str, fold: int, *, has_same_folds: bool) -> Path:
    """Returns the weights of the same fold, or of any fold of a run with other studies."""
    same = source.directory / member / f"fold{fold}" / WEIGHTS_NAME
    if same.is_file():
        return same
    others = sorted((source.directory / member).glob(f"fold*/{WEIGHTS_NAME}"))
    if has_same_folds or not others:
        raise ValueError(f"init_from must contain finished weights of {member}. Received: none at {same}.")
    return others[fold % len(others)]
