"""Keeps pydicom's remarks to itself: they quote the values that they complain about."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def suppress_pydicom_warnings() -> Iterator[None]:
    """Drops what pydicom warns of and logs for as long as the block runs.

    Both quote header values, and a value can identify a patient. What is wrong with a file is told by
    reason codes. Entering costs more than reading a file: wrap a study, not a file.
    """
    logger = logging.getLogger("pydicom")
    was_disabled = logger.disabled
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.disabled = True
        try:
            yield
        finally:
            logger.disabled = was_disabled
