"""The preview, on synthetic studies made on the spot."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from lumbar_tf.cli.command import UsageError
from lumbar_tf.config import AugmentationConfig, load_plane_config
from lumbar_tf.labels import Plane
from lumbar_tf.preview import PreviewOptions, run_preview
from lumbar_tf.records.build import BuildTask, run_build_task
from lumbar_tf.records.manifest import BuildOptions, read_manifest
from lumbar_tf.reports.augmentation_preview import collect_previews
from lumbar_tf.synthetic import CohortOptions, write_cohort
from lumbar_tf.tables.folds import FOLDS_NAME, read_folds
from lumbar_tf.training.runs import PlaneRun

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
SMALL = ("grader.crop.side_px=32", "grader.training.batch_studies=3")
AUGMENTATION = "grader.training.augmentation"


def _build(folder: Path) -> Path:
    options = BuildOptions(studies_per_shard=2, num_folds=2, fold_seed=0)
    run_build_task(BuildTask(sources=[folder / "cohort"], out=folder / "records", options=options))
    return folder / "records"


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records of four studies with annotated points, in two shards a plane."""
    folder = tmp_path_factory.mktemp("annotated")
    write_cohort(folder / "cohort", CohortOptions(num_studies=4, seed=3, severity_shift=1.0))
    return _build(folder)


def _run(records: Path, *overrides: str) -> PlaneRun:
    config = load_plane_config(CONFIGS / "axial_t2.yaml", overrides=[*SMALL, *overrides])
    manifest = read_manifest(records)
    return PlaneRun(
        config,
        records,
        records / "no_runs",
        manifest,
        read_folds(records / FOLDS_NAME, manifest.patient_groups),
    )


def test_without_augmentation_both_rows_are_the_same(records: Path) -> None:
    nothing = AugmentationConfig.nothing().model_dump_json()
    run = _run(records, "grader.jitter=0", f"{AUGMENTATION}={nothing}")
    previews = collect_previews(run, num_studies=4)
    assert len(previews) == 4
    for each in previews:
        np.testing.assert_array_equal(each.augmented.image, each.plain.image)
        np.testing.assert_array_equal(each.augmented.targets, each.plain.targets)
    sums = [each.plain.image.sum() for each in previews[:3]]
    assert len(set(sums)) == 3  # a batch holds a study once


def test_both_rows_are_the_same_study_and_only_one_is_changed(records: Path) -> None:
    mixed = collect_previews(_run(records, f"{AUGMENTATION}.mixup=0.5"), num_studies=2)
    assert len(mixed) == 2
    plain = np.stack([each.plain.targets for each in mixed])
    soft = np.stack([each.augmented.targets for each in mixed])
    assert np.isin(plain, (0, 1)).all()
    # A share of less than a half is the partner's picture: most stay what they were, and some are mixed.
    assert (soft[plain == 1] > 0.5).mean() > 0.6
    assert ((soft > 0.01) & (soft < 0.99)).any()
    for each in mixed:
        assert not np.array_equal(each.augmented.image, each.plain.image)


def test_the_command_draws_a_sheet_and_leaves_nothing_else(records: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheet" / "a.png"
    options = PreviewOptions(
        plane=Plane.SAGITTAL_T1,
        config=CONFIGS / "sagittal_t1.yaml",
        set=(*SMALL, f"{AUGMENTATION}.cutmix=0.5"),
        records=records,
        runs=tmp_path / "runs",
        num_studies=2,
        out=out,
    )
    drawn = run_preview(options)
    assert imread(out).std() > 0.05
    assert drawn.figures == {"studies": 2} and drawn.paths == {"picture": out}
    assert [each.name for each in tmp_path.rglob("*")] == ["sheet", "a.png"]


def test_another_planes_configuration_is_a_wrong_call(records: Path) -> None:
    with pytest.raises(UsageError, match="configures axial_t2"):
        run_preview(
            PreviewOptions(plane=Plane.SAGITTAL_T2, config=CONFIGS / "axial_t2.yaml", records=records)
        )


def test_without_any_point_there_is_nothing_to_show(records: Path, tmp_path: Path) -> None:
    shutil.copytree(records.parent / "cohort", tmp_path / "cohort")
    (tmp_path / "cohort" / "train_label_coordinates.csv").unlink()
    with pytest.raises(ValueError, match=r"annotated points .* or landmarks .*no_runs"):
        collect_previews(_run(_build(tmp_path)), num_studies=2)
