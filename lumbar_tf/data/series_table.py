"""Reads `*_series_descriptions.csv`: which plane each series is."""

from pathlib import Path

import pandas as pd

from lumbar_tf.imaging.study import Reject, RejectReason
from lumbar_tf.labels import Plane, parse_plane

_COLUMNS = ["study_id", "series_id", "series_description"]


def read_columns(path: Path, columns: list[str]) -> pd.DataFrame:
    """Reads named columns of a CSV as text, blanks as "".

    Raises:
        ValueError: a column is missing, or the file is no CSV.
    """
    # dtype=str: an id such as 004003253 is a name, never a number.
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    missing = [each for each in columns if each not in table.columns]
    if missing:
        raise ValueError(f"{path.name} must have the columns {columns}. Missing: {missing}.")
    return table[columns]


def read_series_table(path: Path) -> tuple[dict[str, dict[str, Plane]], list[Reject]]:
    """Reads the plane of each series.

    Args:
        path: a CSV with study_id, series_id, series_description; `Sagittal T2/STIR` and `sagittal_t2`
            are both read.

    Returns:
        Planes by study id and series id, and a reject for each row whose description is no plane.

    Raises:
        ValueError: a column is missing.
    """
    planes: dict[str, dict[str, Plane]] = {}
    rejects: list[Reject] = []
    for study_id, series_id, description in read_columns(path, _COLUMNS).itertuples(index=False):
        try:
            planes.setdefault(study_id, {})[series_id] = parse_plane(description)
        except ValueError as error:
            rejects.append(Reject(study_id, series_id, path.name, RejectReason.BAD_TABLE_ROW, str(error)))
    return planes, rejects
