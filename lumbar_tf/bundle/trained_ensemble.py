"""Trained ensemble: networks and stacker, loaded from the folders of their runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras

from lumbar_tf.config import PlaneConfig
from lumbar_tf.ensemble.prediction_sets import COVERAGE
from lumbar_tf.ensemble.stacker import StackerCoefficients
from lumbar_tf.ensemble.stacker_json import stacker_from_json
from lumbar_tf.ensemble.stacking_run import StackingRun, stack_tables
from lumbar_tf.inputs.crop_layout import CropLayout
from lumbar_tf.labels import Plane, parse_plane
from lumbar_tf.models.axial_localizer import build_axial_localizer
from lumbar_tf.models.fold_ensemble import FoldEnsemble, GraderFoldEnsemble
from lumbar_tf.models.grader import build_grader
from lumbar_tf.models.localizer import build_localizer
from lumbar_tf.tables.folds import FOLDS_NAME, read_fold_table
from lumbar_tf.tables.labels import read_label_tables
from lumbar_tf.tables.out_of_fold import read_out_of_fold_tables
from lumbar_tf.training.checkpoints import WEIGHTS_NAME
from lumbar_tf.training.runs import LOCALIZER, OOF_NAME, find_plane_configs


@dataclass(frozen=True, eq=False)
class PlaneNetworks:
    """The networks of one plane.

    Attributes:
        config: the plane's configuration.
        localizer: with the weights of all folds; None where axial T2 has no localizer of its own.
        graders: by backbone, with the weights of all folds.
    """

    config: PlaneConfig
    localizer: FoldEnsemble | None
    graders: dict[str, GraderFoldEnsemble]

    @property
    def layout(self) -> CropLayout:
        """The plane's crops."""
        return CropLayout.of(self.config)

    @property
    def fold_ensembles(self) -> list[FoldEnsemble]:
        """The localizer, if there is one, and the graders."""
        return [*([self.localizer] if self.localizer else []), *self.graders.values()]


@dataclass(frozen=True, eq=False)
class TrainedEnsemble:
    """Networks and stacker as trained, before export.

    Attributes:
        networks: by plane.
        stacker: of their members.
    """

    networks: dict[Plane, PlaneNetworks]
    stacker: StackerCoefficients


def load_trained_ensemble(runs: Path, stacker_path: Path) -> TrainedEnsemble:
    """Loads a stacker and its members from their runs.

    Raises:
        ValueError: the plane or the weights of a member are missing.
    """
    stacker = stacker_from_json(stacker_path.read_text(encoding="utf-8"))
    foreign = [member for member in stacker.members if "/" not in member]
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
        raise ValueError(f"{runs} must contain a run of {names}, which {stacker_path} stacks.")
    # A sagittal plane without a member still locates the levels for the axial one.
    wanted = [plane for plane in configs if plane in needed or _is_complete(runs, plane, configs[plane])]
    networks = {plane: load_networks(runs, configs[plane], stacker.members) for plane in wanted}
    return TrainedEnsemble(networks, stacker)


def _is_complete(runs: Path, plane: Plane, config: PlaneConfig) -> bool:
    """Returns whether a plane has a localizer and out-of-fold tables, whose crops used its points."""
    tables = [runs / plane.value / backbone / OOF_NAME for backbone in config.grader.backbones]
    return config.localizer is not None and all(path.is_file() for path in tables)


def load_networks(runs: Path, config: PlaneConfig, members: tuple[str, ...]) -> PlaneNetworks:
    """Builds a plane's networks and loads the weights of all trained folds.

    Args:
        runs: folder of all runs.
        config: the plane's configuration.
        members: names such as `sagittal_t2/mobilenet_v2`; those of other planes are ignored.

    Raises:
        ValueError: a member has no trained fold.
    """
    # Serving computes in float32, whatever precision training used.
    keras.config.set_dtype_policy("float32")
    layout = CropLayout.of(config)
    localizer = None
    if config.localizer is not None:
        model = (
            build_localizer(config.localizer, config.plane)
            if config.plane.is_sagittal
            else build_axial_localizer(config.localizer)
        )
        localizer = FoldEnsemble(model, _find_weights(runs, config.plane, LOCALIZER))
    graders = {
        backbone: GraderFoldEnsemble(
            build_grader(backbone, config.grader, layout), _find_weights(runs, config.plane, backbone), layout
        )
        for backbone in config.grader.backbones
        if f"{config.plane.value}/{backbone}" in members
    }
    return PlaneNetworks(config, localizer, graders)


def _find_weights(runs: Path, plane: Plane, member: str) -> list[Path]:
    paths = sorted((runs / plane.value / member).glob(f"fold*/{WEIGHTS_NAME}"))
    if not paths:
        raise ValueError(f"{plane.value}/{member} has no trained fold in {runs}. Run lumbar_tf.train first.")
    return paths


def stack_subset(
    runs: Path, members: Sequence[str], labels: Sequence[Path], stack: Path, *, coverage: float = COVERAGE
) -> StackingRun:
    """Fits a stacker to the out-of-fold tables of some of the members.

    Removing a member from a fitted stacker would not do: the weights of the others, and the calibration of
    the sum, were fitted together with it. The availability patterns of a stacker do not help either, because
    they are of sources (planes), not of members.

    Args:
        runs: folder of all runs.
        members: names such as `sagittal_t2/densenet_narrow`, at least one.
        labels: label tables in the layout of train.csv.
        stack: folder of the stacker of all members; its folds are used, if it has any.
        coverage: probability that a prediction set contains the reader's grade.

    Raises:
        ValueError: a member has no out-of-fold table, or is named twice.
    """
    if len(set(members)) < len(members):
        raise ValueError(f"Each member must be named once. Received: {', '.join(members)}.")
    tables = {f"{path.parent.parent.name}/{path.parent.name}": path for path in runs.glob(f"*/*/{OOF_NAME}")}
    unknown = [name for name in members if name not in tables]
    if unknown:
        raise ValueError(
            f"Members must have an out-of-fold table in {runs} ({', '.join(sorted(tables)) or 'none has'}). "
            f"Received: {', '.join(unknown)}."
        )
    study_ids, table = read_label_tables(labels)
    folds = stack / FOLDS_NAME
    return stack_tables(
        read_out_of_fold_tables([tables[name] for name in members]),
        study_ids,
        table,
        folds=read_fold_table(folds) if folds.is_file() else None,
        coverage=coverage,
    )
