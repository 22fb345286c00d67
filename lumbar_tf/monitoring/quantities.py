"""What is kept of an answer: numbers that tell of the cohort and of nobody in it.

A quantity's name says where to look: `probability/<finding>/severe`, `disagreement/<condition>`,
`flags/<flag>`, `landmarks/found`, `images/<plane>/sharpness`, ... Its value is None where it could not be
measured, such as the sharpness of a missing plane.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lumbar_tf.labels import FINDINGS, NUM_LEVELS, Condition, Flag, Plane, Severity
from lumbar_tf.monitoring.images import measure_images

Quantities = dict[str, float | None]

#: The third grade's probability follows from these.
_LOGGED_GRADES = (Severity.NORMAL_MILD, Severity.SEVERE)
_DIGITS = 6


def measure_answer(
    probability: ArrayLike,
    members: ArrayLike,
    landmarks: ArrayLike,
    flags: ArrayLike,
    examples: Mapping[Plane, bytes],
    *,
    extras: Mapping[str, NDArray[Any]] | None = None,
) -> Quantities:
    """Measures one answered study.

    Args:
        probability: calibrated, [25, 3].
        members: each member alone, [member, 25, 3], NaN where it has no answer.
        landmarks: LPS mm, [25, 3], NaN where unknown.
        flags: bool [25, len(Flag)].
        examples: serialized Examples by plane.
        extras: other outputs of the model by name, [25, ...]: their means and maxima are kept.

    Returns:
        The quantities by name; no id, no date, no position of the patient.
    """
    measured = measure_probabilities(probability, members)
    flagged = np.asarray(flags, np.float64).mean(axis=0)
    measured.update({f"flags/{flag.value}": float(share) for flag, share in zip(Flag, flagged, strict=True)})
    measured.update(_measure_landmarks(np.asarray(landmarks, np.float64)))
    for name, values in (extras or {}).items():
        known = np.asarray(values, np.float64)
        known = known[np.isfinite(known)]
        measured[f"outputs/{name}/mean"] = float(known.mean()) if known.size else None
        measured[f"outputs/{name}/max"] = float(known.max()) if known.size else None
    measured.update(measure_planes(examples))
    return _rounded(measured)


def measure_probabilities(probability: ArrayLike, members: ArrayLike) -> Quantities:
    """Measures what was answered, alone.

    Args:
        probability: calibrated, [25, 3], NaN where there is none.
        members: [member, 25, 3], NaN likewise.

    Returns:
        `probability/<finding>/normal_mild` and `severe`; `disagreement/<condition>`, the standard deviation
        of the members' expected grades (0 to 2), averaged over the levels that two members answer.
    """
    values = np.asarray(probability, np.float64)
    measured: Quantities = {}
    for row, finding in enumerate(FINDINGS):
        for grade in _LOGGED_GRADES:
            value = float(values[row, grade])
            measured[f"probability/{finding.name}/{grade.column}"] = value if np.isfinite(value) else None
    grades = np.asarray(members, np.float64) @ np.arange(len(Severity))
    for place, condition in enumerate(Condition):
        mine = grades[:, place * NUM_LEVELS : (place + 1) * NUM_LEVELS]
        is_compared = np.isfinite(mine).sum(axis=0) > 1
        spread = np.nanstd(mine[:, is_compared], axis=0)
        measured[f"disagreement/{condition.value}"] = float(spread.mean()) if spread.size else None
    return _rounded(measured)


def measure_planes(examples: Mapping[Plane, bytes]) -> Quantities:
    """Measures the images of a study: `images/<plane>/present` and what `images.measure_images` gives."""
    measured: Quantities = {}
    for plane in Plane:
        found = measure_images(examples.get(plane, b""))
        measured[f"images/{plane.value}/present"] = float(found["slices"] is not None)
        measured.update({f"images/{plane.value}/{name}": value for name, value in found.items()})
    return _rounded(measured)


def _measure_landmarks(landmarks: NDArray[np.float64]) -> Quantities:
    """Measures how many points were found, and how far apart the discs are."""
    is_found = np.isfinite(landmarks).all(axis=-1)
    canal = landmarks[:NUM_LEVELS]  # the first condition's points: the canal, level by level
    spacing = np.linalg.norm(np.diff(canal, axis=0), axis=-1)
    spacing = spacing[np.isfinite(spacing)]
    return {
        "landmarks/found": float(is_found.sum()),
        "landmarks/level_spacing_mm": float(np.median(spacing)) if spacing.size else None,
    }


def _rounded(measured: Quantities) -> Quantities:
    return {name: None if value is None else round(value, _DIGITS) for name, value in measured.items()}
