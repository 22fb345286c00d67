"""Reference distributions of the quantities: counts in bins, as JSON."""

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

#: Path in a version's folder; TF Serving ignores it.
REFERENCE_PATH = Path("assets.extra") / "reference.json"
#: Minimum number of studies of a distribution.
MIN_STUDIES = 30
#: Deciles, the usual choice for the population stability index.
_NUM_BINS = 10
#: A quantity with at most this many distinct values, such as the number of rows, is counted by value.
_MAX_CATEGORIES = 10


class Kind(Enum):
    """Kind of a distribution."""

    #: Counts between edges: bin k contains values above edge k - 1 and up to edge k.
    BINS = "bins"
    #: Counts by value; the second last count is that of all other values.
    CATEGORIES = "categories"


@dataclass(frozen=True)
class Distribution:
    """Distribution of one quantity.

    Attributes:
        kind: kind of the distribution.
        points: inner edges of the bins, or values, ascending.
        counts: number of studies in each bin, or with each value and with any other value; last, those
            without a value.
        median: median of the values; None without values.
    """

    kind: Kind
    points: tuple[float, ...]
    counts: tuple[int, ...]
    median: float | None

    def count(self, values: Iterable[float | None]) -> NDArray[np.int64]:
        """Counts other values in the bins of this distribution, int64 [len(counts)]."""
        places = [self._place(value) for value in values]
        return np.bincount(np.array(places, np.int64), minlength=len(self.counts)).astype(np.int64)

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
    """Expected distributions of the quantities.

    Attributes:
        model: version of the export whose predictions are described.
        made_from: description of the data.
        distributions: distribution by name of the quantity.
    """

    model: str
    made_from: str
    distributions: Mapping[str, Distribution]


def make_reference(rows: Sequence[Mapping[str, float | None]], *, model: str, made_from: str) -> Reference:
    """Returns the distributions of the quantities of some studies.

    Args:
        rows: quantities of each study. A quantity that is absent from a row was not measured, and the row
            does not count for it; None is a missing value, which is counted.
        model: version of the export.
        made_from: description of the data, for the report.

    Raises:
        ValueError: fewer rows than `MIN_STUDIES`.
    """
    if len(rows) < MIN_STUDIES:
        raise ValueError(f"A reference must have at least {MIN_STUDIES} studies. Received: {len(rows)}.")
    names = dict.fromkeys(name for row in rows for name in row)
    distributions = {name: _distribution([row[name] for row in rows if name in row]) for name in names}
    return Reference(model, made_from, distributions)


def reference_of_log(rows: Sequence[LogRow]) -> Reference:
    """Returns a reference from the log of an accepted period.

    Raises:
        ValueError: fewer rows than `MIN_STUDIES`, or predictions of several versions.
    """
    models = sorted({row.model for row in rows})
    if len(models) > 1:
        raise ValueError(
            f"A reference must have the predictions of one version. Received: {', '.join(models)}."
        )
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
                "kind": distribution.kind.value,
                "points": distribution.points,
                "counts": distribution.counts,
                "median": distribution.median,
            }
            for name, distribution in reference.distributions.items()
        },
    }
    write_json_atomically(path, content, allow_nan=False)


def find_reference(path: Path) -> Path:
    """Returns the path of a reference.

    Args:
        path: a reference, the folder of a version, or a folder of versions, of which the newest is used.

    Raises:
        ValueError: there is no reference.
    """
    versions = sorted(
        (int(folder.name) for folder in path.glob("*") if folder.name.isdecimal()), reverse=True
    )
    candidates = [path, path / REFERENCE_PATH]
    candidates += [path / str(version) / REFERENCE_PATH for version in versions[:1]]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise ValueError(
        f"--reference must be a reference.json, or an exported version with one ({REFERENCE_PATH}). "
        f"Received: {path}."
    )


def read_reference(path: Path) -> Reference:
    """Reads a reference.

    Raises:
        ValueError: the file is not a reference.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return Reference(
            content["model"],
            content["made_from"],
            {name: _read_distribution(quantity) for name, quantity in content["quantities"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} must be a reference. Received: {error!r}.") from None


def _read_distribution(content: Mapping[str, Any]) -> Distribution:
    kind, points, counts = Kind(content["kind"]), tuple(content["points"]), tuple(content["counts"])
    if len(counts) != len(points) + 2 or list(points) != sorted(points):
        raise ValueError("a quantity must have ascending points and two more counts than points")
    return Distribution(kind, points, counts, content["median"])
