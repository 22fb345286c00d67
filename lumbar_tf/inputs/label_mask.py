"""Sets labels that training is not to see to missing, inside the graph."""

from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lumbar_tf.inputs.slice_selection import Record
from lumbar_tf.labels import MISSING_LABEL, NUM_FINDINGS


def mask_labels(hidden: Mapping[str, NDArray[np.bool_]]) -> Callable[[Record], Record]:
    """Makes the function that hides labels by study; what it passes on is otherwise the record as it came.

    Use it before anything mixes studies (mixup, cutmix) or turns labels into targets, and for training only.

    Args:
        hidden: bool [25] by study, True for a label that is to be missing; other studies keep all.

    Returns:
        A `Dataset.map` function from a record with `study_id` and `labels` [25] to one with labels of the
        same dtype, `MISSING_LABEL` where hidden.

    Raises:
        ValueError: an array is not of shape [25].
    """
    ids = list(hidden) or [""]
    table = np.zeros((len(ids) + 1, NUM_FINDINGS), np.bool_)
    for place, study_id in enumerate(hidden, start=1):
        flags = np.asarray(hidden[study_id])
        if flags.shape != (NUM_FINDINGS,):
            raise ValueError(
                f"Hidden labels must be bool [{NUM_FINDINGS}]. Received: {flags.shape} (study {study_id})."
            )
        table[place] = flags
    rows = tf.constant(table)
    # Row 0 hides nothing: that of every study which is not named.
    places = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(tf.constant(ids), tf.range(1, len(ids) + 1)), default_value=0
    )

    def mask(record: Record) -> Record:
        is_hidden = rows[places.lookup(record["study_id"])]
        labels = record["labels"]
        missing = tf.cast(MISSING_LABEL, labels.dtype)
        return {**record, "labels": tf.where(is_hidden, missing, labels)}

    return mask
