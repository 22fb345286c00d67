"""One thing that is wrong with a source, and how it comes among what is sound."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lumbar_tf.dicom.reasons import RejectReason
from tests.dicom.made_sources import write_competition, write_export

Write = Callable[[Path], tuple[Path, ...]]


@dataclass(frozen=True)
class SourceFault:
    """One thing that can be wrong.

    Attributes:
        name: says what.
        reason: what the system should make of it.
        write: writes sources into an empty folder and returns their roots.
    """

    name: str
    reason: RejectReason
    write: Write


def in_export(change: Callable[[Path], object]) -> Write:
    """The good study, and something done to the export's folder."""

    def write(folder: Path) -> tuple[Path, ...]:
        root = write_export(folder / "export")
        change(root)
        return (root,)

    return write


def in_competition(change: Callable[[Path], object]) -> Write:
    """Both studies in the competition's layout, and something done to the folder of images."""

    def write(folder: Path) -> tuple[Path, ...]:
        root = write_competition(folder / "data")
        change(root / "train_images")
        return (root,)

    return write
