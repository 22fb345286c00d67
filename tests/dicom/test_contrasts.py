"""The graded images of series with several contrasts, whatever the names, orders and numbers of files."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pydicom
import pytest

from lumbar_tf.dicom.reasons import ReasonKind
from lumbar_tf.dicom.sources.study_source import StudyFiles, read_source
from lumbar_tf.dicom.study import Study
from lumbar_tf.dicom.study_reader import read_study_files
from lumbar_tf.labels import Plane
from tests.dicom.made_contrasts import NUM_SLICES, STUDY, ContrastCase, list_cases, write_case

CASES = list(list_cases())


def _graded(study: Study) -> dict[Plane, set[tuple[float, int]]]:
    """Returns place and pixel value of every graded image, by plane."""
    axis = {Plane.AXIAL_T2: 2}
    return {
        plane: {(image.geometry.position[axis.get(plane, 0)], int(image.pixels[0, 0])) for image in slices}
        for plane, slices in study.planes.items()
    }


def _read(folder: Path, table: Mapping[str, Plane | None] = MappingProxyType({})) -> Study:
    return read_study_files(StudyFiles(STUDY, folder, tuple(sorted(folder.glob("*.dcm")))), table)


def test_there_are_many_combinations() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 60


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_right_images_are_graded_in_any_order(tmp_path: Path, case: ContrastCase, seed: int) -> None:
    study = _read(write_case(tmp_path, case, seed=seed))
    assert _graded(study) == case.answer()
    assert all(len(slices) == NUM_SLICES for slices in study.planes.values())
    # A sound series of several contrasts is no fault, and every image is in one of them.
    assert {reject.reason.kind for reject in study.rejects} <= {ReasonKind.CHOICE}
    assert sum(series.num_slices for series in study.series) == NUM_SLICES * len(case.groups)
    names = [(series.series_id, series.contrast) for series in study.series]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("is_enhanced", [False, True])
def test_a_listed_series_is_used_for_the_contrast_that_the_table_means(
    tmp_path: Path, is_enhanced: bool
) -> None:
    for case in CASES:
        if case.name.endswith("enhanced") is is_enhanced and case.answer() and "siemens" in case.name:
            (tmp_path / case.name).mkdir()
            folder = write_case(tmp_path / case.name, case, seed=3)
            listed = {f"{STUDY}.{group.series}": case.plane for group in case.groups if group.is_graded}
            others = {f"{STUDY}.{group.series}": None for group in case.groups}
            assert _graded(_read(folder, {**others, **listed})) == case.answer(), case.name


def test_the_choice_is_named_in_the_summary_and_in_the_rejects(tmp_path: Path) -> None:
    (case,) = (case for case in CASES if case.name == "dual_echo_with_phase-philips-classic")
    study = _read(write_case(tmp_path, case, seed=0))
    assert {series.contrast: (series.plane, series.reason) for series in study.series} == {
        "magnitude, TE 105 ms": (Plane.SAGITTAL_T2, ""),
        "magnitude, TE 15 ms": (None, "unknown_weighting"),
        "phase, TE 105 ms": (None, "derived"),
        "phase, TE 15 ms": (None, "derived"),
    }
    messages = [reject.message for reject in study.rejects if reject.message.startswith("phase, TE 15 ms: ")]
    assert len(messages) == 1 and "only the magnitude is graded" in messages[0]


def test_repeated_images_are_chosen_by_time_or_content_not_by_name_or_number(tmp_path: Path) -> None:
    (case,) = (case for case in CASES if case.name == "phase_only-siemens-classic")
    for seed, times in ((0, ("0900", "1000")), (1, ("0900", "1000")), (2, ("", "")), (3, ("", ""))):
        folder = tmp_path / str(seed)
        folder.mkdir()
        paths = sorted(write_case(folder, case, seed=seed).iterdir())
        for path in paths:
            dataset = pydicom.dcmread(path)
            dataset.ImageType, dataset.AcquisitionTime = ["ORIGINAL", "PRIMARY", "M"], times[0]
            dataset.save_as(path)
            dataset.AcquisitionTime, dataset.SOPInstanceUID = times[1], f"{dataset.SOPInstanceUID}.9"
            dataset.PixelData = (np.frombuffer(dataset.PixelData, "<u2") + 1000).astype("<u2").tobytes()
            dataset.InstanceNumber = 50 if seed % 2 else 0
            dataset.save_as(path.with_name(f"{'a' if seed % 2 else 'z'}{path.name}"))
    chosen = [_graded(_read(tmp_path / str(seed)))[Plane.SAGITTAL_T2] for seed in range(4)]
    assert chosen[0] == chosen[1] == {(5.0 * place, 100 + place) for place in range(NUM_SLICES)}
    assert chosen[2] == chosen[3]


#: Images with a mean above this are ramps that replace what must not be graded.
_RAMP_MEAN = 600.0


@pytest.fixture(scope="module")
def shared_cases(shared_data: Path) -> Path:
    folder = shared_data.parent / "cases" / "series"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    return folder


def _read_case(folder: Path) -> Study:
    with read_source(folder) as source:
        (files,) = source.studies
        return read_study_files(files)


@pytest.mark.parametrize("name", ["dual_echo_in_one", "phase_first", "dixon_four_sagittal", "body_part"])
def test_cases_are_graded_on_their_anatomy(shared_cases: Path, name: str) -> None:
    study = _read_case(shared_cases / name)
    assert {plane: len(slices) for plane, slices in study.planes.items()} == {
        Plane.SAGITTAL_T1: 11,
        Plane.SAGITTAL_T2: 11,
        Plane.AXIAL_T2: 25,
    }
    for image in study.planes[Plane.SAGITTAL_T2]:
        assert image.pixels.mean() < _RAMP_MEAN
    assert {reject.reason.kind for reject in study.rejects} <= {ReasonKind.CHOICE}


def test_a_real_dual_echo_is_graded_on_its_long_echo(shared_cases: Path) -> None:
    study = _read_case(shared_cases / "real_dual_echo")
    echo_times = {}
    for path in (shared_cases / "real_dual_echo").rglob("IM*"):
        dataset = pydicom.dcmread(path)
        echo_times[str(dataset.SOPInstanceUID)] = (float(dataset.EchoTime), dataset.pixel_array)
    assert set(study.planes) == {Plane.SAGITTAL_T2}
    assert len(study.planes[Plane.SAGITTAL_T2]) == sum(echo == 92.0 for echo, _ in echo_times.values())
    for image in study.planes[Plane.SAGITTAL_T2]:
        assert image.origin is not None
        echo, pixels = echo_times[image.origin.sop_instance_uid]
        assert echo == 92.0
        np.testing.assert_array_equal(image.pixels, pixels)


@pytest.mark.parametrize(
    "name", ["dual_echo_in_one", "phase_first", "dixon_four_sagittal", "real_dual_echo", "body_part"]
)
def test_names_order_and_numbers_of_files_do_not_decide(
    shared_cases: Path, tmp_path: Path, name: str
) -> None:
    expected = _identify(_read_case(shared_cases / name))
    paths = sorted(path for path in (shared_cases / name).rglob("*") if path.is_file())
    for seed in range(3):
        rng = np.random.default_rng(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        numbers, names = rng.permutation(len(paths)).tolist(), rng.permutation(len(paths)).tolist()
        for path, number, new_name in zip(paths, numbers, names, strict=True):
            dataset = pydicom.dcmread(path)
            dataset.InstanceNumber = number + 1
            dataset.save_as(folder / f"{new_name:04d}")
        assert _identify(_read_case(folder)) == expected


def _identify(study: Study) -> list[tuple[Plane, str, bytes]]:
    """Returns plane, UID and pixels of every graded image, in the order of the record."""
    return [
        (plane, image.origin.sop_instance_uid if image.origin else "", image.pixels.tobytes())
        for plane, slices in study.planes.items()
        for image in slices
    ]
