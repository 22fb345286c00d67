"""Runs without records."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lumbar_tf.config import PlaneConfig
from lumbar_tf.records.manifest import BuildOptions, Manifest, Shard, StudyEntry, write_manifest
from lumbar_tf.records.schema import SCHEMA_VERSION
from lumbar_tf.training.runs import PlaneRun, open_run


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., PlaneRun]:
    """Opens a run with its own records and folds: `start("name", folds, config)`."""

    def build(name: str, folds: dict[str, int], config: PlaneConfig) -> PlaneRun:
        folder = tmp_path / name
        folder.mkdir()
        studies = tuple(
            StudyEntry(study_id=study, patient_group=study, source_digest="", num_slices={})
            for study in folds
        )
        shard = Shard(
            file=f"{config.plane.value}/a.tfrecord",
            num_examples=len(folds),
            size_bytes=1,
            sha256="",
            study_ids=tuple(folds),
        )
        options = BuildOptions(studies_per_shard=1, num_folds=3, fold_seed=0)
        planes = {config.plane.value: (shard,)}
        write_manifest(
            folder,
            Manifest(
                schema_version=SCHEMA_VERSION,
                packages={},
                options=options,
                planes=planes,
                studies=studies,
                rejects=(),
            ),
        )
        rows = "".join(f"{study},{fold}\n" for study, fold in folds.items())
        (folder / "folds.csv").write_text("study_id,fold_id\n" + rows)
        return open_run(config, records=folder, runs=folder / "runs")

    return build
