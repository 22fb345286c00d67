"""Starting from another run's weights, without having seen what they will be tested on.

Out-of-fold tables mean something only if no weights of a fold ever saw its held-out studies. So of a run with
the same folds the same fold's weights are taken, of a run on other studies any, and every other run is
refused. Studies are told apart by their id: that one person is in both under two ids cannot be seen here.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lumbar_tf.config import LocalizerConfig, PlaneConfig, load_plane_config
from lumbar_tf.inputs.crop_layout import CropLayout
from lumbar_tf.training.runs import LOCALIZER, RUN_NAME, WEIGHTS_NAME, PlaneRun

_CONFIG_NAME = "config.yaml"


@dataclass(frozen=True)
class _Source:
    """Another run of the plane.

    Attributes:
        directory: of the plane, `RUNS/<plane>`.
        origin: its `run.json`.
        config: its configuration.
    """

    directory: Path
    origin: dict[str, Any]
    config: PlaneConfig

    @classmethod
    def read(cls, directory: Path) -> "_Source":
        """Reads what a folder says of its run."""
        origin = json.loads((directory / RUN_NAME).read_text(encoding="utf-8"))
        return cls(directory, origin, load_plane_config(directory / _CONFIG_NAME))


def initial_weights(run: PlaneRun, member: str, fold: int) -> Path | None:
    """Returns the weights that one fold of a member starts from.

    `init_from` of the member's configuration is another run's folder (`RUNS` or `RUNS/<plane>`), or a file
    of weights. A file outside of a run is taken as it is: what it has seen is known to whoever names it.

    Args:
        run: the run that is about to train.
        member: `LOCALIZER` or a backbone's name; the other run must have the same.
        fold: that is held out.

    Returns:
        A `.weights.h5` file for `models.pretrained.load_initial`; None where the configuration names none.

    Raises:
        ValueError: there is nothing, its network is another, or its weights saw (or may have seen) studies of
            the held-out fold.
    """
    named = _init_from(run.config, member)
    if named is None:
        return None
    init_from = Path(named)
    source = _find_source(init_from, run)
    if source is None:
        return init_from
    _require_same_network(source, run.config, member)
    own = json.loads((run.directory / RUN_NAME).read_text(encoding="utf-8"))
    has_same_folds = source.origin.get("folds_sha256") == own["folds_sha256"]
    if not has_same_folds:
        _require_other_studies(source, run, member)
    if init_from.is_file():
        if has_same_folds and _fold_folder(source, init_from) != f"fold{fold}":
            raise ValueError(
                f"Weights of a run with the same folds must be those of the same fold, {fold}; others have "
                f"seen its held-out studies. Received: {init_from}. Name the run's folder instead."
            )
        return init_from
    return _choose_fold(source, member, fold, has_same_folds=has_same_folds)


def _init_from(config: PlaneConfig, member: str) -> str | None:
    network = config.localizer if member == LOCALIZER else config.grader
    return network.init_from if network is not None else None


def _find_source(init_from: Path, run: PlaneRun) -> _Source | None:
    """Returns the run that a folder is, or that a file lies in; None for a file outside of any."""
    if init_from.is_file():
        # RUNS/<plane>/<member>/fold<k>/weights.weights.h5, or deeper, as the first of two steps leaves its
        # own. A member's folder holds a run.json, too, and no configuration.
        candidates = list(init_from.resolve().parents)
    elif init_from.is_dir():
        candidates = [init_from / run.config.plane.value, init_from]
    else:
        raise ValueError(f"init_from must be a run's folder or a file of weights. Received: {init_from}.")
    for directory in candidates:
        if (directory / RUN_NAME).is_file() and (directory / _CONFIG_NAME).is_file():
            if directory.resolve() == run.directory.resolve():
                raise ValueError(f"init_from must be another run than the one that trains, {run.directory}.")
            return _Source.read(directory)
    if init_from.is_file():
        return None
    raise ValueError(
        f"init_from must hold a run of {run.config.plane.value} ({RUN_NAME}). Received: {init_from}."
    )


def _fold_folder(source: _Source, path: Path) -> str:
    """Returns the name of the fold's folder that a file of a run lies in; one beside them has none."""
    # <member>/fold<k>/...
    _, *inside = path.resolve().relative_to(source.directory.resolve()).parts
    return inside[0] if inside else ""


def _require_other_studies(source: _Source, run: PlaneRun, member: str) -> None:
    """Refuses weights that saw, themselves or by way of those that they started from, studies of the run."""
    studies = source.origin.get("studies")
    if studies is None:
        raise ValueError(
            f"{source.directory} has other folds, and its {RUN_NAME} does not say which studies it saw: "
            "its weights may have seen those that are held out here."
        )
    shared = sorted(set(studies) & set(run.folds))
    if shared:
        raise ValueError(
            "Weights of a run with other folds must be of other studies. "
            f"Received: {source.directory}, which shares {len(shared)} of {len(run.folds)} studies, "
            f"such as {shared[0]}."
        )
    named = _init_from(source.config, member)
    ancestor = _find_source(Path(named), run) if named is not None else None
    if ancestor is not None:
        _require_other_studies(ancestor, run, member)


def _require_same_network(source: _Source, config: PlaneConfig, member: str) -> None:
    """Refuses weights that would fit by their shapes and mean something else."""
    theirs = _network_of(source.config, member)
    ours = _network_of(config, member)
    for name, value in ours.items():
        if theirs.get(name) != value:
            raise ValueError(
                f"init_from must be of the same network: {member} of {config.plane.value} has {name} {value}."
                f" Received: {theirs.get(name)}, of {source.directory}."
            )


def _network_of(config: PlaneConfig, member: str) -> dict[str, object]:
    """Returns what makes the weights of a member what they are."""
    if member != LOCALIZER:
        return {"plane": config.plane.value, **_grader_network(config)}
    return {"plane": config.plane.value, **(_localizer_network(config.localizer) if config.localizer else {})}


def _grader_network(config: PlaneConfig) -> dict[str, object]:
    # Keras loads by class and order: two heads of the same shapes are the same to it.
    grader = config.grader
    return {
        "targets": sorted(each.value for each in grader.targets),
        "auxiliary": sorted(each.value for each in grader.auxiliary),
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
    """Returns the same fold's weights; of a run on other studies any fold's will do."""
    same = source.directory / member / f"fold{fold}" / WEIGHTS_NAME
    if same.is_file():
        return same
    others = sorted((source.directory / member).glob(f"fold*/{WEIGHTS_NAME}"))
    if has_same_folds or not others:
        raise ValueError(f"init_from must hold finished weights of {member}. Received none at {same}.")
    return others[fold % len(others)]
