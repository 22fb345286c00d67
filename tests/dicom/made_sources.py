"""Small valid sources as files: a slice, a series, a study, a disc, an export, the competition's layout."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.fileset import FileSet
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from lumbar_tf.labels import FINDINGS
from tests.dicom.made_files import SAGITTAL

GOOD_STUDY = "1001"
OTHER_STUDY = "1002"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
_ROWS, _COLUMNS = 12, 16
_GAP_MM = 5.0
#: Axis along which slices of an orientation are stacked.
_STACK_AXIS = {SAGITTAL: 0, AXIAL: 2, CORONAL: 1}
T1 = {"SeriesDescription": "T1", "EchoTime": 10.0, "RepetitionTime": 550.0}
T2 = {"SeriesDescription": "T2", "EchoTime": 100.0, "RepetitionTime": 3500.0}
_TABLE_HEADERS = {
    "train.csv": ",".join(["study_id", *(finding.name for finding in FINDINGS)]),
    "train_series_descriptions.csv": "study_id,series_id,series_description",
    "train_label_coordinates.csv": "study_id,series_id,instance_number,condition,level,x,y",
}


def write_slice(
    path: Path, place_mm: float, *, orientation: Sequence[float] = SAGITTAL, number: int = 1, **tags: Any
) -> Path:
    """Writes one small uncompressed MR slice. `tags` are DICOM keywords; None omits a tag."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
    study, series = tags.pop("study", GOOD_STUDY), tags.pop("series", "1")
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, f"{study}.{series}"
    dataset.SOPInstanceUID = tags.pop("sop", f"{study}.{series}.{number}")
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.PatientID, dataset.Modality, dataset.InstanceNumber = f"p{study}", "MR", number
    position = [-6.0, -8.0, 6.0]
    position[_STACK_AXIS.get(tuple(orientation), 0)] = place_mm
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = position, list(orientation)
    dataset.PixelSpacing = [1.0, 1.0]
    dataset.Rows, dataset.Columns = tags.pop("shape", (_ROWS, _COLUMNS))
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    pixels = np.random.default_rng(number).integers(0, 4096, (dataset.Rows, dataset.Columns))
    dataset.PixelData = pixels.astype("<u2").tobytes()
    for keyword, value in tags.items():
        if value is not None:
            setattr(dataset, keyword, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_series(
    folder: Path, *, count: int = 7, orientation: Sequence[float] = SAGITTAL, series: str = "1", **tags: Any
) -> list[Path]:
    """Writes an even stack `<series>/<number>.dcm`, with gaps of 5 mm, centred on the origin."""
    return [
        write_slice(
            folder / series / f"{number}.dcm",
            _GAP_MM * (number - (count + 1) / 2),
            orientation=orientation,
            number=number,
            series=series,
            **tags,
        )
        for number in range(1, count + 1)
    ]


def write_study(folder: Path, study: str = GOOD_STUDY) -> Path:
    """Writes a valid study: series 1 sagittal T1, 2 sagittal T2, 3 axial T2."""
    write_series(folder, series="1", study=study, **T1)
    write_series(folder, series="2", study=study, **T2)
    write_series(folder, series="3", study=study, orientation=AXIAL, **T2)
    return folder


def write_disc(root: Path, *, files: Path) -> Path:
    """Writes a disc of three images and their DICOMDIR by pydicom, from slices in `files`."""
    disc = FileSet()
    for number in (1, 2, 3):
        path = write_slice(
            files / f"{number}.dcm",
            number * 5.0,
            number=number,
            study="1.2.3",
            **T2,
            PatientName="Doe",
            StudyDate="20240101",
            StudyTime="101500",
            StudyID="1",
            SeriesNumber=1,
        )
        disc.add(path)
    disc.write(root)
    return root


def write_export(root: Path, *more: str) -> Path:
    """Writes an export without tables: the valid study and others, one folder each."""
    for study in (GOOD_STUDY, *more):
        write_study(root / study, study)
    return root


def write_competition(root: Path, **rows: Sequence[str]) -> Path:
    """Writes both studies in the competition's layout; `rows` are added to the tables of that stem."""
    lines = {name: [header] for name, header in _TABLE_HEADERS.items()}
    for study in (GOOD_STUDY, OTHER_STUDY):
        write_study(root / "train_images" / study, study)
        lines["train.csv"].append(",".join([study, *["Moderate"] * len(FINDINGS)]))
        for series, description in enumerate(("Sagittal T1", "Sagittal T2/STIR", "Axial T2"), start=1):
            lines["train_series_descriptions.csv"].append(f"{study},{series},{description}")
        lines["train_label_coordinates.csv"].append(f"{study},2,4,Spinal Canal Stenosis,L1/L2,8,3")
    for name, table in lines.items():
        table.extend(rows.get(name.removesuffix(".csv"), ()))
        (root / name).write_text("\n".join(table) + "\n")
    return root
