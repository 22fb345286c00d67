"""Every bad input of both tables through a whole build: its reason is in the manifest, the rest goes on."""

import warnings
from pathlib import Path

import pytest

from lumbar_tf.dicom.reasons import ReasonKind, RejectReason
from lumbar_tf.records.build import BuildTask, run_build_task
from lumbar_tf.records.manifest import BuildOptions, read_manifest
from tests.dicom.file_faults import FILE_FAULTS
from tests.dicom.made_sources import GOOD_STUDY, write_export
from tests.dicom.source_damage import SourceFault
from tests.dicom.source_faults import SOURCE_FAULTS

OPTIONS = BuildOptions(studies_per_shard=2, num_folds=1, fold_seed=0)


def test_all_bad_files_at_once_are_listed_each_with_its_reason(tmp_path: Path) -> None:
    root = write_export(tmp_path / "data")
    series = root / GOOD_STUDY / "1"
    good = (series / "4.dcm").read_bytes()
    expected = {}
    for number, fault in enumerate(FILE_FAULTS, start=100):
        (series / f"{number}.dcm").write_bytes(fault.make(good))
        expected[f"{number}.dcm"] = fault.reason.value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        manifest = run_build_task(BuildTask(sources=[root], out=tmp_path / "out", options=OPTIONS))
    found = {each.file_name: each.reason for each in manifest.rejects if each.file_name}
    assert set(found) == set(expected)
    # All are copies of one image, and those after the first sound one are not decoded. Each fault on
    # its own has its reason (`test_file_faults.py`).
    others = {name: reason for name, reason in found.items() if reason != expected[name]}
    assert set(others.values()) <= {RejectReason.DUPLICATE_INSTANCE.value}
    assert len(others) < len(expected) / 4
    (study,) = manifest.studies
    assert study.num_slices == {"sagittal_t1": 7, "sagittal_t2": 7, "axial_t2": 7}


@pytest.mark.parametrize("fault", SOURCE_FAULTS, ids=lambda fault: fault.name)
def test_a_bad_source_is_listed_and_fatal_only_under_strict(tmp_path: Path, fault: SourceFault) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sources = fault.write(tmp_path / "in")
        manifest = run_build_task(BuildTask(sources=sources, out=tmp_path / "out", options=OPTIONS))
        assert fault.reason.value in {each.reason for each in manifest.rejects}
        assert {each.study_id for each in manifest.studies} >= {GOOD_STUDY}
        assert read_manifest(tmp_path / "out") == manifest
        strict = BuildTask(sources=sources, out=tmp_path / "strict", options=OPTIONS, is_strict=True)
        if {RejectReason(each.reason).kind for each in manifest.rejects} == {ReasonKind.CHOICE}:
            run_build_task(strict)
        else:
            with pytest.raises(ValueError, match="--strict"):
                run_build_task(strict)


def test_there_are_enough_of_them() -> None:
    reasons = {each.reason for each in (*FILE_FAULTS, *SOURCE_FAULTS)}
    assert len(FILE_FAULTS) + len(SOURCE_FAULTS) >= 45
    # What only a missing library can cause is shown beside the decoder that needs it.
    assert set(RejectReason) - reasons == {RejectReason.DECODER_REFUSED}
