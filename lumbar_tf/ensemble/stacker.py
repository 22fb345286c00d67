"""Coefficients of the stacker, their application and their JSON. NumPy only.

For each family of findings (sides and levels pooled), with members m that cover the family:

    x_m     = ln(clip(p_m, 1e-6, 1)) minus its mean over the three classes; a missing member is replaced by
              the mean of the available ones, and by 0 where none is available
    pattern = sum over sources k of 2^k where source k has a finite row
    c       = the context: predictions for the findings around (`features.py`)
    logits  = sum over m of W[pattern, m] @ x_m + sum over slots of V[pattern, slot] @ c_slot
              + b[pattern, level]
    output  = softmax(logits)

The exported graph computes the same from the same coefficients. There are two heads: `probability` is
calibrated to observed frequencies, `competition` minimises the weighted metric. `stacking_run.py` fits the
coefficients.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.ensemble.features import (
    NUM_SLOTS,
    context_features,
    fill_missing,
    is_available,
    mean_features,
    member_features,
    patterns_of,
    softmax,
)
from lumbar_tf.labels import FINDINGS, NUM_FINDINGS, NUM_LEVELS, NUM_SEVERITIES, Family, Level

Floats = NDArray[np.float64]

#: Version of the JSON that `to_json` writes; `from_json` rejects any other.
FORMAT_VERSION = 3
#: The file and the fit grow with 2 to the number of sources: 256 patterns at most.
MAX_SOURCES = 8
#: Coefficients of a member's bias, over (1, mean of the members' centred log-probabilities).
BIAS_TERMS = 1 + NUM_SEVERITIES
#: Coefficients of the log-variance, over (1, t, t^2) of the log-odds t.
LOG_VARIANCE_TERMS = 3


class Head(Enum):
    """Purpose of a prediction."""

    PROBABILITY = "probability"
    COMPETITION = "competition"


@dataclass(frozen=True)
class Coefficients:
    """Coefficients of one head of one family.

    Attributes:
        weights: W, float64 [num_patterns, num_members, 3, 3], applied as W @ x.
        context: V, float64 [num_patterns, 5 slots, 3, 3], applied as V @ c.
        bias: b, float64 [num_patterns, 5, 3].
        choices: description of how each pattern was fitted, [num_patterns].
    """

    weights: Floats
    context: Floats
    bias: Floats
    choices: tuple[str, ...]


@dataclass(frozen=True)
class MemberVariance:
    """Variation between the members of one family, for each pattern; measured by `member_variance.py`.

    Attributes:
        bias: systematic difference of each member from the mean of all, over (1, that mean), float64
            [num_patterns, num_members, 3, 4]; `habits` in JSON.
        log_variance: ln of one member's variance in log-odds as a polynomial of the ensemble's log-odds,
            float64 [num_patterns, 3, 3], constant first; `trend` in JSON.
        bounds: range of log-odds in which `log_variance` was measured, float64 [num_patterns, 3, 2].
        freedom: prior degrees of freedom of `log_variance` when it is pooled with the variance of a single
            finding, float64 [num_patterns, 3]; 0 where nothing was measured.
    """

    bias: Floats
    log_variance: Floats
    bounds: Floats
    freedom: Floats

    @staticmethod
    def empty(num_patterns: int, num_members: int) -> "MemberVariance":
        """Returns zeros: intervals then come from the variance of each finding alone."""
        return MemberVariance(*map(np.zeros, _variance_shapes(num_patterns, num_members).values()))


#: Key in JSON of each attribute of `MemberVariance`.
_VARIANCE_KEYS = {"bias": "habits", "log_variance": "trend", "bounds": "bounds", "freedom": "freedom"}


@dataclass(frozen=True)
class FamilyStacker:
    """The stacker of one family.

    Attributes:
        family: the family.
        members: names of the members that cover it, in the stacker's order; may be empty.
        sources: the members' distinct inputs; bit k of a pattern is source k.
        member_sources: index into `sources` of each member.
        num_labels: number of labelled rows that it was fitted to; with 0, prior and bias are uniform.
        heads: the coefficients of each head.
        member_variance: variation between the members, for intervals; None where it was not measured.
    """

    family: Family
    members: tuple[str, ...]
    sources: tuple[str, ...]
    member_sources: tuple[int, ...]
    num_labels: int
    heads: dict[Head, Coefficients]
    member_variance: MemberVariance | None = None

    @property
    def num_patterns(self) -> int:
        """Number of patterns of available sources, 2 to the number of sources."""
        return 1 << len(self.sources)


@dataclass(frozen=True)
class StackerCoefficients:
    """The stackers of all families over one list of members.

    Attributes:
        members: names of the members, in the order of the first axis of `apply_stacker`'s input.
        sources: the input of each member.
        context_centre: mean that the context is measured from, float64 [25, 3].
        families: one stacker for each family, in the order of `Family`.
    """

    members: tuple[str, ...]
    sources: tuple[str, ...]
    context_centre: Floats
    families: tuple[FamilyStacker, ...]

    def family(self, family: Family) -> FamilyStacker:
        """Returns one family's stacker."""
        return self.families[list(Family).index(family)]

    def member_indices(self, family: Family) -> list[int]:
        """Returns the indices in `members` of the members that cover a family."""
        return [self.members.index(name) for name in self.family(family).members]


@dataclass(frozen=True)
class Stacked:
    """Predictions of a stacker.

    Attributes:
        probability: calibrated probabilities, float64 [num_studies, 25, 3].
        competition: predictions that minimise the weighted metric, float64 [num_studies, 25, 3].
        pattern: available sources of each finding, as bits of its family's sources, int64 [num_studies, 25];
            0 where the prediction is the prior.
    """

    probability: Floats
    competition: Floats
    pattern: NDArray[np.int64]

    def head(self, head: Head) -> Floats:
        """Returns the predictions of one head."""
        return self.probability if head is Head.PROBABILITY else self.competition


def family_findings(family: Family) -> tuple[list[int], NDArray[np.int64]]:
    """Returns the indices of the family's findings (both sides), and the level index, 0 to 4, of each."""
    levels = list(Level)
    rows = [index for index, finding in enumerate(FINDINGS) if finding.condition.family is family]
    return rows, np.array([levels.index(FINDINGS[row].level) for row in rows])


def apply_stacker(stacker: StackerCoefficients, probabilities: Floats) -> Stacked:
    """Applies both heads.

    Args:
        stacker: a fitted stacker.
        probabilities: the members' predictions in the order of `stacker.members`, float64
            [num_members, num_studies, 25, 3], NaN where a member has none.

    Returns:
        Finite predictions for every study and finding, whatever is missing.

    Raises:
        ValueError: the array does not have the shape of the stacker's members.
    """
    expected = (len(stacker.members), NUM_FINDINGS, NUM_SEVERITIES)
    if probabilities.ndim != 4 or (probabilities.shape[0], *probabilities.shape[2:]) != expected:
        raise ValueError(
            f"`probabilities` must be [{expected[0]}, num_studies, {NUM_FINDINGS}, {NUM_SEVERITIES}]. "
            f"Received: {probabilities.shape}."
        )
    num_studies = probabilities.shape[1]
    predictions = {head: np.zeros((num_studies, NUM_FINDINGS, NUM_SEVERITIES)) for head in Head}
    pattern = np.zeros((num_studies, NUM_FINDINGS), np.int64)
    available, features = is_available(probabilities), member_features(probabilities)
    context = context_features(mean_features(features, available), stacker.context_centre)
    for part in stacker.families:
        rows, levels = family_findings(part.family)
        own = np.ix_(stacker.member_indices(part.family), range(num_studies), rows)
        pattern[:, rows] = patterns_of(probabilities[own], part.member_sources)
        filled = fill_missing(features[own], available[own])
        for head, coefficients in part.heads.items():
            weights = coefficients.weights[pattern[:, rows]]  # [num_studies, num_rows, num_members, 3, 3]
            logits = np.einsum("srmij,msrj->sri", weights, filled)
            logits += np.einsum("srkij,srkj->sri", coefficients.context[pattern[:, rows]], context[:, rows])
            logits += coefficients.bias[pattern[:, rows], levels[None, :]]
            predictions[head][:, rows] = softmax(logits)
    return Stacked(predictions[Head.PROBABILITY], predictions[Head.COMPETITION], pattern)


def mean_in_logits(probabilities: Floats) -> Floats:
    """Returns softmax of the mean of the members' log-probabilities, NaN where no member has a prediction.

    Args:
        probabilities: float64 [num_members, num_studies, 25, 3].

    Returns:
        float64 [num_studies, 25, 3].
    """
    mean = mean_features(member_features(probabilities), is_available(probabilities))
    return softmax(mean)


def to_json(stacker: StackerCoefficients) -> str:
    """Returns the stacker as JSON text; `from_json` restores it exactly."""
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
    return {
        "members": part.members,
        "sources": part.sources,
        "num_labels": part.num_labels,
        "heads": heads,
        "spread": spread,
    }


def from_json(text: str) -> StackerCoefficients:
    """Reads the result of `to_json`.

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
    member_sources = tuple(sources.index(source_of[name]) for name in members)
    return FamilyStacker(
        family, members, sources, member_sources, int(content["num_labels"]), heads, variance
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


def _variance_shapes(num_patterns: int, num_members: int) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each attribute of `MemberVariance`."""
    return {
        "bias": (num_patterns, num_members, NUM_SEVERITIES, BIAS_TERMS),
        "log_variance": (num_patterns, NUM_SEVERITIES, LOG_VARIANCE_TERMS),
        "bounds": (num_patterns, NUM_SEVERITIES, 2),
        "freedom": (num_patterns, NUM_SEVERITIES),
    }


def _read_variance(
    content: Mapping[str, Any], num_patterns: int, num_members: int, name: str
) -> MemberVariance:
    arrays = {
        attribute: _read_array(
            content[_VARIANCE_KEYS[attribute]], shape, f"{name}.{_VARIANCE_KEYS[attribute]}"
        )
        for attribute, shape in _variance_shapes(num_patterns, num_members).items()
    }
    if (arrays["freedom"] < 0).any():
        raise ValueError(f"`{name}.freedom` must not be negative. Received: {arrays['freedom'].min()}.")
    return MemberVariance(**arrays)


def _read_array(values: Any, shape: tuple[int, ...], name: str) -> Floats:
    # JSON drops the trailing axes of an empty list of members: restore them, and check all other shapes.
    array = np.array(values, np.float64)
    if array.size == 0 and 0 in shape:
        array = array.reshape(shape)
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"`{name}` must be finite, of shape {shape}. Received: shape {array.shape}.")
    return array
