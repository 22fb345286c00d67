"""Which labels a training leaves out, from the out-of-fold tables of a run before it."""

from collections.abc import Mapping
from pathlib import Path

from lumbar_tf.ensemble.label_noise import Flags, noisy_labels
from lumbar_tf.files import find_paths
from lumbar_tf.tables.labels import read_record_labels
from lumbar_tf.tables.out_of_fold import read_out_of_fold_tables


def read_noisy_labels(
    pattern: str, *, records: Path, runs: Path, folds: Mapping[str, int], threshold: float
) -> dict[str, Flags]:
    """Reads tables and judges the labels of the records by them.

    Args:
        pattern: of the tables, such as `before/*/*/oof.csv`.
        records: folder of the records, whose own labels are judged.
        runs: where the coming training writes: tables in there are its own, and would be others once a part
            of it is done.
        folds: fold by study, of the coming training.
        threshold: see `noisy_labels`.

    Returns:
        bool [25] by study; see `noisy_labels`.

    Raises:
        ValueError: no table, one below `runs`, one that is not out of fold, or a threshold out of range.
    """
    paths = find_noise_tables(pattern, runs=runs)
    return noisy_labels(read_out_of_fold_tables(paths), read_record_labels(records), threshold, folds)


def find_noise_tables(pattern: str, *, runs: Path) -> list[Path]:
    """Returns the tables that a pattern matches, sorted; errors as `read_noisy_labels` has them."""
    paths = find_paths(pattern)
    if not paths:
        raise ValueError(f"A pattern of out-of-fold tables must match a file. Received: {pattern!r}.")
    own = [path for path in paths if path.resolve().is_relative_to(runs.resolve())]
    if own:
        raise ValueError(
            "Labels must be judged by the tables of a run before this one, in another folder. "
            f"Received: {own[0]}, below {runs}."
        )
    return paths
