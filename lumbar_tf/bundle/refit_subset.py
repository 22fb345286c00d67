"""An ensemble of some of the members: the stacker is fitted to them anew.

Dropping a member from a fitted stacker is not leaving it out: the others' weights were fitted beside it, and
so was the calibration of their sum. The stacker's patterns do not help, as they are of sources (planes), not
of members. A fit takes minutes at most, so no bundle carries weights that nothing was fitted for.
"""

from collections.abc import Sequence
from pathlib import Path

from lumbar_tf.ensemble.stacking_run import StackingRun, stack_tables
from lumbar_tf.tables.folds import FOLDS_NAME, read_fold_table
from lumbar_tf.tables.labels import read_label_tables
from lumbar_tf.tables.out_of_fold import read_out_of_fold_tables
from lumbar_tf.training.runs import OOF_NAME


def stack_subset(runs: Path, members: Sequence[str], labels: Sequence[Path], stack: Path) -> StackingRun:
    """Fits a stacker to some members' out-of-fold tables.

    Args:
        runs: folder of all runs.
        members: names such as `sagittal_t2/densenet_narrow`, at least one.
        labels: label tables in the layout of train.csv.
        stack: the folder of the stacker of all members: its folds are taken, where it has any.

    Raises:
        ValueError: a member has no out-of-fold table, or is named twice.
    """
    if len(set(members)) < len(members):
        raise ValueError(f"Each member must be named once. Received: {', '.join(members)}.")
    known = {f"{path.parent.parent.name}/{path.parent.name}": path for path in runs.glob(f"*/*/{OOF_NAME}")}
    unknown = [name for name in members if name not in known]
    if unknown:
        raise ValueError(
            f"Members must have an out-of-fold table in {runs}: {', '.join(sorted(known)) or 'none has'}. "
            f"Received: {', '.join(unknown)}."
        )
    study_ids, table = read_label_tables(labels)
    folds = stack / FOLDS_NAME
    return stack_tables(
        read_out_of_fold_tables([known[name] for name in members]),
        study_ids,
        table,
        folds=read_fold_table(folds) if folds.is_file() else None,
    )
