"""A training grid on a Ray cluster that loses a machine."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lumbar_tf.records.build import BuildTask, run_build_task
from lumbar_tf.records.manifest import BuildOptions
from lumbar_tf.synthetic.cohort import CohortOptions, write_cohort
from lumbar_tf.train import TrainOptions, run_train
from tests.runners.ray_cluster import has_open_file, killed_once, start_cluster

pytest.importorskip("ray", reason="the extra [ray] is not installed")

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIG = """
plane: sagittal_t2
localizer:
  backbone: csp_darknet_narrow
  side_px: 32
  supersample: 1
  num_slices: 1
  decoder_channels: 8
  training: &training
    {epochs: 3, batch_studies: 2, learning_rate: 0.001, validate_every: 0, board_pictures: false}
grader:
  backbones: [csp_darknet_narrow]
  targets: [canal]
  crop: {side_mm: 45, side_px: 16, num_slices: 1}
  training: *training
"""


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head without CPUs and one machine with one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(REPOSITORY))
        with start_cluster(num_nodes=1) as cluster:
            yield cluster


def _losses(runs: Path) -> dict[str, list[tuple[float, float]]]:
    return {
        str(path.parent.relative_to(runs)): [
            (row["epoch"], row["loss"]) for row in json.loads(path.read_text())
        ]
        for path in sorted(runs.glob("*/*/fold*/history.json"))
    }


@pytest.mark.slow
def test_a_grid_that_loses_a_machine_is_finished(cluster: Any, tmp_path: Path) -> None:
    write_cohort(tmp_path / "cohort", CohortOptions(num_studies=4, seed=3))
    run_build_task(
        BuildTask(
            sources=[tmp_path / "cohort"],
            out=tmp_path / "tfrecords",
            options=BuildOptions(studies_per_shard=4, num_folds=2, fold_seed=0),
        )
    )
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG)
    doomed = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    runs = tmp_path / "runs"
    options = TrainOptions.model_validate(
        {
            "plane": "sagittal_t2",
            "config": config,
            "records": tmp_path / "tfrecords",
            "runs": runs,
            "runner": "ray",
            "ray_address": cluster.address,
        }
    )
    # It trains while a file of its run is open.
    with killed_once(doomed, lambda: has_open_file(doomed, runs)):
        run_train(options)
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    # Two networks and two folds, each epoch once, whoever trained it.
    losses = _losses(runs)
    assert len(losses) == 4
    assert all([epoch for epoch, _ in rows] == [1.0, 2.0, 3.0] for rows in losses.values())
    for member, table in (("localizer", "error.json"), ("csp_darknet_narrow", "oof.csv")):
        folder = runs / "sagittal_t2" / member
        assert (folder / table).is_file()
        record = json.loads((folder / "run.json").read_text())
        assert record["is_complete"] and set(record["folds"]) == {"0", "1"}
