"""`runs/<plane>/<member>/run.json`: what made a member, from its records to its weights."""

import json
from dataclasses import asdict
from typing import Any

from lumbar_tf.files import file_sha256, write_json_atomically
from lumbar_tf.training.fold_crops import read_fold_crops
from lumbar_tf.training.fold_metadata import read_fold_metadata
from lumbar_tf.training.runs import RUN_NAME, PlaneRun, table_name


def member_metadata(run: PlaneRun, member: str) -> dict[str, Any]:
    """Returns what is known of a member.

    Returns:
        `member`; `seed`; `origin`: the plane's `run.json` (digests of configuration, folds and records,
        package versions); `folds`: by number, what `fold.json` says of each that is done (seed, epochs,
        when it finished, device, package versions, digests of weights), with the digest of its table,
        and `crops`: what `crops.json` says of it, None where it cuts none;
        `is_complete`: whether every fold is.
    """
    folds = {}
    for fold in run.fold_numbers:
        directory = run.fold_directory(member, fold)
        record = read_fold_metadata(directory)
        table = directory / table_name(member)
        if record is not None and table.is_file():
            crops = read_fold_crops(directory)
            folds[str(fold)] = asdict(record) | {
                "table_sha256": file_sha256(table),
                "crops": crops.content if crops is not None else None,
            }
    origin = json.loads((run.directory / RUN_NAME).read_text(encoding="utf-8"))
    return {
        "member": run.member_name(member),
        "seed": run.config.seed,
        "origin": origin,
        "folds": folds,
        "is_complete": len(folds) == len(run.fold_numbers),
    }


def write_member_metadata(run: PlaneRun, member: str) -> None:
    """Writes the member's `run.json`."""
    write_json_atomically(run.member_directory(member) / RUN_NAME, member_metadata(run, member))
