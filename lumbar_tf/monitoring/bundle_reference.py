"""The reference of an export: what its ensemble said out of fold, and what the records look like.

A served ensemble averages the networks of all folds where an out-of-fold row has one: the numbers are not
quite of one distribution. And the training cohort is no hospital's: where studies differ from it from the
first day on, a reference from the log of an accepted period (`monitor --write-reference`) is the one to
compare with.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from lumbar_tf.ensemble.stacker import Head
from lumbar_tf.ensemble.stacking_run import OOF_NAMES
from lumbar_tf.labels import Plane
from lumbar_tf.monitoring.quantities import Quantities, measure_planes, measure_probabilities
from lumbar_tf.monitoring.reference import MIN_STUDIES, REFERENCE_PATH, make_reference, write_reference
from lumbar_tf.records.example import parse_features
from lumbar_tf.records.framing import read_records
from lumbar_tf.records.manifest import MANIFEST_NAME, Manifest, read_manifest
from lumbar_tf.tables.out_of_fold import OutOfFoldTable, align_members, read_out_of_fold_tables

#: Studies whose images are measured: reading all would take hours at full size.
MAX_IMAGE_STUDIES = 300


def reference_writer(stack: Path, members: Sequence[Path], records: Path) -> Callable[[Path, int], None]:
    """Returns what writes an export's reference, for `export_ensemble`.

    Args:
        stack: folder of the stacker and its out-of-fold tables.
        members: the members' out-of-fold tables.
        records: what they were trained on; images are left out where there is no such folder.

    Returns:
        Takes the version's folder and number. It writes nothing where the tables are absent, or are of fewer
        studies than `monitor` compares with.
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
        folder: of the version.
        version: its number, which the rows of the log carry.
        probability: the stack's out-of-fold table of the head `probability` (`oof_probability.csv`).
        members: the members' out-of-fold tables.
        records: what they were trained on, for the images; None leaves images out.

    Returns:
        The reference's path.

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


def out_of_fold_rows(table: OutOfFoldTable, members: Sequence[OutOfFoldTable]) -> dict[str, Quantities]:
    """Returns for each study of the stack's table what `quantities.measure_probabilities` measures."""
    study_ids = sorted(table.rows)
    known = set(study_ids)
    mine = [
        OutOfFoldTable(each.model, {study: rows for study, rows in each.rows.items() if study in known}, {})
        for each in members
    ]
    answers = align_members(mine, study_ids).probabilities
    return {
        study_id: measure_probabilities(table.rows[study_id], answers[:, place])
        for place, study_id in enumerate(study_ids)
    }


def image_rows(records: Path, *, max_studies: int = MAX_IMAGE_STUDIES) -> dict[str, Quantities]:
    """Returns for studies spread evenly over the records what `quantities.measure_planes` measures."""
    manifest = read_manifest(records)
    wanted = _choose(manifest, max_studies)
    measured: dict[str, Quantities] = {study_id: {} for study_id in wanted}
    for plane in Plane:
        for shard in manifest.planes.get(plane.value, ()):
            if not wanted & set(shard.study_ids):
                continue
            for record in read_records(records / shard.file):
                study_id = parse_features(record)["study_id"][0].decode()
                if study_id in wanted:
                    # Record by record: those of all planes and studies would not fit into memory.
                    found = measure_planes({plane: record})
                    measured[study_id].update(_of_plane(found, plane))
        absent = measure_planes({})
        for study_id in wanted:
            measured[study_id] = {**_of_plane(absent, plane), **measured[study_id]}
    return measured


def _of_plane(measured: Mapping[str, float | None], plane: Plane) -> Quantities:
    return {name: value for name, value in measured.items() if name.startswith(f"images/{plane.value}/")}


def _choose(manifest: Manifest, max_studies: int) -> frozenset[str]:
    study_ids = sorted(each.study_id for each in manifest.studies)
    places = np.linspace(0, len(study_ids) - 1, min(len(study_ids), max_studies)).round().astype(int)
    return frozenset(study_ids[place] for place in places)
