"""Tables of predictions from several files, each model with a name of its own."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lumbar_tf.tables.out_of_fold import OofTable, read_tables


def read_named_tables(paths: Sequence[Path]) -> list[OofTable]:
    """Reads tables, file by file; models of one name in two files get their folder's name in front.

    Args:
        paths: the first file holds one model, the others any number.

    Raises:
        ValueError: a table is malformed (see `oof.read_tables`), the first file holds several models, or two
            models cannot be told apart.
    """
    tables = [(path, table) for path in paths for table in read_tables([path])]
    in_first = [table.model for path, table in tables if path is paths[0]]
    if len(in_first) != 1:
        raise ValueError(f"{paths[0]} must hold one model's rows. Received: {in_first}.")
    counts = Counter(table.model for _, table in tables)
    named = [
        table if counts[table.model] == 1 else replace(table, model=f"{path.parent.name}/{table.model}")
        for path, table in tables
    ]
    names = [table.model for table in named]
    if len(set(names)) != len(names):
        raise ValueError(f"Models must have names or folders of their own. Received: {names}.")
    return named
