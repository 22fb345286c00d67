"""A small folder of records written without the build, and a small cohort of DICOM files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lumbar_tf.dicom.study import Slice
from lumbar_tf.labels import FINDINGS, NUM_FINDINGS, Plane
from lumbar_tf.records.framing import RecordWriter
from lumbar_tf.records.manifest import BuildOptions, Manifest, Shard, StudyEntry, write_manifest
from lumbar_tf.records.schema import SCHEMA_VERSION, encode_plane

STUDIES = ("10", "11", "12", "13", "14", "15")
#: Studies 10 and 14 are of one patient.
GROUPS = {**{each: each for each in STUDIES}, "14": "10"}
FOLDS = {"10": 0, "11": 1, "12": 0, "13": 1, "14": 0, "15": 1}
PLANES = (Plane.SAGITTAL_T2, Plane.AXIAL_T2)
NUM_SLICES = 2


@pytest.fixture
def make_record(make_slice: Callable[..., Slice]) -> Callable[..., bytes]:
    """`make_record(study_id, plane)`: two slices with labels; both planes of a study share them."""

    def make(study_id: str, plane: Plane, *, label: int | None = None, num_slices: int = NUM_SLICES) -> bytes:
        slices = [
            make_slice((4.0 * number, 0.0, 0.0), instance_number=number) for number in range(num_slices)
        ]
        labels = np.full(NUM_FINDINGS, int(study_id) % 3 if label is None else label)
        return encode_plane(study_id, plane, slices, labels=labels)

    return make


def write_shard(path: Path, records: list[bytes]) -> RecordWriter:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        writer = RecordWriter(file)
        for record in records:
            writer.write(record)
    return writer


@pytest.fixture
def records_folder(tmp_path: Path, make_record: Callable[..., bytes]) -> Path:
    """Six studies of five patients, two planes, three studies a shard, two folds."""
    folder = tmp_path / "records"
    planes: dict[str, tuple[Shard, ...]] = {each.value: () for each in Plane}
    for plane in PLANES:
        for part in range(2):
            study_ids = STUDIES[3 * part : 3 * part + 3]
            file = f"{plane.value}/part-{part:05d}.tfrecord"
            writer = write_shard(folder / file, [make_record(each, plane) for each in study_ids])
            shard = Shard(
                file=file,
                sha256=writer.sha256,
                size_bytes=(folder / file).stat().st_size,
                num_examples=writer.num_records,
                study_ids=study_ids,
            )
            planes[plane.value] += (shard,)
    studies = tuple(
        StudyEntry(
            study_id=each,
            patient_group=GROUPS[each],
            source_digest="0" * 64,
            num_slices={plane.value: NUM_SLICES for plane in PLANES},
        )
        for each in STUDIES
    )
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        packages={},
        options=BuildOptions(studies_per_shard=3, num_folds=2, fold_seed=0),
        planes=planes,
        studies=studies,
        rejects=(),
    )
    rows = "".join(f"{study},{fold}\n" for study, fold in FOLDS.items())
    (folder / "folds.csv").write_text(f"study_id,fold_id\n{rows}")
    write_manifest(folder, manifest)
    return folder


@pytest.fixture
def cohort(tmp_path: Path, write_dicom: Callable[..., Path]) -> Path:
    """Five studies of four patients in the competition's layout; one has no axial series."""
    root = tmp_path / "cohort"
    rng = np.random.default_rng(0)
    series = ["study_id,series_id,series_description"]
    labels = ["study_id," + ",".join(each.name for each in FINDINGS)]
    points = ["study_id,series_id,instance_number,condition,level,x,y"]
    for index in range(5):
        study = str(10 + index)
        labels.append(f"{study},{','.join(['Normal/Mild', 'Moderate', 'Severe', '', 'Severe'] * 5)}")
        points.append(f"{study},1,2,Spinal Canal Stenosis,L1/L2,3,4")
        planes = [("1", "Sagittal T2/STIR"), ("2", "Axial T2")][: 1 if index == 2 else 2]
        for series_id, description in planes:
            series.append(f"{study},{series_id},{description}")
            for number in (1, 2, 3):
                write_dicom(
                    root / "train_images" / study / series_id / f"{number}.dcm",
                    rng.integers(0, 900, (6, 8)).astype(np.uint16),
                    PatientID=f"Doe-{index % 4}",
                    PatientName="Doe^Jane",
                    InstanceNumber=number,
                    ImagePositionPatient=[float(number), 0.0, 5.0 * number],
                    **({"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]} if series_id == "2" else {}),
                )
    (root / "train_images" / "13" / "1" / "bad.dcm").write_bytes(b"junk")
    (root / "train.csv").write_text("\n".join(labels) + "\n")
    (root / "train_series_descriptions.csv").write_text("\n".join(series) + "\n")
    (root / "train_label_coordinates.csv").write_text("\n".join(points) + "\n")
    return root


@pytest.fixture
def read_tree() -> Callable[[Path], dict[str, bytes]]:
    """`read_tree(folder)`: the bytes of every file below it, by relative path."""

    def read(folder: Path) -> dict[str, bytes]:
        return {
            str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()
        }

    return read
