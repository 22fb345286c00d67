from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from lumbar_tf.ensemble.stacker import Head, apply_stacker, from_json
from lumbar_tf.ensemble.stacking_run import (
    FOLDS_NAME,
    OOF_NAMES,
    STACKER_NAME,
    stack_tables,
    write_stacking_run,
)
from lumbar_tf.tables.folds import read_fold_table
from lumbar_tf.tables.out_of_fold import OofTable, align, read_tables
from tests.ensemble.synthetic_members import make_members


def _tables(*, with_folds: bool) -> tuple[list[OofTable], list[str], np.ndarray, dict[str, int]]:
    members, labels, folds = make_members(30, 2, 0)
    ids = [f"s{index}" for index in range(30)]
    fold_of = dict(zip(ids, folds.tolist(), strict=True))
    tables = [
        OofTable(name, dict(zip(ids, rows, strict=True)), fold_of if with_folds else {})
        for name, rows in zip(members.names, members.probabilities, strict=True)
    ]
    return tables, ids, labels, fold_of


def test_what_is_written_is_what_was_made(tmp_path: Path) -> None:
    tables, ids, labels, fold_of = _tables(with_folds=True)
    blend = stack_tables(tables, ids, labels)
    write_stacking_run(blend, tmp_path)
    assert read_fold_table(tmp_path / FOLDS_NAME) == fold_of
    for head in Head:
        (table,) = read_tables([tmp_path / OOF_NAMES[head]])
        assert table.folds == fold_of
        assert_allclose(align([table], ids).probabilities[0], blend.nested.head(head), atol=1e-8)
    stacker = from_json((tmp_path / STACKER_NAME).read_text())
    expected = apply_stacker(blend.stacker, blend.members.probabilities).competition
    assert_allclose(apply_stacker(stacker, blend.members.probabilities).competition, expected)


def test_labelled_studies_in_no_table_have_no_part() -> None:
    tables, ids, labels, _ = _tables(with_folds=True)
    blend = stack_tables(tables, ids, labels)
    more = np.concatenate([labels, np.full((3, 25), 2)])
    wider = stack_tables(tables, [*ids, "held_1", "held_2", "held_3"], more)
    assert wider.study_ids == tuple(ids) and wider.num_uncovered == 3
    assert_allclose(wider.nested.competition, blend.nested.competition)


def test_without_any_fold_studies_are_dealt() -> None:
    tables, ids, labels, _ = _tables(with_folds=False)
    blend = stack_tables(tables, ids, labels)
    assert np.bincount(blend.folds).tolist() == [6] * 5


def test_contradicting_absent_and_missing_folds_are_refused() -> None:
    tables, ids, labels, fold_of = _tables(with_folds=True)
    wrong = {**fold_of, "s3": fold_of["s3"] + 1}
    with pytest.raises(ValueError, match="'s3'"):
        stack_tables(tables, ids, labels, folds=wrong)
    partial = OofTable("other", tables[0].rows, {})
    with pytest.raises(ValueError, match="none for 29 studies"):
        stack_tables([partial], ids, labels, folds={"s0": 0})
    with pytest.raises(ValueError, match="one out-of-fold table"):
        stack_tables([], ids, labels)
