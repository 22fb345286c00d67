"""A training grid on a Ray cluster that loses a machine."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lumbar_tf.config import dump_config
from lumbar_tf.train import TrainOptions, run_train
from tests.runners.ray_cluster import has_open_file, killed_once, start_cluster
from tests.trained_pipeline import TrainedPipeline

pytest.importorskip("ray", reason="the extra [ray] is not installed")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head without CPUs and one machine with one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(REPOSITORY))
        with start_cluster(num_nodes=1) as cluster:
            yield cluster


def _losses(run: Path) -> dict[str, list[tuple[float, float]]]:
    """Epochs and losses of every fold of a plane's run."""
    return {
        str(path.parent.relative_to(run)): [
            (row["epoch"], row["loss"]) for row in json.loads(path.read_text())
        ]
        for path in sorted(run.glob("*/fold*/history.json"))
    }


@pytest.mark.slow
def test_a_grid_that_loses_a_machine_is_finished(
    cluster: Any, trained_pipeline: TrainedPipeline, tmp_path: Path
) -> None:
    plane = trained_pipeline.config.planes[0]
    config = tmp_path / "config.yaml"
    config.write_text(dump_config(plane))
    doomed = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    runs = tmp_path / "runs"
    options = TrainOptions.model_validate(
        {
            "plane": plane.plane.value,
            "config": config,
            "records": trained_pipeline.out / "tfrecords",
            "runs": runs,
            "runner": "ray",
            "ray_address": cluster.address,
        }
    )
    # It trains while a file of its run is open.
    with killed_once(doomed, lambda: has_open_file(doomed, runs)):
        run_train(options)
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    # Two networks and two folds, each epoch once, whoever trained it. A localizer begins as it does without a
    # cluster; a grader depends on points that rounding has moved by then.
    run = runs / plane.plane.value
    losses, expected = _losses(run), _losses(trained_pipeline.out / "runs" / plane.plane.value)
    assert len(losses) == 4 and losses.keys() == expected.keys()
    for fold, rows in losses.items():
        assert [epoch for epoch, _ in rows] == [epoch for epoch, _ in expected[fold]], fold
        if fold.startswith("localizer/"):
            assert rows[0] == pytest.approx(expected[fold][0], rel=1e-4), fold
    for member, table in (("localizer", "error.json"), ("densenet_tiny", "oof.csv")):
        assert (run / member / table).is_file()
        record = json.loads((run / member / "run.json").read_text())
        assert record["is_complete"] and set(record["folds"]) == {"0", "1"}
