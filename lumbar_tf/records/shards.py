"""Shards: plain TFRecord files that appear whole or not at all."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lumbar_tf.files import release_cache, replace_atomically
from lumbar_tf.labels import Plane
from lumbar_tf.records.example import Piece
from lumbar_tf.records.framing import RecordWriter
from lumbar_tf.records.manifest import Shard

#: Every shard's name matches; nothing else in a plane's folder does.
SHARD_PATTERN = "part-*.tfrecord"


def shard_name(index: int) -> str:
    """Returns a shard's file name. It does not say how many there are: studies may be added later.

    >>> shard_name(3)
    'part-00003.tfrecord'
    """
    return f"part-{index:05d}.tfrecord"


def part_index(file: str) -> int:
    """Returns the part's number of a shard's name or path.

    >>> part_index("axial_t2/part-00003.tfrecord")
    3
    """
    return int(file.rpartition("part-")[2].partition(".")[0])


@dataclass(frozen=True)
class _OpenShard:
    """A shard that is being written.

    Attributes:
        file: under its temporary name.
        writer: writes records to it.
        study_ids: the records' studies so far.
    """

    file: IO[bytes]
    writer: RecordWriter
    study_ids: list[str]


class ShardSet:
    """The shards of one part, one a plane, made when a plane's first record comes."""

    def __init__(self, folder: Path, index: int, stack: ExitStack) -> None:
        self._folder = folder
        self._name = shard_name(index)
        self._stack = stack
        self._shards: dict[Plane, _OpenShard] = {}

    def write(self, study_id: str, records: Mapping[Plane, Sequence[Piece]]) -> None:
        """Appends a study's record, in pieces, to the shard of each plane that it has."""
        for plane, record in records.items():
            if plane not in self._shards:
                self._shards[plane] = self._open(self._folder / plane.value / self._name)
            shard = self._shards[plane]
            shard.writer.write(*record)
            shard.study_ids.append(study_id)
            release_cache(shard.file)

    def _open(self, path: Path) -> _OpenShard:
        temporary = self._stack.enter_context(replace_atomically(path))
        # Unbuffered: a record is written whole, and megabytes need no second copy.
        file = self._stack.enter_context(temporary.open("wb", buffering=0))
        return _OpenShard(file, RecordWriter(file), [])

    def describe(self) -> dict[str, Shard]:
        """Returns the manifest's entries of what was written, by the plane's name."""
        return {
            plane.value: Shard(
                file=f"{plane.value}/{self._name}",
                sha256=shard.writer.sha256,
                size_bytes=shard.writer.size_bytes,
                num_examples=shard.writer.num_records,
                study_ids=tuple(shard.study_ids),
            )
            for plane, shard in sorted(self._shards.items(), key=lambda item: item[0].value)
        }


@contextmanager
def open_shards(folder: Path, index: int) -> Iterator[ShardSet]:
    """Writes a part's shards under temporary names; they get their own when the block ends well.

    Args:
        folder: where the records are.
        index: the part's number.

    Yields:
        The shards, to write to.

    Raises:
        OSError: also where the disk is full; then no shard of the part is there.
    """
    with ExitStack() as stack:
        yield ShardSet(folder, index, stack)


def rewrite_shard(path: Path, records: Iterable[bytes]) -> tuple[str, int]:
    """Replaces a shard's records, and returns its SHA-256 and its size in bytes."""
    with replace_atomically(path) as temporary, temporary.open("wb", buffering=0) as file:
        writer = RecordWriter(file)
        for record in records:
            writer.write(record)
    return writer.sha256, writer.size_bytes


def remove_shards(folder: Path, is_wanted: Callable[[str], bool]) -> None:
    """Removes shards that are not wanted.

    Args:
        folder: where the records are.
        is_wanted: tells by a shard's name in a manifest, such as `sagittal_t1/part-00003.tfrecord`.
    """
    for plane in Plane:
        for path in (folder / plane.value).glob(SHARD_PATTERN):
            if not is_wanted(f"{plane.value}/{path.name}"):
                path.unlink()
