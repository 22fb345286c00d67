"""The demo's stages on a handful of synthetic studies, trained for moments: for tests, not for scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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
from lumbar_tf.labels import Plane
from lumbar_tf.tables.series_descriptions import read_series_descriptions
from tests.session_folders import REPOSITORY, make_once

_OVERRIDES = (
    "num_folds=2",
    "cohort.num_training=14",
    "cohort.num_held_out=2",
)
_PLANE_OVERRIDES = (
    "grader.backbones=[densenet_tiny]",
    "grader.crop.side_px=32",
    "grader.training.epochs=8",
)
_LOCALIZER_OVERRIDES = (
    "localizer.backbone=densenet_tiny",
    "localizer.side_px=64",
    "localizer.num_slices=5",
    "localizer.training.epochs=30",
)


@dataclass(frozen=True)
class TrainedPipeline:
    """Files that all stages of the demo left on disk.

    Attributes:
        out: the demo's folder.
        config: its configuration.
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
        return [read_study_of(cohort, path.name) for path in sorted((cohort / "train_images").iterdir())]

    def load_ensemble(self) -> TrainedEnsemble:
        """Loads all networks and the stacker, as an export does."""
        runs = self.out / "runs"
        return load_trained_ensemble(runs, runs / "stack" / "stacker.json")


def read_study_of(cohort: Path, study_id: str) -> Study:
    """Reads a study of a cohort of `write_cohort` from DICOM."""
    planes, _ = read_series_descriptions(cohort / "train_series_descriptions.csv")
    return read_study_files(StudyFiles(study_id, cohort / "train_images" / study_id), planes[study_id])


def predict_in_python(
    ensemble: TrainedEnsemble, examples: Sequence[Mapping[Plane, bytes]]
) -> MemberPredictions:
    """Runs the members on studies, given by their planes' examples, without the export: Keras eagerly."""
    inputs = {plane: tf.constant([study.get(plane, b"") for study in examples]) for plane in Plane}
    return predict_members(ensemble.networks, ensemble.stacker.members, inputs)


def tiny_config() -> DemoConfig:
    """Returns the demo's configuration, cut down to seconds."""
    overrides = list(_OVERRIDES)
    for place in range(3):
        overrides += [f"planes.{place}.{override}" for override in _PLANE_OVERRIDES]
    for place in range(2):
        overrides += [f"planes.{place}.{override}" for override in _LOCALIZER_OVERRIDES]
    return load_demo_config(REPOSITORY / "configs" / "demo.yaml", overrides=overrides)


def run_pipeline(out: Path, config: DemoConfig) -> None:
    """Runs all stages into an empty folder."""
    options, watch = DemoOptions(out=out, workers=1), Stopwatch()
    make_cohorts(config, options, watch)
    train_members(config, options, watch)
    stack_members(options, watch)
    export_and_predict(options, watch)


def load_trained_pipeline() -> TrainedPipeline:
    """Returns the pipeline of `tiny_config`, trained once for the sources that the package has now."""
    config = tiny_config()
    out = make_once(
        "trained_pipeline", lambda folder: run_pipeline(folder, config), sources=[Path(__file__).resolve()]
    )
    return TrainedPipeline(out, config)
