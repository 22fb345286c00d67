"""Reference of an export, from the out-of-fold predictions and the images of its training records.

A served ensemble averages the networks of all folds, an out-of-fold prediction uses one, so their
distributions differ slightly. The training cohort may also differ from a hospital's studies. In that case,
compare with a reference from the log of an accepted period (`monitor --write-reference`).
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.ensemble.stacker import Head
from lumbar_tf.ensemble.stacking_run import OOF_NAMES
from lumbar_tf.labels import Plane
from lumbar_tf.monitoring.quantities import Quantities, measure_planes, measure_probabilities
from lumbar_tf.monitoring.reference import (
    MIN_STUDIES,
    REFERENCE_PATH,
    Distribution,
    Reference,
    make_reference,
    read_reference,
    write_reference,
)
from lumbar_tf.records.example import parse_example_features
from lumbar_tf.records.framing import read_records
from lumbar_tf.records.manifest import MANIFEST_NAME, Manifest, read_manifest
from lumbar_tf.tables.out_of_fold import (
    OutOfFoldTable,
    align_members,
    read_out_of_fold_tables,
    restrict_studies,
)

Floats = NDArray[np.float64]

#: Number of studies whose images are measured: reading all would take hours with the full data set.
MAX_IMAGE_STUDIES = 300


def reference_writer(stack: Path, members: Sequence[Path], records: Path) -> Callable[[Path, int], None]:
    """Returns a function that writes the reference of an export, for `export_ensemble`.

    Args:
        stack: folder of the stacker and its out-of-fold tables.
        members: out-of-fold tables of the members.
        records: the training records; images are left out where the folder does not exist.

    Returns:
        A function of the version's folder and number. It writes nothing if tables are absent or have fewer
        studies than `monitor` requires.
    """

    def write(folder: Path, version: int) -> None:
        probability = stack / OOF_NAMES[Head.PROBABILITY]
        if not all(path.is_file() for path in (probability, *members)):
            return
        (table,) = read_out_of_fold_tables([probability])
        if len(table.rows) >= MIN_STUDIES:
            known = records if (records / MANIFEST_NAME).is_file() else None
            write_bundle_reference(folder, version, probability, members, records=known)

    return write


def write_bundle_reference(
    folder: Path,
    version: int,
    probability: Path,
    members: Sequence[Path],
    *,
    records: Path | None = None,
) -> Path:
    """Writes the reference of an exported version into its `assets.extra`.

    Args:
        folder: folder of the version.
        version: number of the version, as in the rows of the log.
        probability: the stacker's out-of-fold table of the head `probability` (`oof_probability.csv`).
        members: out-of-fold tables of the members.
        records: the training records, for the images; None leaves images out.

    Returns:
        Path of the reference.

    Raises:
        ValueError: fewer than `MIN_STUDIES` studies, or a table that cannot be read.
    """
    (table,) = read_out_of_fold_tables([probability])
    rows = out_of_fold_rows(table, read_out_of_fold_tables(members))
    if records is not None:
        for study_id, measured in image_rows(records).items():
            rows.setdefault(study_id, {}).update(measured)
    source = f"{len(table.rows)} studies out of fold"
    path = folder / REFERENCE_PATH
    write_reference(path, make_reference(list(rows.values()), model=str(version), made_from=source))
    return path


def recalibrated_reference_writer(
    source: Path, probability: Floats, members: Floats
) -> Callable[[Path, int], None]:
    """Returns a function that writes the reference of a recalibrated version, for `write_recalibrated`.

    Args:
        source: folder of the version that was recalibrated; the distributions of its reference, if it has
            one, are kept for everything but the probabilities.
        probability: recalibrated probabilities of the local studies, float64 [num_studies, 25, 3].
        members: predictions of the members for them, float64 [num_members, num_studies, 25, 3].

    Returns:
        A function of the version's folder and number. It writes nothing without a reference to keep if there
        are fewer studies than `monitor` requires.
    """
    rows = [measure_probabilities(*study) for study in zip(probability, members.swapaxes(0, 1), strict=True)]

    def write(folder: Path, version: int) -> None:
        distributions: dict[str, Distribution] = {}
        made_from = []
        if (source / REFERENCE_PATH).is_file():
            old = read_reference(source / REFERENCE_PATH)
            names = measure_probabilities(probability[0], members[:, 0])
            distributions = {name: own for name, own in old.distributions.items() if name not in names}
            made_from = [old.made_from]
        if len(rows) >= MIN_STUDIES:
            name = f"probabilities of {len(rows)} local studies"
            distributions |= make_reference(rows, model="", made_from=name).distributions
            made_from.append(name)
        if distributions:
            reference = Reference(str(version), ", ".join(made_from), distributions)
            write_reference(folder / REFERENCE_PATH, reference)

    return write


def out_of_fold_rows(table: OutOfFoldTable, members: Sequence[OutOfFoldTable]) -> dict[str, Quantities]:
    """Returns the quantities of `quantities.measure_probabilities` for each study of the stacker's table."""
    study_ids = sorted(table.rows)
    probabilities = align_members(restrict_studies(members, study_ids), study_ids).probabilities
    return {
        study_id: measure_probabilities(table.rows[study_id], probabilities[:, place])
        for place, study_id in enumerate(study_ids)
    }


def image_rows(records: Path, *, max_studies: int = MAX_IMAGE_STUDIES) -> dict[str, Quantities]:
    """Returns the quantities of `quantities.measure_planes` for studies spread evenly over the records."""
    manifest = read_manifest(records)
    wanted = _choose(manifest, max_studies)
    measured: dict[str, Quantities] = {study_id: {} for study_id in wanted}
    for plane in Plane:
        for shard in manifest.planes.get(plane.value, ()):
            if not wanted & set(shard.study_ids):
                continue
            for record in read_records(records / shard.file):
                study_id = parse_example_features(record)["study_id"][0].decode()
                if study_id in wanted:
                    # One record at a time: the records of all planes and studies do not fit into memory.
                    found = measure_planes({plane: record})
                    measured[study_id].update(_of_plane(found, plane))
        absent = measure_planes({})
        for study_id in wanted:
            measured[study_id] = {**_of_plane(absent, plane), **measured[study_id]}
    return measured


def _of_plane(measured: Mapping[str, float | None], plane: Plane) -> Quantities:
    return {name: value for name, value in measured.items() if name.startswith(f"images/{plane.value}/")}


def _choose(manifest: Manifest, max_studies: int) -> frozenset[str]:
    study_ids = sorted(study.study_id for study in manifest.studies)
    places = np.linspace(0, len(study_ids) - 1, min(len(study_ids), max_studies)).round().astype(int)
    return frozenset(study_ids[place] for place in places)
