"""What can be wrong with series, studies, sources and tables: one small source for each, and its reason.

Every source holds the sound study `GOOD_STUDY` besides what is wrong, so that a test can see the rest go on.
"""

import os
import stat
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.fileset import FileSet
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from lumbar_tf.imaging.reasons import RejectReason
from lumbar_tf.labels import FINDINGS

GOOD_STUDY = "1001"
OTHER_STUDY = "1002"
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
_ROWS, _COLUMNS = 12, 16
_GAP_MM = 5.0
#: Along which axis slices of an orientation are stacked.
_STACK_AXIS = {SAGITTAL: 0, AXIAL: 2, CORONAL: 1}
_T1 = {"SeriesDescription": "T1", "EchoTime": 10.0, "RepetitionTime": 550.0}
_T2 = {"SeriesDescription": "T2", "EchoTime": 100.0, "RepetitionTime": 3500.0}
_TABLE_HEADERS = {
    "train.csv": ",".join(["study_id", *(each.name for each in FINDINGS)]),
    "train_series_descriptions.csv": "study_id,series_id,series_description",
    "train_label_coordinates.csv": "study_id,series_id,instance_number,condition,level,x,y",
}


@dataclass(frozen=True)
class SourceFault:
    """One thing that can be wrong.

    Attributes:
        name: says what.
        reason: what the system should make of it.
        write: writes sources into an empty folder and returns their roots.
    """

    name: str
    reason: RejectReason
    write: Callable[[Path], tuple[Path, ...]]


def write_slice(
    path: Path, place_mm: float, *, orientation: Sequence[float] = SAGITTAL, number: int = 1, **tags: Any
) -> Path:
    """Writes one small uncompressed MR slice. `tags` are DICOM keywords; None leaves one out."""
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
    """Writes an even stack `<series>/<number>.dcm`, 5 mm from slice to slice and about the origin."""
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
    """Writes a sound study: series 1 sagittal T1, 2 sagittal T2, 3 axial T2."""
    write_series(folder, series="1", study=study, **_T1)
    write_series(folder, series="2", study=study, **_T2)
    write_series(folder, series="3", study=study, orientation=AXIAL, **_T2)
    return folder


def write_export(root: Path, *more: str) -> Path:
    """Writes an export without tables: the good study and others, a folder each."""
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


def _extra_series(**tags: Any) -> Callable[[Path], tuple[Path, ...]]:
    """A second study with one series more, which the tags make odd."""

    def write(folder: Path) -> tuple[Path, ...]:
        root = write_export(folder / "export", OTHER_STUDY)
        write_series(root / OTHER_STUDY, **{"series": "9", "study": OTHER_STUDY, **_T2, **tags})
        return (root,)

    return write


def _odd_slices(*slices: dict[str, Any], plane: Sequence[float] = SAGITTAL) -> Callable[[Path], Any]:
    """A second study that holds one T2 series, of slices as given (`place_mm`, `number`, tags)."""

    def write(folder: Path) -> tuple[Path, ...]:
        root = write_export(folder / "export")
        for index, each in enumerate(slices, start=1):
            values = {"study": OTHER_STUDY, "orientation": plane, "number": index, **_T2, **each}
            write_slice(root / OTHER_STUDY / "1" / f"{index}.dcm", sop=f"{OTHER_STUDY}.1.{index}", **values)
        return (root,)

    return write


def _places(*places_mm: float) -> list[dict[str, Any]]:
    return [{"place_mm": each} for each in places_mm]


def _tables(**rows: Sequence[str]) -> Callable[[Path], tuple[Path, ...]]:
    return lambda folder: (write_competition(folder / "data", **rows),)


def _in_export(change: Callable[[Path], object]) -> Callable[[Path], tuple[Path, ...]]:
    """The good study, and something done to the export's folder."""

    def write(folder: Path) -> tuple[Path, ...]:
        root = write_export(folder / "export")
        change(root)
        return (root,)

    return write


def _in_competition(change: Callable[[Path], object]) -> Callable[[Path], tuple[Path, ...]]:
    """Both studies in the competition's layout, and something done to the folder of images."""

    def write(folder: Path) -> tuple[Path, ...]:
        root = write_competition(folder / "data")
        change(root / "train_images")
        return (root,)

    return write


def _beside_zip(pack: Callable[[zipfile.ZipFile], object]) -> Callable[[Path], tuple[Path, ...]]:
    """A sound source, and a zip with something in it."""

    def write(folder: Path) -> tuple[Path, ...]:
        root = write_export(folder / "export")
        with zipfile.ZipFile(folder / "7.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            pack(archive)
        return (root, folder / "7.zip")

    return write


def _cut_zip(folder: Path) -> tuple[Path, ...]:
    sources = _beside_zip(lambda archive: archive.writestr("1/1.dcm", bytes(5000)))(folder)
    sources[1].write_bytes(sources[1].read_bytes()[:60])
    return sources


def _pack_link(archive: zipfile.ZipFile) -> None:
    link = zipfile.ZipInfo("1/1.dcm")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(link, "../../outside")


def _pack_twice(archive: zipfile.ZipFile) -> None:
    archive.writestr("1", b"a file")
    archive.writestr("1/1.dcm", b"a file in that file")


def _two_patients(root: Path) -> None:
    write_series(root / OTHER_STUDY, study=OTHER_STUDY, **_T2)
    write_series(root / OTHER_STUDY, study=OTHER_STUDY, series="2", PatientID="another", **_T1)


def _foreign_file(folder: Path) -> tuple[Path, ...]:
    root = write_competition(folder / "data")
    write_slice(root / "train_images" / OTHER_STUDY / "1" / "9.dcm", 40.0, study=GOOD_STUDY, number=9)
    return (root,)


def _two_studies_in_one_folder(root: Path) -> None:
    for number, path in enumerate(write_series(root / OTHER_STUDY, study=OTHER_STUDY, **_T2), start=1):
        write_slice(path.with_name(f"{number + 50}.dcm"), 5.0 * number, number=number, study="1003", **_T2)


def _same_file_twice(root: Path) -> None:
    copy = root / "copies" / "1.dcm"
    copy.parent.mkdir()
    copy.write_bytes((root / GOOD_STUDY / "2" / "1.dcm").read_bytes())


def _link_to_file(root: Path) -> None:
    outside = write_slice(root.parent / "outside" / "1.dcm", 0.0, study=OTHER_STUDY)
    (root / GOOD_STUDY / "9.dcm").symlink_to(outside)


def _link_to_folder(root: Path) -> None:
    write_slice(root.parent / "outside" / "1.dcm", 0.0, study=OTHER_STUDY)
    (root / GOOD_STUDY / "9").symlink_to(root.parent / "outside", target_is_directory=True)


def _nested_zip(root: Path) -> None:
    with zipfile.ZipFile(root / GOOD_STUDY / "more.zip", "w") as archive:
        archive.writestr("1.dcm", b"")


def _disc_without_a_file(root: Path) -> None:
    disc = FileSet()
    for number in (1, 2, 3):
        path = write_slice(
            root.parent / "spare" / f"{number}.dcm",
            number * 5.0,
            number=number,
            study="1.2.3",
            **_T2,
            PatientName="x",
            StudyDate="20240101",
            StudyTime="101500",
            StudyID="1",
            SeriesNumber=1,
        )
        disc.add(path)
    disc.write(root / "disc")
    next(path for path in sorted((root / "disc").rglob("IM*")) if path.is_file()).unlink()


def _lost_among_studies(root: Path) -> None:
    write_study(root / "mixed" / "a", "1003")
    write_study(root / "mixed" / "b", "1004")
    (root / "mixed" / "lost.dcm").write_bytes(bytes(128) + b"DICM" + b"\x08\x00\x05\x00ZZ")


def _edited(name: str, old: str, new: str) -> Callable[[Path], tuple[Path, ...]]:
    """The competition's layout with the last occurrence of a text in a table replaced."""

    def write(folder: Path) -> tuple[Path, ...]:
        root = write_competition(folder / "data")
        before, found, after = (root / name).read_text().rpartition(old)
        if not found:
            raise ValueError(f"{name} must hold {old!r}.")
        (root / name).write_text(before + new + after)
        return (root,)

    return write


_MIXED_SCOUT = [{"place_mm": 0.0, "orientation": each} for each in (SAGITTAL, AXIAL, CORONAL)]
_TILTED = (0.0, 0.9848, 0.1736, 0.1736, 0.1710, -0.9698)

SOURCE_FAULTS: tuple[SourceFault, ...] = (
    # Series.
    SourceFault(
        "localizer_by_image_type",
        RejectReason.LOCALIZER,
        _extra_series(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
    ),
    SourceFault("localizer_by_orientations", RejectReason.LOCALIZER, _odd_slices(*_MIXED_SCOUT)),
    SourceFault("scout_by_name", RejectReason.LOCALIZER, _extra_series(SeriesDescription="T2 SURVEY")),
    SourceFault("reformat", RejectReason.DERIVED, _extra_series(ImageType=["DERIVED", "SECONDARY", "MPR"])),
    SourceFault("subtraction", RejectReason.DERIVED, _extra_series(SeriesDescription="T1 SUB")),
    SourceFault("cervical", RejectReason.NOT_LUMBAR, _extra_series(BodyPartExamined="CSPINE")),
    SourceFault("coronal", RejectReason.UNKNOWN_PLANE, _extra_series(orientation=CORONAL)),
    SourceFault(
        "proton_density",
        RejectReason.UNKNOWN_WEIGHTING,
        _extra_series(SeriesDescription="SAG", EchoTime=25.0, RepetitionTime=3000.0),
    ),
    SourceFault("gradient_echo", RejectReason.UNKNOWN_WEIGHTING, _extra_series(ScanningSequence=["GR"])),
    SourceFault(
        "nothing_tells_the_weighting",
        RejectReason.UNKNOWN_WEIGHTING,
        _extra_series(SeriesDescription="SAG", EchoTime=None, RepetitionTime=None),
    ),
    SourceFault(
        "stir_beside_t2", RejectReason.LESS_SUITABLE, _extra_series(SeriesDescription="STIR", count=9)
    ),
    SourceFault(
        "same_place_twice",
        RejectReason.DUPLICATE_POSITION,
        _odd_slices(*_places(-10, -5, 0, 0.005, 5, 10)),
    ),
    SourceFault(
        "same_number_twice",
        RejectReason.DUPLICATE_INSTANCE_NUMBER,
        _odd_slices(*_places(-10, -5, 0, 5), {"place_mm": 10, "number": 2}),
    ),
    SourceFault(
        "two_sagittal_orientations",
        RejectReason.MIXED_ORIENTATIONS,
        _odd_slices(
            *_places(-10, -5, 0), *({"place_mm": each, "orientation": _TILTED} for each in (5, 10, 15))
        ),
    ),
    SourceFault(
        "two_matrix_sizes",
        RejectReason.MIXED_SIZES,
        _odd_slices(*_places(-10, -5, 0, 5), {"place_mm": 10, "shape": (10, 10)}),
    ),
    SourceFault("a_slice_is_missing", RejectReason.MISSING_SLICES, _odd_slices(*_places(-10, -5, 5, 10, 15))),
    SourceFault(
        "axial_slices_are_missing",
        RejectReason.MISSING_SLICES,
        _odd_slices(*({"place_mm": 5.0 * each, "number": each} for each in (1, 2, 3, 6, 7)), plane=AXIAL),
    ),
    SourceFault("uneven_gaps", RejectReason.UNEVEN_GAPS, _odd_slices(*_places(-10, -5, 0, 6.2, 10))),
    SourceFault("one_slice", RejectReason.SINGLE_SLICE, _odd_slices(*_places(0))),
    SourceFault(
        "description_against_timing",
        RejectReason.WEIGHTING_CONTRADICTION,
        _odd_slices(*({**each, "SeriesDescription": "T1"} for each in _places(-5, 0, 5))),
    ),
    SourceFault(
        "table_against_headers",
        RejectReason.PLANE_CONTRADICTION,
        _in_competition(
            lambda images: write_series(
                images / OTHER_STUDY, study=OTHER_STUDY, series="3", orientation=CORONAL, **_T2
            )
        ),
    ),
    # Studies and sources.
    SourceFault("two_patients", RejectReason.MIXED_PATIENTS, _in_export(_two_patients)),
    SourceFault(
        "two_studies_in_a_folder", RejectReason.SEVERAL_STUDIES, _in_export(_two_studies_in_one_folder)
    ),
    SourceFault("same_file_twice", RejectReason.DUPLICATE_INSTANCE, _in_export(_same_file_twice)),
    SourceFault(
        "same_study_in_two_sources",
        RejectReason.DUPLICATE_STUDY,
        lambda folder: (write_export(folder / "a"), write_export(folder / "b")),
    ),
    SourceFault(
        "nothing_readable",
        RejectReason.NO_SLICES,
        _in_export(
            lambda root: write_series(root / OTHER_STUDY, study=OTHER_STUDY, PixelSpacing=[0.0, 1.0], **_T2)
        ),
    ),
    SourceFault("file_of_another_study", RejectReason.FOREIGN_FILE, _foreign_file),
    SourceFault(
        "nothing_graded_here",
        RejectReason.NOTHING_TO_GRADE,
        _in_export(
            lambda root: write_series(root / OTHER_STUDY, study=OTHER_STUDY, orientation=CORONAL, **_T2)
        ),
    ),
    SourceFault(
        "empty_study_folder",
        RejectReason.EMPTY_FOLDER,
        _in_competition(lambda images: (images / "5").mkdir()),
    ),
    SourceFault(
        "study_folder_with_odd_name",
        RejectReason.BAD_UID,
        _in_competition(lambda images: write_study(images / "Doe, Jane", "1003")),
    ),
    SourceFault(
        "uid_with_path_characters",
        RejectReason.BAD_UID,
        _in_export(lambda root: write_series(root / "1003", study="../../1003", **_T2)),
    ),
    SourceFault("link_to_a_file", RejectReason.SYMLINK, _in_export(_link_to_file)),
    SourceFault("link_to_a_folder", RejectReason.SYMLINK, _in_export(_link_to_folder)),
    SourceFault(
        "study_folder_is_a_link",
        RejectReason.SYMLINK,
        _in_competition(lambda images: (images / "5").symlink_to(images / GOOD_STUDY)),
    ),
    SourceFault(
        "a_pipe", RejectReason.UNREADABLE, _in_export(lambda root: os.mkfifo(root / GOOD_STUDY / "9.dcm"))
    ),
    SourceFault("zip_in_a_folder", RejectReason.NESTED_ARCHIVE, _in_export(_nested_zip)),
    SourceFault("dicomdir", RejectReason.DICOMDIR, _in_export(_disc_without_a_file)),
    SourceFault(
        "dicomdir_names_an_absent_file", RejectReason.LISTED_FILE_ABSENT, _in_export(_disc_without_a_file)
    ),
    SourceFault(
        "a_note_beside_the_images",
        RejectReason.NOT_DICOM,
        _in_export(lambda root: (root / "README").write_text("for Jane Doe\n")),
    ),
    SourceFault("lost_among_studies", RejectReason.DAMAGED_HEADER, _in_export(_lost_among_studies)),
    SourceFault(
        "zip_that_points_outside",
        RejectReason.UNSAFE_ARCHIVE,
        _beside_zip(lambda archive: archive.writestr("../evil.dcm", b"x")),
    ),
    SourceFault("zip_with_a_link", RejectReason.UNSAFE_ARCHIVE, _beside_zip(_pack_link)),
    SourceFault(
        "zip_bomb",
        RejectReason.UNSAFE_ARCHIVE,
        _beside_zip(lambda archive: archive.writestr("1.dcm", bytes(20_000_000))),
    ),
    SourceFault("zip_with_clashing_names", RejectReason.UNSAFE_ARCHIVE, _beside_zip(_pack_twice)),
    SourceFault("cut_zip", RejectReason.UNSAFE_ARCHIVE, _cut_zip),
    # Tables.
    SourceFault(
        "label_outside_the_vocabulary", RejectReason.BAD_LABEL, _edited("train.csv", "Moderate", "Sever")
    ),
    SourceFault("short_label_row", RejectReason.BAD_TABLE_ROW, _tables(train=("1003,Severe",))),
    SourceFault("study_graded_twice", RejectReason.BAD_TABLE_ROW, _tables(train=(GOOD_STUDY + "," * 25,))),
    SourceFault(
        "unknown_series_description",
        RejectReason.BAD_TABLE_ROW,
        _tables(train_series_descriptions=(f"{OTHER_STUDY},4,Jane Doe T2",)),
    ),
    SourceFault(
        "series_left_out_by_the_table",
        RejectReason.LEFT_OUT_BY_MAP,
        _edited("train_series_descriptions.csv", "Axial T2", "none"),
    ),
    SourceFault(
        "table_names_an_absent_series",
        RejectReason.ABSENT_SERIES,
        _tables(train_series_descriptions=(f"{OTHER_STUDY},77,Axial T2",)),
    ),
    SourceFault(
        "table_names_an_absent_study",
        RejectReason.ABSENT_STUDY,
        _tables(train_series_descriptions=("1099,1,Axial T2", "1098,1,Axial T2")),
    ),
    SourceFault(
        "point_on_an_absent_slice",
        RejectReason.NO_SUCH_SLICE,
        _tables(train_label_coordinates=(f"{OTHER_STUDY},2,99,Spinal Canal Stenosis,L2/L3,8,3",)),
    ),
    SourceFault(
        "point_outside_the_image",
        RejectReason.POINT_OUTSIDE_IMAGE,
        _tables(train_label_coordinates=(f"{OTHER_STUDY},2,4,Spinal Canal Stenosis,L2/L3,16,3",)),
    ),
    SourceFault(
        "point_on_one_of_two_slices",
        RejectReason.AMBIGUOUS_SLICE,
        _in_competition(
            lambda images: write_slice(
                images / OTHER_STUDY / "2" / "8.dcm",
                20.0,
                number=4,
                study=OTHER_STUDY,
                series="2",
                sop=f"{OTHER_STUDY}.2.8",
                **_T2,
            )
        ),
    ),
    SourceFault(
        "point_without_a_number",
        RejectReason.BAD_TABLE_ROW,
        _tables(train_label_coordinates=(f"{OTHER_STUDY},2,,Spinal Canal Stenosis,L2/L3,8,3",)),
    ),
)
