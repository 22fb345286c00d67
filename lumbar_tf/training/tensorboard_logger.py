"""What a run shows in TensorBoard: its history as curves, its crops and its mistakes as pictures."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

#: Tiles of a contact sheet: a page that can be taken in at a glance.
_MAX_TILES = 60
_COLUMNS = 10


class TensorBoardLogger:
    """Writes one fold's events."""

    def __init__(self, directory: Path) -> None:
        """Opens an event file below a folder; a run that goes on adds another one beside it."""
        self._writer = tf.summary.create_file_writer(str(directory))

    def write_epoch(self, epoch: int, row: Mapping[str, float]) -> None:
        """Adds an epoch's row of the history."""
        with self._writer.as_default(step=epoch):
            for name, value in row.items():
                if name != "epoch":
                    tf.summary.scalar(name, value)
        self._writer.flush()

    def write_picture(self, name: str, picture: NDArray[np.uint8], *, epoch: int) -> None:
        """Adds a picture, uint8 [height, width, channels]."""
        with self._writer.as_default(step=epoch):
            tf.summary.image(name, picture[np.newaxis])
        self._writer.flush()

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close()


def contact_sheet(images: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Lays the first pictures of a batch side by side.

    Args:
        images: float [..., height, width], 0 black, 1 white; the last of the leading axes is slices.

    Returns:
        uint8 [rows * height, columns * width, 1]; places without a picture are black.

    >>> contact_sheet(np.ones((1, 2, 4, 4), np.float32)).shape
    (4, 8, 1)
    """
    height, width = images.shape[-2:]
    tiles = images.reshape(-1, height, width)[:_MAX_TILES]
    columns = min(len(tiles), _COLUMNS)
    rows = -(-len(tiles) // columns)
    sheet = np.zeros((rows * columns, height, width), np.float32)
    sheet[: len(tiles)] = tiles
    laid = sheet.reshape(rows, columns, height, width).transpose(0, 2, 1, 3)
    grey = np.clip(laid.reshape(rows * height, columns * width), 0.0, 1.0)
    return np.rint(grey * 255).astype(np.uint8)[..., np.newaxis]
