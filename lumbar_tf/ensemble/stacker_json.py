"""JSON of a fitted stacker. NumPy only."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.ensemble.features import (
    NUM_SLOTS,
)
from lumbar_tf.ensemble.prediction_sets import SetThresholds, check_coverage
from lumbar_tf.ensemble.stacker import (
    BIAS_TERMS,
    LOG_VARIANCE_TERMS,
    MAX_SOURCES,
    Coefficients,
    FamilyStacker,
    Head,
    MemberVariance,
    StackerCoefficients,
)
from lumbar_tf.labels import NUM_FINDINGS, NUM_LEVELS, NUM_SEVERITIES, Family

Floats = NDArray[np.float64]

#: Version of the JSON that `stacker_to_json` writes; `stacker_from_json` rejects any other.
FORMAT_VERSION = 3
#: Key in JSON of each attribute of `MemberVariance`.
_VARIANCE_KEYS = {"bias": "habits", "log_variance": "trend", "bounds": "bounds", "freedom": "freedom"}


def stacker_to_json(stacker: StackerCoefficients) -> str:
    """Returns the stacker as JSON text; `stacker_from_json` restores it exactly."""
    members = [{"name": n, "source": s} for n, s in zip(stacker.members, stacker.sources, strict=True)]
    content = {
        "version": FORMAT_VERSION,
        "members": members,
        "context_centre": stacker.context_centre.tolist(),
        "families": {part.family.value: _family_json(part) for part in stacker.families},
    }
    return json.dumps(content, indent=1)


def _family_json(part: FamilyStacker) -> dict[str, Any]:
    heads = {
        head.value: {
            "weights": coefficients.weights.tolist(),
            "context": coefficients.context.tolist(),
            "bias": coefficients.bias.tolist(),
            "choices": coefficients.choices,
        }
        for head, coefficients in part.heads.items()
    }
    variance = part.member_variance
    spread = variance and {key: getattr(variance, name).tolist() for name, key in _VARIANCE_KEYS.items()}
    sets = part.set_thresholds and {
        "coverage": part.set_thresholds.coverage,
        "thresholds": part.set_thresholds.thresholds.tolist(),
        "num_rows": part.set_thresholds.num_rows.tolist(),
    }
    return {
        "members": part.members,
        "sources": part.sources,
        "num_labels": part.num_labels,
        "heads": heads,
        "spread": spread,
        "prediction_sets": sets,
    }


def stacker_from_json(text: str) -> StackerCoefficients:
    """Reads the result of `stacker_to_json`.

    Raises:
        ValueError: the text is not JSON, has another version, lacks a part, or has an array with a wrong
            shape or with values that are not finite.
    """
    content = json.loads(text)
    version = content.get("version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        raise ValueError(f"A stacker's `version` must be {FORMAT_VERSION}. Received: {version!r}.")
    try:
        members = tuple(str(member["name"]) for member in content["members"])
        sources = tuple(str(member["source"]) for member in content["members"])
        source_of = dict(zip(members, sources, strict=True))
        centre = _read_array(content["context_centre"], (NUM_FINDINGS, NUM_SEVERITIES), "context_centre")
        families = tuple(
            _read_family(family, content["families"][family.value], source_of) for family in Family
        )
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"A stacker's JSON must have all its parts. Missing or malformed: {error}."
        ) from error
    return StackerCoefficients(members, sources, centre, families)


def _read_family(family: Family, content: dict[str, Any], source_of: dict[str, str]) -> FamilyStacker:
    members, sources = tuple(content["members"]), tuple(content["sources"])
    unknown = [name for name in members if source_of.get(name) not in sources]
    if unknown or len(sources) > MAX_SOURCES:
        raise ValueError(
            f"Members of `{family.value}` must be members of the stacker with one of at most {MAX_SOURCES} "
            f"listed sources. Received: {unknown or list(sources)}."
        )
    sizes = (1 << len(sources), len(members))
    heads = {
        head: _read_head(content["heads"][head.value], *sizes, f"{family.value}.{head.value}")
        for head in Head
    }
    spread = content["spread"]
    variance = None if spread is None else _read_variance(spread, *sizes, f"{family.value}.spread")
    # Absent from the files of earlier releases.
    sets = content.get("prediction_sets")
    thresholds = None if sets is None else _read_sets(sets, sizes[0], f"{family.value}.prediction_sets")
    member_sources = tuple(sources.index(source_of[name]) for name in members)
    return FamilyStacker(
        family, members, sources, member_sources, int(content["num_labels"]), heads, variance, thresholds
    )


def _read_head(content: dict[str, Any], num_patterns: int, num_members: int, name: str) -> Coefficients:
    square = (NUM_SEVERITIES, NUM_SEVERITIES)
    choices = tuple(str(choice) for choice in content["choices"])
    if len(choices) != num_patterns:
        raise ValueError(f"`{name}.choices` must have {num_patterns} entries. Received: {len(choices)}.")
    bias_shape = (num_patterns, NUM_LEVELS, NUM_SEVERITIES)
    return Coefficients(
        _read_array(content["weights"], (num_patterns, num_members, *square), f"{name}.weights"),
        _read_array(content["context"], (num_patterns, NUM_SLOTS, *square), f"{name}.context"),
        _read_array(content["bias"], bias_shape, f"{name}.bias"),
        choices,
    )


def _read_variance(
    content: Mapping[str, Any], num_patterns: int, num_members: int, name: str
) -> MemberVariance:
    shapes = {
        "bias": (num_patterns, num_members, NUM_SEVERITIES, BIAS_TERMS),
        "log_variance": (num_patterns, NUM_SEVERITIES, LOG_VARIANCE_TERMS),
        "bounds": (num_patterns, NUM_SEVERITIES, 2),
        "freedom": (num_patterns, NUM_SEVERITIES),
    }
    arrays = {}
    for attribute, key in _VARIANCE_KEYS.items():
        arrays[attribute] = _read_array(content[key], shapes[attribute], f"{name}.{key}")
    if (arrays["freedom"] < 0).any():
        raise ValueError(f"`{name}.freedom` must not be negative. Received: {arrays['freedom'].min()}.")
    return MemberVariance(**arrays)


def _read_sets(content: Mapping[str, Any], num_patterns: int, name: str) -> SetThresholds:
    coverage = float(content["coverage"])
    check_coverage(coverage)
    shape = (num_patterns, NUM_SEVERITIES)
    thresholds = _read_array(content["thresholds"], shape, f"{name}.thresholds")
    num_rows = _read_array(content["num_rows"], shape, f"{name}.num_rows")
    for key, values in (("thresholds", thresholds), ("num_rows", num_rows)):
        if (values < 0).any():
            raise ValueError(f"`{name}.{key}` must not be negative. Received: {values.min():g}.")
    return SetThresholds(coverage, thresholds, num_rows.astype(np.int64))


def _read_array(values: Any, shape: tuple[int, ...], name: str) -> Floats:
    # JSON drops the trailing axes of an empty list of members: restore them, and check all other shapes.
    array = np.array(values, np.float64)
    if array.size == 0 and 0 in shape:
        array = array.reshape(shape)
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"`{name}` must be finite, of shape {shape}. Received: shape {array.shape}.")
    return array
