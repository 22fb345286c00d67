"""The manifest: what a folder of records holds, and where it came from.

It is written last, so a folder without one is an unfinished build. It names no patient: studies of one
person share a `patient_group`, which is the smallest of their study ids, or a keyed hash where ids are
pseudonyms.
"""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict, ValidationError

from lumbar_tf import __version__
from lumbar_tf.dicom.reasons import Reject
from lumbar_tf.dicom.sources.study_source import is_synthetic_source
from lumbar_tf.dicom.study import SeriesSummary
from lumbar_tf.files import write_text_atomically
from lumbar_tf.labels import Plane
from lumbar_tf.records.schema import SCHEMA_VERSION, PixelEncoding

MANIFEST_NAME = "manifest.json"
_PLANES = frozenset(plane.value for plane in Plane)

#: The packages whose versions can change a record's bytes.
_PACKAGES = ("imagecodecs", "numpy", "pydicom", "protobuf")


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Shard(_Entry):
    """A TFRecord file.

    Attributes:
        file: path below the manifest's folder, with forward slashes.
        sha256: of the whole file.
        size_bytes: of the whole file.
        num_examples: how many records it holds.
        study_ids: their studies, in order.
    """

    file: str
    sha256: str
    size_bytes: int
    num_examples: int
    study_ids: tuple[str, ...]

    @property
    def index(self) -> int:
        """The number in the file's name, `axial_t2/part-00003.tfrecord`."""
        return int(self.file.rpartition("part-")[2].partition(".")[0])


class StudyEntry(_Entry):
    """A study.

    Attributes:
        study_id: the study.
        patient_group: equal for studies of the same patient, see above.
        source_digest: SHA-256 over the SHA-256 of each of its files.
        num_slices: slices of each plane that it has, by the plane's name.
        series: every readable series, kept or left out.
    """

    study_id: str
    patient_group: str
    source_digest: str
    num_slices: dict[str, int]
    series: tuple[SeriesSummary, ...] = ()


class RejectEntry(_Entry):
    """Something that was left out or noted; `reason` is a `RejectReason` value."""

    study_id: str
    series_id: str
    file_name: str
    reason: str
    message: str

    @classmethod
    def of(cls, reject: Reject) -> "RejectEntry":
        """Copies a reject."""
        return cls(
            study_id=reject.study_id,
            series_id=reject.series_id,
            file_name=reject.file_name,
            reason=reject.reason.value,
            message=reject.message,
        )


class BuildOptions(_Entry):
    """The options that shape the records; where they ran and how many workers there were do not.

    Attributes:
        studies_per_shard: studies in one part.
        num_folds: folds that patients are dealt to.
        fold_seed: shuffles patients whose findings weigh about the same.
        codec: how records hold images.
        decoder: what decoded the DICOM files.
        is_pseudonymised: whether ids are keyed hashes.
    """

    studies_per_shard: int
    num_folds: int
    fold_seed: int
    codec: PixelEncoding = PixelEncoding.RAW
    decoder: str = "pydicom"
    is_pseudonymised: bool = False


class Manifest(_Entry):
    """The content of `manifest.json`.

    Attributes:
        schema_version: version of the record schema.
        packages: versions of the packages that made the records.
        options: options of the build.
        planes: shards by the plane's name.
        studies: the studies in the records.
        rejects: input that was left out or noted.
        is_synthetic: whether all studies are synthetic. Only written if true.
    """

    schema_version: str
    packages: dict[str, str]
    options: BuildOptions
    planes: dict[str, tuple[Shard, ...]]
    studies: tuple[StudyEntry, ...]
    rejects: tuple[RejectEntry, ...]
    is_synthetic: bool = False

    @property
    def patient_groups(self) -> dict[str, str]:
        """The group of patients of each study, by study id."""
        return {study.study_id: study.patient_group for study in self.studies}

    def shard_paths(self, folder: Path, plane: Plane) -> list[Path]:
        """Returns a plane's shards, in order; none where no study has the plane."""
        return [folder / shard.file for shard in self.planes.get(plane.value, ())]


def package_versions(*more: str) -> dict[str, str]:
    """Returns the versions of this package, of the packages that make the records, and of `more`."""
    versions = {"lumbar_tf": __version__}
    for name in (*_PACKAGES, *more):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def write_manifest(folder: Path, manifest: Manifest) -> Path:
    """Writes `manifest.json`, whole or not at all, and returns its path."""
    path = folder / MANIFEST_NAME
    # Manifests of patients' studies are the same bytes as before the field existed.
    omitted = None if manifest.is_synthetic else {"is_synthetic"}
    write_text_atomically(path, manifest.model_dump_json(indent=1, exclude=omitted) + "\n")
    return path


def has_manifest(folder: Path) -> bool:
    """Whether a folder holds finished records."""
    return (folder / MANIFEST_NAME).is_file()


def is_synthetic_folder(folder: Path) -> bool:
    """Whether a folder of records, or of label tables and studies, is synthetic."""
    return read_manifest(folder).is_synthetic if has_manifest(folder) else is_synthetic_source(folder)


def is_shard_name(file: str, plane: str) -> bool:
    """Whether a shard's path is `<plane>/<name>`, so that it names no file outside the folder of records.

    >>> is_shard_name("axial_t2/part-00000.tfrecord", "axial_t2"), is_shard_name("../victim", "..")
    (True, False)
    """
    parts = PurePosixPath(file).parts
    is_inside = len(parts) == 2 and parts[0] == plane and parts[1] != ".."
    return is_inside and plane in _PLANES and "\\" not in file and "\0" not in file


def read_manifest(path: Path) -> Manifest:
    """Reads a manifest.

    Args:
        path: `manifest.json` or the folder that holds it.

    Raises:
        ValueError: it is absent (an unfinished build), damaged, of another major schema version, or names a
            shard outside its folder.
    """
    path = path / MANIFEST_NAME if path.is_dir() else path
    if not path.is_file():
        raise ValueError(
            f"{str(path)!r} is absent: no records were built there, or the build did not finish."
        )
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        raise ValueError(f"{str(path)!r} is no manifest: {place}: {fault['msg']}.") from None
    major, expected = manifest.schema_version.partition(".")[0], SCHEMA_VERSION.partition(".")[0]
    if major != expected:
        raise ValueError(
            f"Records must have schema version {expected}.x. Received: {manifest.schema_version} "
            f"({str(path)!r}). Build them again with python -m lumbar_tf.build_records."
        )
    for plane, shards in manifest.planes.items():
        for shard in shards:
            if not is_shard_name(shard.file, plane):
                raise ValueError(
                    f"Shards of a manifest must be named <plane>/<file>. Received: {shard.file!r} of the "
                    f"plane {plane!r} ({str(path)!r})."
                )
    return manifest
