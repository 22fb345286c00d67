"""The options of `python -m lumbar_tf.train`, before any work starts."""

from pathlib import Path

import pytest

import lumbar_tf
from lumbar_tf.api.training import TrainingResult
from lumbar_tf.cli.command import UsageError
from lumbar_tf.labels import Plane
from lumbar_tf.runners import JobShare, Runner, run_jobs
from lumbar_tf.train import TrainOptions, resolve_config, run_train


def _options(**changes: object) -> TrainOptions:
    return TrainOptions.model_validate({"plane": "sagittal_t2", **changes})


@pytest.mark.parametrize(
    "flags", [{"ray_address": "auto"}, {"gpus_per_job": 1}, {"cpus_per_job": 4}], ids=lambda each: str(each)
)
def test_shares_of_a_cluster_need_ray(flags: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="--runner=ray"):
        run_train(_options(**flags))


def test_a_rays_job_has_the_share_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, object] = {}

    def train(config: object, **options: object) -> TrainingResult:
        given.update(options)
        return TrainingResult((Path("runs"),), (), (), (), Path("training.html"), ())

    monkeypatch.setattr(lumbar_tf, "train", train)
    weights = "mobilenet_v2:/a.weights.h5"
    run_train(_options(runner="ray", gpus_per_job="0.5", cpus_per_job="3", weights=weights))
    assert (given["runner"], given["cpus_per_job"], given["gpus_per_job"]) == ("ray", 3, 0.5)


def test_the_library_refuses_a_share_without_ray_too(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must come with runner='ray'"):
        lumbar_tf.train("sagittal_t2", records=tmp_path, runs=tmp_path, cpus_per_job=2)


@pytest.mark.parametrize("gpus", [-1, 1.5])
def test_a_share_that_no_machine_can_give_is_refused(gpus: float) -> None:
    with pytest.raises(ValueError, match="share"):
        JobShare(num_gpus=gpus)


def test_a_share_without_ray_is_a_fault_of_the_call() -> None:
    with pytest.raises(ValueError, match="ray runner"):
        list(run_jobs(str, [1], runner=Runner.LOCAL, share=JobShare()))


def test_other_machines_need_absolute_paths_of_weights() -> None:
    with pytest.raises(UsageError, match="absolute"):
        run_train(_options(runner="ray", weights="mobilenet_v2:a.weights.h5"))


def test_an_axial_localizer_takes_weights_only_where_there_is_one() -> None:
    path = Path(__file__).resolve().parents[1] / "configs" / "axial_t2.yaml"
    localizer = (
        "localizer={backbone: mobilenet_v2, side_mm: 64, side_px: 96, num_slices: 5, "
        "training: {epochs: 1, batch_studies: 1, learning_rate: 0.001}}"
    )
    flags = {"plane": "axial_t2", "config": path, "weights": "mobilenet_v2:a.weights.h5", "init_from": "b"}
    plain, located = (resolve_config(_options(**flags, set=each)) for each in ((), (localizer,)))
    assert plain.localizer is None
    assert located.localizer is not None
    assert located.localizer.training.weights == plain.grader.training.weights
    assert located.localizer.init_from == plain.grader.init_from == "b"


def test_flags_reach_the_configuration() -> None:
    path = Path(__file__).resolve().parents[1] / "configs" / "sagittal_t2.yaml"
    options = _options(
        config=path,
        backbone="mobilenet_v2",
        set=("grader.training.early_stopping={patience: 3}", "grader.training.jit_compile=true"),
    )
    config = resolve_config(options)
    assert config.plane is Plane.SAGITTAL_T2
    assert config.grader.backbones == ("mobilenet_v2",)
    stopping = config.grader.training.early_stopping
    assert stopping is not None and (stopping.patience, stopping.metric) == (3, "loss")
    assert config.grader.training.jit_compile
    assert config.localizer is not None and config.localizer.training.early_stopping is None
