"""How each quantity is distributed where all is well: counts in bins, as JSON."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.files import write_json_atomically
from lumbar_tf.monitoring.log import LogRow

#: Of a version's folder; TF Serving leaves it alone.
REFERENCE_PATH = Path("assets.extra") / "reference.json"
#: Fewer studies say little about any distribution.
MIN_STUDIES = 30
#: Deciles, the usual choice for the population stability index.
_NUM_BINS = 10
#: A quantity of no more values than this, such as the number of rows, is counted value by value.
_MAX_CATEGORIES = 10


class Kind(Enum):
    """How values are counted."""

    #: Between edges: bin k holds what is above edge k - 1 and not above edge k.
    BINS = "bins"
    #: Value by value; the last but one count is of all other values.
    CATEGORIES = "categories"


@dataclass(frozen=True)
class Distribution:
    """How one quantity is distributed.

    Attributes:
        kind: how it is counted.
        points: ascending: inner edges, or values.
        counts: studies in each bin, or of each value and of any other; last, those without a value.
        median: of the values; None where there is none.
    """

    kind: Kind
    points: tuple[float, ...]
    counts: tuple[int, ...]
    median: float | None

    def count(self, values: Iterable[float | None]) -> NDArray[np.int64]:
        """Counts other values in this distribution's bins, int64 [len(counts)]."""
        found = [self._place(value) for value in values]
        return np.bincount(np.array(found, np.int64), minlength=len(self.counts)).astype(np.int64)

    def _place(self, value: float | None) -> int:
        missing = len(self.counts) - 1
        if value is None:
            return missing
        place = int(np.searchsorted(self.points, value))
        if self.kind is Kind.BINS:
            return place
        is_known = place < len(self.points) and self.points[place] == value
        return place if is_known else missing - 1


@dataclass(frozen=True)
class Reference:
    """What is expected.

    Attributes:
        model: the export's version whose answers it is of.
        made_from: in words.
        distributions: by quantity.
    """

    model: str
    made_from: str
    distributions: Mapping[str, Distribution]


def make_reference(rows: Sequence[Mapping[str, float | None]], *, model: str, made_from: str) -> Reference:
    """Counts how each quantity is distributed.

    Args:
        rows: one a study. A quantity that a row does not name was not measured there, and the row does not
            count for it; None is a value that is missing.
        model: the export's version.
        made_from: in words, for the report.

    Raises:
        ValueError: fewer rows than `MIN_STUDIES`.
    """
    if len(rows) < MIN_STUDIES:
        raise ValueError(f"A reference must be of at least {MIN_STUDIES} studies. Received: {len(rows)}.")
    names = dict.fromkeys(name for row in rows for name in row)
    distributions = {name: _distribution([row[name] for row in rows if name in row]) for name in names}
    return Reference(model, made_from, distributions)


def reference_of_log(rows: Sequence[LogRow]) -> Reference:
    """Makes a reference of a period that was found to be well.

    Raises:
        ValueError: fewer rows than `MIN_STUDIES`, or answers of several versions.
    """
    models = sorted({row.model for row in rows})
    if len(models) > 1:
        raise ValueError(f"A reference must be of one version's answers. Received: {', '.join(models)}.")
    times = sorted(f"{row.time:%Y-%m-%d}" for row in rows)
    made_from = f"{len(rows)} studies of a log, {times[0]} to {times[-1]}" if rows else "nothing"
    return make_reference([row.values for row in rows], model="".join(models), made_from=made_from)


def _distribution(values: Sequence[float | None]) -> Distribution:
    known = np.array([value for value in values if value is not None], np.float64)
    distinct = np.unique(known)
    if len(distinct) <= _MAX_CATEGORIES:
        kind, points, num_places = Kind.CATEGORIES, distinct, len(distinct) + 1
    else:
        edges = np.quantile(known, np.arange(1, _NUM_BINS) / _NUM_BINS)
        kind, points = Kind.BINS, np.unique(edges)
        num_places = len(points) + 1
    median = float(np.median(known)) if known.size else None
    empty = Distribution(kind, tuple(map(float, points)), (0,) * (num_places + 1), median)
    return Distribution(kind, empty.points, tuple(map(int, empty.count(values))), median)


def write_reference(path: Path, reference: Reference) -> None:
    """Writes a reference as JSON, atomically."""
    content = {
        "model": reference.model,
        "made_from": reference.made_from,
        "quantities": {
            name: {
                "kind": each.kind.value,
                "points": each.points,
                "counts": each.counts,
                "median": each.median,
            }
            for name, each in reference.distributions.items()
        },
    }
    write_json_atomically(path, content, allow_nan=False)


def find_reference(path: Path) -> Path:
    """Returns the reference of a file, of a version's folder, or of the newest in a folder of versions.

    Raises:
        ValueError: there is none.
    """
    versions = sorted((int(each.name) for each in path.glob("*") if each.name.isdecimal()), reverse=True)
    candidates = [path, path / REFERENCE_PATH, *(path / str(each) / REFERENCE_PATH for each in versions[:1])]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise ValueError(
        f"--reference must be a reference.json, or an exported version that has one ({REFERENCE_PATH}). "
        f"Received: {path}."
    )


def read_reference(path: Path) -> Reference:
    """Reads a reference.

    Raises:
        ValueError: it is none.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return Reference(
            content["model"],
            content["made_from"],
            {name: _read_distribution(each) for name, each in content["quantities"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no reference: {error!r}.") from None


def _read_distribution(content: Mapping[str, Any]) -> Distribution:
    kind, points, counts = Kind(content["kind"]), tuple(content["points"]), tuple(content["counts"])
    if len(counts) != len(points) + 2 or list(points) != sorted(points):
        raise ValueError("a quantity must have ascending points and two more counts than points")
    return Distribution(kind, points, counts, content["median"])
