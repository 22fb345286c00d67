"""Finds the studies in what a person points at: a dataset's folder, a folder of studies, one, or a zip."""

import stat
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import pydicom

from lumbar_tf.imaging.dicom import list_files

#: The competition's own names for its folders of studies.
IMAGE_FOLDERS = ("train_images", "test_images")

#: A lumbar study is 20 to 200 MB; a cohort's zip beyond this should be unpacked by hand.
MAX_ZIP_BYTES = 64 << 30
MAX_ZIP_MEMBERS = 2_000_000
#: DICOM compresses at most a few times; beyond this a member is a bomb.
MAX_ZIP_RATIO = 200
_COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class StudyFolder:
    """One study's folder and the name it goes by."""

    study_id: str
    folder: Path


@dataclass(frozen=True)
class Source:
    """Studies, and the tables beside them.

    Attributes:
        studies: by study id.
        labels: `train.csv`, None where absent.
        coordinates: `train_label_coordinates.csv`, None where absent.
        series: `{train,test}_series_descriptions.csv`, None where absent.
    """

    studies: tuple[StudyFolder, ...]
    labels: Path | None = None
    coordinates: Path | None = None
    series: Path | None = None


@contextmanager
def read_source(root: Path) -> Iterator[Source]:
    """Finds the studies at a path; a zip is unpacked for as long as the block runs.

    Args:
        root: the competition's folder as unzipped (with `train_images` or `test_images` and the
            tables beside it), either of those image folders, a folder of studies, one study's
            folder, or a zip of any of these.

    Raises:
        ValueError: there is nothing at the path, no study in it, or a zip that is not safe to unpack.
    """
    if root.is_dir():
        yield _find_studies(root)
        return
    if not root.is_file():
        raise ValueError(f"A source must be a folder or a zip. Received: {str(root)!r}, which is absent.")
    with tempfile.TemporaryDirectory(prefix="lumbar_tf_") as folder:
        # A lone study in a zip goes by the zip's name.
        unpacked = Path(folder, root.stem)
        unpack_zip(root, unpacked)
        yield _find_studies(unpacked)


def _find_studies(root: Path) -> Source:
    for place in (root, *_only_folder(root)):
        for name in IMAGE_FOLDERS:
            if (place / name).is_dir():
                return _with_tables(place / name)
    if root.name in IMAGE_FOLDERS:
        return _with_tables(root)
    source = Source(_list_studies(root))
    if not source.studies:
        raise ValueError(f"A source must hold at least one study. Received: {str(root)!r}, with no file.")
    return source


def _only_folder(root: Path) -> list[Path]:
    """The folder that a zip so often wraps everything in."""
    children = [each for each in root.iterdir() if not each.name.startswith(".")]
    return children if len(children) == 1 and children[0].is_dir() else []


def _with_tables(images: Path) -> Source:
    place, kind = images.parent, images.name.removesuffix("_images")

    def table(name: str) -> Path | None:
        return place / name if (place / name).is_file() else None

    source = Source(
        studies=tuple(StudyFolder(each.name, each) for each in _folders(images)),
        series=table(f"{kind}_series_descriptions.csv"),
    )
    if kind == "train":
        source = replace(source, labels=table("train.csv"), coordinates=table("train_label_coordinates.csv"))
    if not source.studies:
        raise ValueError(f"{str(images)!r} must hold a folder for each study. Received: none.")
    return source


def _list_studies(root: Path) -> tuple[StudyFolder, ...]:
    """One study, or a folder of studies: told by depth, and by StudyInstanceUID where depth is unclear."""
    parts = [path.relative_to(root).parts for path in list_files(root)]
    if not parts:
        return ()
    depth = min(len(each) for each in parts)
    folders = _folders(root)
    is_one = depth == 1 or (depth == 2 and len({_study_uid(each) for each in folders}) == 1)
    if is_one:
        return (StudyFolder(root.resolve().name, root),)
    return tuple(StudyFolder(each.name, each) for each in folders)


def _folders(root: Path) -> list[Path]:
    return sorted(
        each
        for each in root.iterdir()
        if each.is_dir() and not each.is_symlink() and not each.name.startswith(".")
    )


def _study_uid(folder: Path) -> str:
    """StudyInstanceUID of the first file that has one; the folder's name where none has."""
    for path in list_files(folder):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # pydicom prints odd values, and an odd UID is good enough
                dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["StudyInstanceUID"])
                uid = dataset.get("StudyInstanceUID")
        except Exception:  # noqa: S112 - damaged files are reported when they are read for good
            continue
        if uid:
            return str(uid)
    return folder.name


def unpack_zip(archive: Path, folder: Path) -> None:
    """Unpacks a zip into a new folder, and nothing anywhere else.

    Raises:
        ValueError: not a zip; a member that points outside the folder, is a link, or unpacks to far
            more than it holds; or more bytes or members than the limits above.
    """
    try:
        with zipfile.ZipFile(archive) as unpacked:
            members = [each for each in unpacked.infolist() if not each.is_dir()]
            _check_members(archive, members)
            for member in members:
                target = folder.joinpath(*PurePosixPath(member.filename).parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                _copy_member(unpacked, member, target)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{archive.name} must be a sound, unencrypted zip. Received: {error}.") from None


def _check_members(archive: Path, members: list[zipfile.ZipInfo]) -> None:
    total = sum(each.file_size for each in members)
    if total > MAX_ZIP_BYTES or len(members) > MAX_ZIP_MEMBERS:
        raise ValueError(
            f"{archive.name} must hold at most {MAX_ZIP_MEMBERS} files and {MAX_ZIP_BYTES} bytes. "
            f"Received: {len(members)} files, {total} bytes."
        )
    for each in members:
        path = PurePosixPath(each.filename)
        # zipfile itself turns backslashes only on Windows, where they are separators.
        if path.is_absolute() or ".." in path.parts or "\\" in each.filename or ":" in each.filename:
            raise ValueError(f"{archive.name} must not point outside its folder: {each.filename!r}.")
        if stat.S_ISLNK(each.external_attr >> 16):
            raise ValueError(f"{archive.name} must not hold links: {each.filename!r}.")
        if each.file_size > MAX_ZIP_RATIO * max(each.compress_size, 4096):
            raise ValueError(f"{archive.name} must not unpack {MAX_ZIP_RATIO}-fold: {each.filename!r}.")


def _copy_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """Copies what the directory announced; zipfile stops at `file_size` and checks the CRC."""
    with archive.open(member) as source, target.open("xb") as destination:
        while block := source.read(_COPY_BYTES):
            destination.write(block)
