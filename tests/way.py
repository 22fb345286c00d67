"""The whole way on a handful of synthetic studies, trained for moments: for tests, not for scores."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import tensorflow as tf

from lumbar_tf.bundle.members import MemberPredictions, predict_members
from lumbar_tf.bundle.trained_ensemble import TrainedEnsemble, load_trained_ensemble
from lumbar_tf.config import DemoConfig, load_demo_config
from lumbar_tf.demo import (
    DemoOptions,
    Stopwatch,
    export_and_predict,
    make_cohorts,
    stack_members,
    train_members,
)
from lumbar_tf.dicom.sources.study_source import StudyFiles
from lumbar_tf.dicom.study import Study
from lumbar_tf.dicom.study_reader import read_study_files
from lumbar_tf.files import lock_file
from lumbar_tf.labels import Plane
from lumbar_tf.tables.series_descriptions import read_series_descriptions

_OVERRIDES = (
    "num_folds=2",
    "cohort.num_training=14",
    "cohort.num_held_out=2",
)
_PLANE_OVERRIDES = (
    "grader.backbones=[csp_darknet_narrow]",
    "grader.crop.side_px=32",
    "grader.training.epochs=8",
)
_LOCALIZER_OVERRIDES = ("localizer.side_px=64", "localizer.num_slices=5", "localizer.training.epochs=30")


@dataclass(frozen=True)
class Way:
    """What the whole way left on disk.

    Attributes:
        out: the demo's folder.
        config: what it was made with.
    """

    out: Path
    config: DemoConfig

    @property
    def model(self) -> Path:
        """The exported version."""
        return self.out / "models" / "1"

    def held_out_studies(self) -> list[Study]:
        """Reads the studies that no network was trained on from DICOM."""
        cohort = self.out / "held_out"
        return [read_study_of(cohort, each.name) for each in sorted((cohort / "train_images").iterdir())]

    def load_ensemble(self) -> TrainedEnsemble:
        """Loads all networks and the stacker, as an export does."""
        runs = self.out / "runs"
        return load_trained_ensemble(runs, runs / "stack" / "stacker.json")


def read_study_of(cohort: Path, study_id: str) -> Study:
    """Reads a study of a cohort of `write_cohort` from DICOM."""
    planes, _ = read_series_descriptions(cohort / "train_series_descriptions.csv")
    return read_study_files(StudyFiles(study_id, cohort / "train_images" / study_id), planes[study_id])


def ask_in_python(ensemble: TrainedEnsemble, examples: Sequence[Mapping[Plane, bytes]]) -> MemberPredictions:
    """Asks the members of studies, given by their planes' examples, without the export: Keras eagerly."""
    inputs = {plane: tf.constant([each.get(plane, b"") for each in examples]) for plane in Plane}
    return predict_members(ensemble.networks, ensemble.stacker.members, inputs)


def tiny_config(path: Path) -> DemoConfig:
    """Returns the demo's configuration, cut down to seconds."""
    overrides = list(_OVERRIDES)
    for place in range(3):
        overrides += [f"planes.{place}.{each}" for each in _PLANE_OVERRIDES]
    for place in range(2):
        overrides += [f"planes.{place}.{each}" for each in _LOCALIZER_OVERRIDES]
    return load_demo_config(path, overrides=overrides)


def go(out: Path, config: DemoConfig) -> Way:
    """Goes the whole way into an empty folder."""
    options, watch = DemoOptions(out=out, workers=1), Stopwatch()
    make_cohorts(config, options, watch)
    train_members(config, options, watch)
    stack_members(options, watch)
    export_and_predict(options, watch)
    return Way(out, config)


def go_once(tmp_path_factory: pytest.TempPathFactory) -> Way:
    """Returns the demo's way at its tiniest, gone once for all test files, whichever workers have them."""
    config = tiny_config(Path(__file__).resolve().parents[1] / "configs" / "demo.yaml")
    folder = tmp_path_factory.getbasetemp()
    # Each worker of pytest-xdist has a folder of its own below the session's.
    shared = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "shared_way"
    shared.mkdir(exist_ok=True)
    with lock_file(shared / "lock"):
        done = shared / "done"
        if not done.is_file():
            go(shared / "way", config)
            done.touch()
    return Way(shared / "way", config)
