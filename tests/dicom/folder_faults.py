"""Faulty studies and folders: mixed files, links, discs and archives."""

import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pydicom

from lumbar_tf.dicom.reasons import RejectReason
from tests.dicom.made_sources import (
    CORONAL,
    GOOD_STUDY,
    OTHER_STUDY,
    T1,
    T2,
    write_disc,
    write_export,
    write_series,
    write_slice,
    write_study,
)
from tests.dicom.source_damage import SourceFault, Write, in_competition, in_export


def _pad_pixels(root: Path) -> None:
    path = root / GOOD_STUDY / "1" / "4.dcm"
    dataset = pydicom.dcmread(path)
    dataset.PixelData += bytes(128)
    dataset.save_as(path)


def _two_patients(root: Path) -> None:
    write_series(root / OTHER_STUDY, study=OTHER_STUDY, **T2)
    write_series(root / OTHER_STUDY, study=OTHER_STUDY, series="2", PatientID="another", **T1)


def _two_studies_in_one_folder(root: Path) -> None:
    for number, path in enumerate(write_series(root / OTHER_STUDY, study=OTHER_STUDY, **T2), start=1):
        write_slice(path.with_name(f"{number + 50}.dcm"), 5.0 * number, number=number, study="1003", **T2)


def _same_file_twice(root: Path) -> None:
    copy = root / "copies" / "1.dcm"
    copy.parent.mkdir()
    copy.write_bytes((root / GOOD_STUDY / "2" / "1.dcm").read_bytes())


def _foreign_file(images: Path) -> None:
    write_slice(images / OTHER_STUDY / "1" / "9.dcm", 40.0, study=GOOD_STUDY, number=9)


def _lost_among_studies(root: Path) -> None:
    write_study(root / "mixed" / "a", "1003")
    write_study(root / "mixed" / "b", "1004")
    (root / "mixed" / "lost.dcm").write_bytes(bytes(128) + b"DICM" + b"\x08\x00\x05\x00ZZ")


def _link_to_file(root: Path) -> None:
    outside = write_slice(root.parent / "outside" / "1.dcm", 0.0, study=OTHER_STUDY)
    (root / GOOD_STUDY / "9.dcm").symlink_to(outside)


def _link_to_folder(root: Path) -> None:
    write_slice(root.parent / "outside" / "1.dcm", 0.0, study=OTHER_STUDY)
    (root / GOOD_STUDY / "9").symlink_to(root.parent / "outside", target_is_directory=True)


def _disc_without_a_file(root: Path) -> None:
    disc = write_disc(root / "disc", files=root.parent / "spare")
    next(path for path in sorted(disc.rglob("IM*")) if path.is_file()).unlink()


def _beside_zip(pack: Callable[[zipfile.ZipFile], object]) -> Write:
    """Returns a writer of a valid source and a zip archive with the given members."""

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


def _nested_zip(root: Path) -> None:
    with zipfile.ZipFile(root / GOOD_STUDY / "more.zip", "w") as archive:
        archive.writestr("1.dcm", b"")


FOLDER_FAULTS: tuple[SourceFault, ...] = (
    # Studies and their folders.
    SourceFault("two_patients", RejectReason.MIXED_PATIENTS, in_export(_two_patients)),
    SourceFault(
        "two_studies_in_a_folder", RejectReason.SEVERAL_STUDIES, in_export(_two_studies_in_one_folder)
    ),
    SourceFault("blank_bytes_behind_the_pixels", RejectReason.UNUSUAL_ENCODING, in_export(_pad_pixels)),
    SourceFault("same_file_twice", RejectReason.DUPLICATE_INSTANCE, in_export(_same_file_twice)),
    SourceFault(
        "same_study_in_two_sources",
        RejectReason.DUPLICATE_STUDY,
        lambda folder: (write_export(folder / "a"), write_export(folder / "b")),
    ),
    SourceFault(
        "nothing_readable",
        RejectReason.NO_SLICES,
        in_export(
            lambda root: write_series(root / OTHER_STUDY, study=OTHER_STUDY, PixelSpacing=[0.0, 1.0], **T2)
        ),
    ),
    SourceFault("file_of_another_study", RejectReason.FOREIGN_FILE, in_competition(_foreign_file)),
    SourceFault(
        "nothing_graded_here",
        RejectReason.NOTHING_TO_GRADE,
        in_export(
            lambda root: write_series(root / OTHER_STUDY, study=OTHER_STUDY, orientation=CORONAL, **T2)
        ),
    ),
    SourceFault(
        "empty_study_folder",
        RejectReason.EMPTY_FOLDER,
        in_competition(lambda images: (images / "5").mkdir()),
    ),
    SourceFault(
        "study_folder_with_odd_name",
        RejectReason.BAD_UID,
        in_competition(lambda images: write_study(images / "Doe, Jane", "1003")),
    ),
    SourceFault(
        "uid_with_path_characters",
        RejectReason.BAD_UID,
        in_export(lambda root: write_series(root / "1003", study="../../1003", **T2)),
    ),
    SourceFault(
        "a_note_beside_the_images",
        RejectReason.NOT_DICOM,
        in_export(lambda root: (root / "README").write_text("for Jane Doe\n")),
    ),
    SourceFault("lost_among_studies", RejectReason.DAMAGED_HEADER, in_export(_lost_among_studies)),
    # Links and pipes.
    SourceFault("link_to_a_file", RejectReason.SYMLINK, in_export(_link_to_file)),
    SourceFault("link_to_a_folder", RejectReason.SYMLINK, in_export(_link_to_folder)),
    SourceFault(
        "study_folder_is_a_link",
        RejectReason.SYMLINK,
        in_competition(lambda images: (images / "5").symlink_to(images / GOOD_STUDY)),
    ),
    SourceFault(
        "a_pipe", RejectReason.UNREADABLE, in_export(lambda root: os.mkfifo(root / GOOD_STUDY / "9.dcm"))
    ),
    # Discs.
    SourceFault("dicomdir", RejectReason.DICOMDIR, in_export(_disc_without_a_file)),
    SourceFault(
        "dicomdir_names_an_absent_file", RejectReason.LISTED_FILE_ABSENT, in_export(_disc_without_a_file)
    ),
    # Archives.
    SourceFault("zip_in_a_folder", RejectReason.NESTED_ARCHIVE, in_export(_nested_zip)),
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
)
