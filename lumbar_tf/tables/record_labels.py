"""`labels.csv` beside the records: the labels that are in them, in the competition's layout.

Later commands take it as `--labels`; where ids are pseudonyms no other table fits.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.files import write_table_atomically
from lumbar_tf.labels import FINDINGS, MISSING_LABEL, Severity
from lumbar_tf.tables.labels import read_labels

LABELS_NAME = "labels.csv"


def write_record_labels(folder: Path, labels: Mapping[str, NDArray[np.int8]]) -> None:
    """Writes the labels of studies, int8 [25] each, by study id; a missing label is a blank cell."""
    rows = [
        [study_id, *("" if label == MISSING_LABEL else Severity(label).title for label in row.tolist())]
        for study_id, row in sorted(labels.items())
    ]
    write_table_atomically(folder / LABELS_NAME, ["study_id", *(finding.name for finding in FINDINGS)], rows)


def read_record_labels(folder: Path) -> dict[str, NDArray[np.int8]]:
    """Reads the labels of studies, int8 [25] each; a study without a row has none.

    Raises:
        ValueError: the file is damaged.
    """
    study_ids, labels = read_labels(folder / LABELS_NAME)
    return dict(zip(study_ids, labels, strict=True))
