"""How far a family's members lie apart: what `intervals.py` applies, and its JSON. NumPy only."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.ensemble.features import (
    NUM_SLOTS,
    answered,
    context_features,
    fill_missing,
    mean_features,
    member_features,
    patterns_of,
    softmax,
)
from lumbar_tf.labels import FINDINGS, NUM_FINDINGS, NUM_LEVELS, NUM_SEVERITIES, Family, Level

Floats = NDArray[np.float64]

#: Coefficients of a habit, over (1, mean of the members' centred log-probabilities).
HABIT_TERMS = 1 + NUM_SEVERITIES

#: Coefficients of the trend, over (1, t, t^2).
TREND_TERMS = 3


@dataclass(frozen=True)
class MemberVariance:
    """One family's, for each pattern of available sources; `spread_fitting.py` measures it.

    Attributes:
        habits: what a member says on average beside the mean of all, over (1, that mean), float64
            [num_patterns, num_members, 3, 4].
        trend: ln of one member's variance in log-odds as a polynomial of the answer's log-odds, float64
            [num_patterns, 3, 3], the constant first.
        bounds: log-odds between which the trend was measured, float64 [num_patterns, 3, 2].
        freedom: how many degrees of freedom the trend is worth beside a finding's own spread, float64
            [num_patterns, 3]; 0 where nothing was measured.
    """

    habits: Floats
    trend: Floats
    bounds: Floats
    freedom: Floats

    @staticmethod
    def empty(num_patterns: int, num_members: int) -> "MemberVariance":
        """Returns one that knows nothing: intervals come from each finding's own spread alone."""
        return MemberVariance(
            *(np.zeros(shape) for shape in variance_shapes(num_patterns, num_members).values())
        )

    def to_json(self) -> dict[str, Any]:
        """Returns lists by name."""
        return {each.name: getattr(self, each.name).tolist() for each in fields(self)}


def variance_shapes(num_patterns: int, num_members: int) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each attribute of `MemberVariance`, in their order."""
    return {
        "habits": (num_patterns, num_members, NUM_SEVERITIES, HABIT_TERMS),
        "trend": (num_patterns, NUM_SEVERITIES, TREND_TERMS),
        "bounds": (num_patterns, NUM_SEVERITIES, 2),
        "freedom": (num_patterns, NUM_SEVERITIES),
    }


def parse_member_variance(
    content: Mapping[str, Any], num_patterns: int, num_members: int, name: str
) -> MemberVariance:
    """Reads what `MemberVariance.to_json` gave.

    Raises:
        ValueError: a shape does not fit, or a number is not finite or negative where it counts.
        KeyError: a part is absent.
    """
    arrays = {}
    for part, shape in variance_shapes(num_patterns, num_members).items():
        array = np.array(content[part], np.float64)
        # An empty list of members loses its trailing axes in JSON.
        array = array.reshape(shape) if array.size == 0 and 0 in shape else array
        if array.shape != shape or not np.isfinite(array).all():
            raise ValueError(
                f"`{name}.{part}` must be finite, of shape {shape}. Received: shape {array.shape}."
            )
        arrays[part] = array
    if (arrays["freedom"] < 0).any():
        raise ValueError(f"`{name}.freedom` must not be negative. Received: {arrays['freedom'].min()}.")
    return MemberVariance(**arrays)


#: Version of the JSON written by `to_json`; a reader refuses any other.
FORMAT_VERSION = 3

#: 2^8 patterns is where the file, and a fit of each pattern, stop being small.
MAX_SOURCES = 8


class Head(Enum):
    """What an answer is for."""

    PROBABILITY = "probability"
    COMPETITION = "competition"


@dataclass(frozen=True)
class Coefficients:
    """One head of one family.

    Attributes:
        weights: W, float64 [num_patterns, num_members, 3, 3], applied as W @ x.
        context: V, float64 [num_patterns, 5 slots, 3, 3], applied as V @ c.
        bias: b, float64 [num_patterns, 5, 3].
        choices: how each pattern was fitted, in words, [num_patterns].
    """

    weights: Floats
    context: Floats
    bias: Floats
    choices: tuple[str, ...]


@dataclass(frozen=True)
class FamilyStacker:
    """The stacker of one family.

    Attributes:
        family: which.
        members: names of the members that cover it, in the stacker's order; may be empty.
        sources: what they read, each once; bit k of a pattern is source k.
        member_sources: index into `sources` of each member.
        num_labels: labelled rows that it was fitted on; 0 means that nothing was learned: no prior, no bias.
        heads: the coefficients of each head.
        spread: of its members, for intervals; None where it was not measured.
    """

    family: Family
    members: tuple[str, ...]
    sources: tuple[str, ...]
    member_sources: tuple[int, ...]
    num_labels: int
    heads: dict[Head, Coefficients]
    spread: MemberVariance | None = None

    @property
    def num_patterns(self) -> int:
        """Number of patterns of available sources, 2 to the number of sources."""
        return 1 << len(self.sources)

    @property
    def is_prior_only(self) -> bool:
        """Whether no member covers the family, so that every answer is the prior."""
        return not self.members


@dataclass(frozen=True)
class StackerCoefficients:
    """The stackers of all families over one list of members.

    Attributes:
        members: names of the members, the order of `apply_stacker`'s first axis.
        sources: what each member reads.
        context_centre: what the context is measured from, float64 [25, 3].
        families: one for each family, in the order of `Family`.
    """

    members: tuple[str, ...]
    sources: tuple[str, ...]
    context_centre: Floats
    families: tuple[FamilyStacker, ...]

    def family(self, family: Family) -> FamilyStacker:
        """Returns one family's stacker."""
        return self.families[list(Family).index(family)]

    def member_indices(self, family: Family) -> list[int]:
        """Returns the places in `members` of the members that cover a family."""
        return [self.members.index(name) for name in self.family(family).members]


@dataclass(frozen=True)
class Stacked:
    """A stacker's answers.

    Attributes:
        probability: calibrated probabilities, float64 [num_studies, 25, 3].
        competition: what the weighted metric rewards, float64 [num_studies, 25, 3].
        pattern: available sources of each finding, by its family's bits, int64 [num_studies, 25];
            0: the answer is the prior.
    """

    probability: Floats
    competition: Floats
    pattern: NDArray[np.int64]

    def head(self, head: Head) -> Floats:
        """Returns the answers of one head."""
        return self.probability if head is Head.PROBABILITY else self.competition


def family_findings(family: Family) -> tuple[list[int], NDArray[np.int64]]:
    """Returns the family's rows (both sides) and the level index, 0 to 4, of each."""
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
        Finite answers for every study and finding, whatever is missing.

    Raises:
        ValueError: the array's shape is not that of the stacker's members.
    """
    expected = (len(stacker.members), NUM_FINDINGS, NUM_SEVERITIES)
    if probabilities.ndim != 4 or (probabilities.shape[0], *probabilities.shape[2:]) != expected:
        raise ValueError(
            f"`probabilities` must be [{expected[0]}, num_studies, {NUM_FINDINGS}, {NUM_SEVERITIES}]. "
            f"Received: {probabilities.shape}."
        )
    num_studies = probabilities.shape[1]
    answers = {head: np.zeros((num_studies, NUM_FINDINGS, NUM_SEVERITIES)) for head in Head}
    pattern = np.zeros((num_studies, NUM_FINDINGS), np.int64)
    is_there, features = answered(probabilities), member_features(probabilities)
    context = context_features(mean_features(features, is_there), stacker.context_centre)
    for each in stacker.families:
        rows, levels = family_findings(each.family)
        mine = np.ix_(stacker.member_indices(each.family), range(num_studies), rows)
        pattern[:, rows] = patterns_of(probabilities[mine], each.member_sources)
        own = fill_missing(features[mine], is_there[mine])
        for head, fitted in each.heads.items():
            weights = fitted.weights[pattern[:, rows]]  # [num_studies, num_rows, num_members, 3, 3]
            logits = np.einsum("srmij,msrj->sri", weights, own)
            logits += np.einsum("srkij,srkj->sri", fitted.context[pattern[:, rows]], context[:, rows])
            answers[head][:, rows] = softmax(logits + fitted.bias[pattern[:, rows], levels[None, :]])
    return Stacked(answers[Head.PROBABILITY], answers[Head.COMPETITION], pattern)


def mean_in_logits(probabilities: Floats) -> Floats:
    """Returns softmax of the mean of the members' log-probabilities, NaN where none has a row.

    Args:
        probabilities: float64 [num_members, num_studies, 25, 3].

    Returns:
        float64 [num_studies, 25, 3].
    """
    finite = np.isfinite(probabilities).all(axis=-1)
    counts = finite.sum(axis=0)[..., None]
    mean = member_features(probabilities).sum(axis=0) / np.maximum(counts, 1)
    return np.where(counts > 0, softmax(mean), np.nan)


def to_json(stacker: StackerCoefficients) -> str:
    """Returns the stacker as JSON text; `from_json` reads it back bit for bit."""
    families = {
        each.family.value: {
            "members": each.members,
            "sources": each.sources,
            "num_labels": each.num_labels,
            "heads": {
                head.value: {
                    "weights": fitted.weights.tolist(),
                    "context": fitted.context.tolist(),
                    "bias": fitted.bias.tolist(),
                    "choices": fitted.choices,
                }
                for head, fitted in each.heads.items()
            },
            "spread": None if each.spread is None else each.spread.to_json(),
        }
        for each in stacker.families
    }
    members = [{"name": n, "source": s} for n, s in zip(stacker.members, stacker.sources, strict=True)]
    content = {
        "version": FORMAT_VERSION,
        "members": members,
        "context_centre": stacker.context_centre.tolist(),
        "families": families,
    }
    return json.dumps(content, indent=1)


def _read_array(values: Any, shape: tuple[int, ...], name: str) -> Floats:
    # An empty list of members loses its trailing axes in JSON: reshape restores them, and checks the rest.
    array = np.array(values, np.float64)
    if array.size == 0 and 0 in shape:
        array = array.reshape(shape)
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"`{name}` must be finite, of shape {shape}. Received: shape {array.shape}.")
    return array


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


def _read_family(family: Family, content: dict[str, Any], source_of: dict[str, str]) -> FamilyStacker:
    members, sources = tuple(content["members"]), tuple(content["sources"])
    unknown = [name for name in members if source_of.get(name) not in sources]
    if unknown or len(sources) > MAX_SOURCES:
        raise ValueError(
            f"Members of `{family.value}` must be members of the stacker with one of at most {MAX_SOURCES} "
            f"listed sources. Received: {unknown or list(sources)}."
        )
    heads = {
        head: _read_head(
            content["heads"][head.value], 1 << len(sources), len(members), f"{family.value}.{head.value}"
        )
        for head in Head
    }
    spread = content["spread"]
    if spread is not None:
        spread = parse_member_variance(spread, 1 << len(sources), len(members), f"{family.value}.spread")
    member_sources = tuple(sources.index(source_of[name]) for name in members)
    return FamilyStacker(family, members, sources, member_sources, int(content["num_labels"]), heads, spread)


def from_json(text: str) -> StackerCoefficients:
    """Reads what `to_json` wrote.

    Raises:
        ValueError: not JSON, another version, an absent part, a shape that does not fit, or a number that
            is not finite.
    """
    content = json.loads(text)
    version = content.get("version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        raise ValueError(f"A stacker's `version` must be {FORMAT_VERSION}. Received: {version!r}.")
    try:
        members = tuple(str(each["name"]) for each in content["members"])
        sources = tuple(str(each["source"]) for each in content["members"])
        source_of = dict(zip(members, sources, strict=True))
        centre = _read_array(content["context_centre"], (NUM_FINDINGS, NUM_SEVERITIES), "context_centre")
        families = tuple(_read_family(each, content["families"][each.value], source_of) for each in Family)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"A stacker's JSON must have all its parts. Missing or malformed: {error}."
        ) from error
    return StackerCoefficients(members, sources, centre, families)
