"""Fixtures: studies as a scanner sends them, and an Orthanc server."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import MRImageStorage

from tests.interop import hospital
from tests.interop.orthanc import Orthanc, make_orthanc
from tests.small_cohort import write_small_cohort

#: StudyInstanceUIDs of two small studies.
STUDIES = ("1234567801", "1234567802")


@pytest.fixture
def small_studies(tmp_path: Path, write_dicom: Callable[..., Path]) -> dict[str, list[Path]]:
    """Returns the files of two studies with twelve images, by StudyInstanceUID."""
    folder = write_small_cohort(tmp_path / "cohort", STUDIES, write_dicom)
    found = {uid: sorted((folder / "train_images" / uid).rglob("*.dcm")) for uid in STUDIES}
    for paths in found.values():
        for path in paths:
            complete(path)
    return found


def complete(path: Path) -> None:
    """Adds the attributes that the competition's files lack."""
    dataset = pydicom.dcmread(path)
    dataset.Modality, dataset.StudyDescription = "MR", "MRT LWS"
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
    is_axial = abs(float(dataset.ImageOrientationPatient[0])) > 0.5
    is_t1 = str(dataset.SeriesInstanceUID).startswith("1") and not is_axial
    dataset.SeriesDescription = "T1 SAG" if is_t1 else "T2 TRA" if is_axial else "T2 SAG"
    dataset.save_as(path, enforce_file_format=True)


@pytest.fixture(scope="session")
def hospital_disc(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Returns the files of a hospital's lumbar and cervical studies, with an Enhanced series."""
    folder = tmp_path_factory.mktemp("hospital") / "disc"
    hospital.write_hospital_export(folder)
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and pydicom.misc.is_dicom(path)
            and path.name != "DICOMDIR"]  # fmt: skip


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    """Yields a running server without studies."""
    server = make_orthanc(tmp_path / "orthanc")
    server.start()
    try:
        yield server
    finally:
        server.stop()
