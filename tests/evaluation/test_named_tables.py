from pathlib import Path

import numpy as np
import pytest

from lumbar_tf.evaluation.named_tables import read_named_tables
from lumbar_tf.tables.out_of_fold import write_table


def _write(path: Path, model: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(path, ["1"], np.full((1, 25, 3), 1 / 3), model=model)
    return path


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    paths = [_write(tmp_path / name) for name in ("a/oof.csv", "b/oof.csv", "other.csv")]
    assert [table.model for table in read_named_tables(paths)] == ["a/oof", "b/oof", "other"]


def test_the_first_must_be_one_model_and_the_others_may_be_many(tmp_path: Path) -> None:
    one = _write(tmp_path / "one.csv")
    many = tmp_path / "many.csv"
    parts = [_write(tmp_path / f"{model}.csv", model).read_text().splitlines() for model in ("x", "y")]
    many.write_text("\n".join([*parts[0], *parts[1][1:]]) + "\n")
    assert [table.model for table in read_named_tables([one, many])] == ["one", "x", "y"]
    with pytest.raises(ValueError, match=r"must hold one model's rows. Received: \['x', 'y'\]"):
        read_named_tables([many, one])


def test_the_same_table_twice_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "one.csv")
    with pytest.raises(ValueError, match="names or folders of their own"):
        read_named_tables([path, Path(str(path))])
