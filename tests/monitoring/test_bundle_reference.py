"""The reference of an export, from out-of-fold tables and records."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lumbar_tf.labels import FINDINGS, Plane
from lumbar_tf.monitoring.bundle_reference import image_rows, write_bundle_reference
from lumbar_tf.monitoring.reference import REFERENCE_PATH, find_reference, read_reference
from lumbar_tf.records.build import BuildMode, BuildTask, run_build_task
from lumbar_tf.records.manifest import BuildOptions, read_manifest
from lumbar_tf.tables.out_of_fold import write_out_of_fold_table
from tests.small_cohort import NUM_SLICES, write_small_cohort

NUM_STUDIES = 40


@pytest.fixture
def records(tmp_path_factory: pytest.TempPathFactory, write_dicom: Callable[..., Path]) -> Path:
    """Records of four small studies."""
    folder = tmp_path_factory.mktemp("records")
    write_small_cohort(folder / "cohort", ["901", "902", "903", "904"], write_dicom)
    run_build_task(
        BuildTask(
            sources=[folder / "cohort"],
            out=folder / "tfrecords",
            options=BuildOptions(studies_per_shard=2, num_folds=2, fold_seed=0),
            mode=BuildMode.OVERWRITE,
        )
    )
    return folder / "tfrecords"


@pytest.fixture
def tables(tmp_path: Path, records: Path) -> tuple[Path, list[Path], np.ndarray]:
    """A stack's table, two members' (the second without axial findings), and the stack's probabilities."""
    rng = np.random.default_rng(0)
    known = [study.study_id for study in read_manifest(records).studies]
    ids = [*known, *(f"x{number}" for number in range(NUM_STUDIES - len(known)))]
    stack, one, two = rng.dirichlet((1, 1, 1), (3, NUM_STUDIES, 25))
    two[:, 15:] = np.nan
    paths = [tmp_path / f"{name}.csv" for name in ("stack", "one", "two")]
    for path, values in zip(paths, (stack, one, two), strict=True):
        write_out_of_fold_table(path, ids, values)
    return paths[0], paths[1:], stack


def test_each_outputs_distribution_is_that_of_the_out_of_fold_rows(
    tables: tuple[Path, list[Path], np.ndarray], tmp_path: Path
) -> None:
    stack, members, values = tables
    version = tmp_path / "models" / "6"
    path = write_bundle_reference(version, 6, stack, members)
    assert path == find_reference(tmp_path / "models") == version / REFERENCE_PATH
    reference = read_reference(path)
    assert (reference.model, reference.made_from) == ("6", "40 studies out of fold")
    for row, finding in enumerate(FINDINGS):
        found = reference.distributions[f"probability/{finding.name}/severe"]
        assert found.median == pytest.approx(np.median(values[:, row, 2]), abs=1e-5)
        assert found.counts == (4,) * 10 + (0,)
    # One member alone disagrees with nobody.
    assert reference.distributions["disagreement/left_subarticular_stenosis"].counts[-1] == NUM_STUDIES
    assert reference.distributions["disagreement/spinal_canal_stenosis"].counts[-1] == 0


def test_images_are_those_of_the_records(
    tables: tuple[Path, list[Path], np.ndarray], tmp_path: Path, records: Path
) -> None:
    stack, members, _ = tables
    path = write_bundle_reference(tmp_path / "6", 6, stack, members, records=records)
    reference = read_reference(path)
    for plane in Plane:
        assert sum(reference.distributions[f"images/{plane.value}/present"].counts) == 4
    assert sum(reference.distributions[f"probability/{FINDINGS[0].name}/severe"].counts) == NUM_STUDIES
    rows = image_rows(records)
    assert set(rows) == {study.study_id for study in read_manifest(records).studies}
    assert {name for name in next(iter(rows.values())) if name.endswith("present")} == {
        f"images/{plane.value}/present" for plane in Plane
    }
    assert {row[f"images/{plane.value}/slices"] for row in rows.values() for plane in Plane} == {NUM_SLICES}
    assert len(image_rows(records, max_studies=2)) == 2
