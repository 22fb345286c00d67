from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbar_tf.dicom.reasons import Reject, RejectReason
from lumbar_tf.labels import Plane
from lumbar_tf.records.manifest import (
    BuildOptions,
    Manifest,
    RejectEntry,
    Shard,
    StudyEntry,
    is_synthetic_folder,
    package_versions,
    read_manifest,
    write_manifest,
)
from lumbar_tf.records.patients import group_patients


@pytest.fixture
def manifest() -> Manifest:
    shard = Shard(
        file="sagittal_t2/part-00000.tfrecord", sha256="ab", size_bytes=9, num_examples=1, study_ids=("1",)
    )
    return Manifest(
        schema_version="2.0.0",
        packages=package_versions(),
        options=BuildOptions(studies_per_shard=1, num_folds=1, fold_seed=0),
        planes={"sagittal_t2": (shard,)},
        studies=(
            StudyEntry(study_id="1", patient_group="1", source_digest="cd", num_slices={"sagittal_t2": 3}),
        ),
        rejects=(RejectEntry.of(Reject("1", "2", "3.dcm", RejectReason.COLOUR, "not grey")),),
    )


def test_what_is_written_is_read(tmp_path: Path, manifest: Manifest) -> None:
    path = write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == read_manifest(path) == manifest
    assert manifest.shard_paths(tmp_path, Plane.SAGITTAL_T2) == [
        tmp_path / "sagittal_t2" / "part-00000.tfrecord"
    ]
    assert manifest.shard_paths(tmp_path, Plane.AXIAL_T2) == []


@pytest.mark.parametrize(
    ("version", "is_read"), [("2.9.3", True), ("1.0.0", False), ("3.0.0", False), ("20.0.0", False)]
)
def test_another_major_version_is_refused(
    tmp_path: Path, manifest: Manifest, version: str, is_read: bool
) -> None:
    write_manifest(tmp_path, manifest.model_copy(update={"schema_version": version}))
    if is_read:
        assert read_manifest(tmp_path).schema_version == version
    else:
        with pytest.raises(ValueError, match=version):
            read_manifest(tmp_path)


def test_absent_and_damaged_manifests_are_refused(tmp_path: Path, manifest: Manifest) -> None:
    with pytest.raises(ValueError, match="did not finish"):
        read_manifest(tmp_path)
    path = write_manifest(tmp_path, manifest)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(ValueError, match="no manifest"):
        read_manifest(tmp_path)


@given(st.dictionaries(st.text(min_size=1, max_size=3), st.sampled_from(["", "p", "q"])))
def test_groups_join_exactly_the_studies_of_a_patient(patient_ids: dict[str, str]) -> None:
    groups = group_patients(patient_ids)
    assert set(groups) == set(patient_ids)
    for study, patient in patient_ids.items():
        members = [each for each in patient_ids if patient and patient_ids[each] == patient] or [study]
        assert groups[study] == min(members)


def test_only_the_manifest_of_synthetic_records_has_the_field(tmp_path: Path, manifest: Manifest) -> None:
    path = write_manifest(tmp_path, manifest)
    assert "is_synthetic" not in path.read_text()
    assert not is_synthetic_folder(tmp_path)
    write_manifest(tmp_path, manifest.model_copy(update={"is_synthetic": True}))
    assert read_manifest(tmp_path).is_synthetic and is_synthetic_folder(tmp_path)
