"""Fits the stacker of `stacking.py` to out-of-fold predictions.

Every pattern of available sources has coefficients of its own, fitted on all rows that have at least those
sources. Starting point and centre of the ridge is the plain mean of the members' log-probabilities with
one temperature and a bias a level; how far levels and single members may deviate from it is chosen by
cross-validation over the given folds, and more freedom has to earn its place.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.ensemble.oof import Members
from lumbar_tf.ensemble.regression import fit_softmax
from lumbar_tf.ensemble.stacking import (
    MAX_SOURCES,
    Coefficients,
    FamilyStacker,
    Head,
    Stacked,
    Stacker,
    apply_stacker,
    family_findings,
    member_features,
    patterns_of,
)
from lumbar_tf.labels import MISSING_LABEL, NUM_FINDINGS, NUM_LEVELS, NUM_SEVERITIES, Family, Severity

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Labels = NDArray[np.integer]

#: A deviation that mixes classes is shrunk this many times harder than one that scales a member as a whole.
_MIXING_FACTOR = 4.0
_TEMPERATURE_PRECISION = 1.0
#: The bias of a family is all but free: it has the class frequencies to learn, and many rows.
_BIAS_PRECISION = 0.1
#: Rows that the family's frequencies weigh in a level's prior.
_PRIOR_ROWS = 5.0
#: A later candidate must beat an earlier one by this many standard errors of the difference.
_REQUIRED_STANDARD_ERRORS = 0.5
#: With more sources than this, a pattern that no row shows keeps to the plain mean.
_MAX_SOURCES_SEARCHED = 3

#: Places of the parameters of `_design`, behind the inverse of the temperature.
_BIASES = slice(1, 1 + NUM_SEVERITIES)
_LEVEL_BIASES = slice(_BIASES.stop, _BIASES.stop + NUM_LEVELS * NUM_SEVERITIES)

_CLASS_WEIGHTS = np.array([severity.weight for severity in Severity])


@dataclass(frozen=True)
class Rows:
    """Labelled rows of a family.

    Attributes:
        features: x of `stacking.py`, float64 [num_rows, num_members, 3].
        levels: int64 [num_rows], 0 to 4.
        labels: int64 [num_rows], 0 to 2.
        studies: index of each row's study, [num_rows].
        folds: fold of each row, [num_rows].
        patterns: available sources, [num_rows].
    """

    features: Floats
    levels: Ints
    labels: Ints
    studies: Ints
    folds: Ints
    patterns: Ints

    def where(self, chosen: NDArray[np.bool_]) -> "Rows":
        """Returns the rows chosen by a mask."""
        return Rows(
            self.features[chosen],
            self.levels[chosen],
            self.labels[chosen],
            self.studies[chosen],
            self.folds[chosen],
            self.patterns[chosen],
        )


@dataclass(frozen=True)
class Candidate:
    """One way to fit a pattern.

    Attributes:
        level_precision: ridge on a level's bias, in nats for a bias of 1; None fits nothing at all: the
            mean of the members' log-probabilities as it comes.
        deviation_precision: ridge on a member's deviation from the mean, likewise; None allows none.
        is_weighted: whether rows carry the competition's weights while fitting. If not, the competition
            head adds ln 1, 2, 4 to the bias, which is the same with infinite data and steadier with little.
    """

    level_precision: float | None
    deviation_precision: float | None = None
    is_weighted: bool = False

    @property
    def words(self) -> str:
        """How `Coefficients.choices` tells it."""
        if self.level_precision is None:
            return "plain mean as it comes"
        members = (
            "mean" if self.deviation_precision is None else f"members (ridge {self.deviation_precision:g})"
        )
        weights = ", weighted" if self.is_weighted else ""
        return f"{members}, level bias (ridge {self.level_precision:g}){weights}"


#: What a head may choose from; the first stays unless another earns its place. The order and the ridges were
#: found on synthetic tables of 100 studies, where a ridge of 1 on the levels' biases cost 0.010 of the score
#: against 25, and a weighted fit 0.002 against an unweighted one.
_UNWEIGHTED = (
    Candidate(25.0),
    Candidate(None),
    Candidate(1000.0),
    Candidate(5.0),
    Candidate(25.0, 100.0),
    Candidate(25.0, 30.0),
    Candidate(5.0, 30.0),
    Candidate(5.0, 10.0),
)
CANDIDATES: dict[Head, tuple[Candidate, ...]] = {
    Head.PROBABILITY: _UNWEIGHTED,
    Head.COMPETITION: (
        *_UNWEIGHTED,
        Candidate(25.0, is_weighted=True),
        Candidate(25.0, 100.0, is_weighted=True),
        Candidate(5.0, 30.0, is_weighted=True),
        Candidate(5.0, 10.0, is_weighted=True),
    ),
}


def family_members(members: Members, family: Family) -> list[int]:
    """Returns the members with a finite row in the family."""
    rows, _ = family_findings(family)
    own = members.probabilities[:, :, rows]
    return [index for index, member in enumerate(own) if np.isfinite(member).all(axis=-1).any()]


def level_prior(labels: Ints, levels: Ints) -> Floats:
    """Returns smoothed class frequencies of each level, [5, 3]; uniform where there is no label at all."""
    counts = np.zeros((NUM_LEVELS, NUM_SEVERITIES))
    np.add.at(counts, (levels, labels), 1.0)
    pooled = (counts.sum(axis=0) + 1.0) / (counts.sum() + NUM_SEVERITIES)
    smoothed = counts + _PRIOR_ROWS * pooled
    prior: Floats = smoothed / smoothed.sum(axis=1, keepdims=True)
    return prior


def _design(features: Floats, levels: Ints, *, deviates: bool) -> tuple[Floats, Floats, Floats]:
    """Returns (design [num_rows, 3, num_parameters], centre, precision factors of its parameters).

    Parameters: temperature's inverse, 3 biases, 5 x 3 level biases, then if `deviates` a scale for each
    member and a 3 x 3 mixture for each member; the candidate multiplies the latter groups' precisions.
    """
    num_rows, num_members, _ = features.shape
    eye = np.eye(NUM_SEVERITIES)
    level_columns = np.einsum("nl,ik->nilk", np.eye(NUM_LEVELS)[levels], eye).reshape(
        num_rows, NUM_SEVERITIES, -1
    )
    blocks = [features.mean(axis=1)[:, :, None], np.broadcast_to(eye, (num_rows, *eye.shape)), level_columns]
    precision = [_TEMPERATURE_PRECISION, *[_BIAS_PRECISION] * NUM_SEVERITIES]
    precision += [1.0] * (NUM_LEVELS * NUM_SEVERITIES)
    if deviates:
        mixtures = np.einsum("nmj,ik->nimkj", features, eye).reshape(num_rows, NUM_SEVERITIES, -1)
        blocks += [features.transpose(0, 2, 1), mixtures]
        precision += [1.0] * num_members + [_MIXING_FACTOR] * (num_members * NUM_SEVERITIES**2)
    centre = np.zeros(len(precision))
    centre[0] = 1.0
    return np.concatenate(blocks, axis=2), centre, np.array(precision)


def fit_candidate(rows: Rows, candidate: Candidate) -> tuple[Floats, Floats]:
    """Fits one candidate.

    Args:
        rows: labelled rows whose `features` hold the pattern's members only.
        candidate: how to fit.

    Returns:
        W float64 [num_members, 3, 3] and b float64 [5, 3]; with no rows, the plain mean and no bias.
    """
    num_members = rows.features.shape[1]
    eye = np.eye(NUM_SEVERITIES)
    plain = np.broadcast_to(eye / num_members, (num_members, *eye.shape))
    if candidate.level_precision is None:
        return plain.copy(), np.zeros((NUM_LEVELS, NUM_SEVERITIES))
    deviates = candidate.deviation_precision is not None
    design, centre, precision = _design(rows.features, rows.levels, deviates=deviates)
    precision[_LEVEL_BIASES] *= candidate.level_precision
    precision[_LEVEL_BIASES.stop :] *= candidate.deviation_precision or 1.0
    weights = _CLASS_WEIGHTS[rows.labels] if candidate.is_weighted else np.ones(len(rows.labels))
    if weights.size:
        weights = weights / weights.mean()  # so that a precision means the same to both heads
    fitted = fit_softmax(design, rows.labels, weights, centre=centre, precision=precision)
    matrices = fitted[0] * plain
    if deviates:
        scales, mixtures = np.split(fitted[_LEVEL_BIASES.stop :], [num_members])
        matrices = matrices + scales[:, None, None] * eye + mixtures.reshape(num_members, *eye.shape)
    return matrices, fitted[_BIASES] + fitted[_LEVEL_BIASES].reshape(NUM_LEVELS, -1)


def _row_losses(rows: Rows, fitted: tuple[Floats, Floats], log_weights: Floats) -> Floats:
    """Returns -ln p(label) of each row, [num_rows], with `log_weights` [3] added to the logits."""
    matrices, bias = fitted
    logits = np.einsum("mij,nmj->ni", matrices, rows.features) + bias[rows.levels] + log_weights
    top = logits.max(axis=1)
    log_sums = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return log_sums - logits[np.arange(len(rows.labels)), rows.labels]


def _log_weights(head: Head, candidate: Candidate) -> Floats:
    """Returns what the head adds to the logits of an unweighted fit, [3]."""
    is_tilted = (
        head is Head.COMPETITION and not candidate.is_weighted and candidate.level_precision is not None
    )
    return np.log(_CLASS_WEIGHTS) if is_tilted else np.zeros(NUM_SEVERITIES)


def _cross_validate(rows: Rows) -> dict[Head, dict[Candidate, Floats]]:
    """Returns for each head and candidate the held-out loss of each row, [num_rows]."""
    losses: dict[Head, dict[Candidate, Floats]] = {
        head: {each: np.zeros(len(rows.labels)) for each in CANDIDATES[head]} for head in Head
    }
    for fold in np.unique(rows.folds):
        held_out = rows.folds == fold
        training, testing = rows.where(~held_out), rows.where(held_out)
        for candidate in CANDIDATES[Head.COMPETITION]:  # the other head's are among them
            fitted = fit_candidate(training, candidate)
            for head, tables in losses.items():
                if candidate in tables:
                    tables[candidate][held_out] = _row_losses(testing, fitted, _log_weights(head, candidate))
    return losses


def choose(losses: dict[Candidate, Floats], weights: Floats, studies: Ints) -> Candidate:
    """Returns the first candidate that no later one beats by half a standard error, over studies.

    Args:
        losses: held-out loss of each row, by candidate in the order of preference.
        weights: of each row, [num_rows].
        studies: study of each row: rows of one study are not independent.
    """
    candidates = list(losses)
    chosen = candidates[0]
    for candidate in candidates[1:]:
        gains = np.bincount(studies, weights=weights * (losses[chosen] - losses[candidate]))
        gains = gains[np.unique(studies)]
        standard_error = gains.std() * np.sqrt(len(gains))
        if gains.sum() > _REQUIRED_STANDARD_ERRORS * standard_error:
            chosen = candidate
    return chosen


def _choose_heads(rows: Rows) -> dict[Head, Candidate]:
    default = {head: CANDIDATES[head][0] for head in Head}
    if len(np.unique(rows.folds)) < 2:
        return default
    losses = _cross_validate(rows)
    weights = {Head.PROBABILITY: np.ones(len(rows.labels)), Head.COMPETITION: _CLASS_WEIGHTS[rows.labels]}
    return {head: choose(losses[head], weights[head], rows.studies) for head in Head}


@dataclass
class _Draft:
    """The coefficients of a family while its patterns are fitted one by one."""

    weights: dict[Head, Floats]
    bias: dict[Head, Floats]
    choices: dict[Head, list[str]]

    def coefficients(self, head: Head) -> Coefficients:
        return Coefficients(self.weights[head], self.bias[head], tuple(self.choices[head]))


def _start_draft(rows: Rows, num_patterns: int, num_members: int) -> _Draft:
    """Returns a draft whose pattern 0 is the smoothed level prior."""
    log_prior = np.log(level_prior(rows.labels, rows.levels))
    draft = _Draft(
        {head: np.zeros((num_patterns, num_members, NUM_SEVERITIES, NUM_SEVERITIES)) for head in Head},
        {head: np.zeros((num_patterns, NUM_LEVELS, NUM_SEVERITIES)) for head in Head},
        {head: ["level prior" if rows.labels.size else "uniform: no label"] for head in Head},
    )
    for head in Head:
        # Without any label both heads say uniform: there is nothing to weigh.
        is_tilted = head is Head.COMPETITION and rows.labels.size > 0
        draft.bias[head][0] = log_prior + (np.log(_CLASS_WEIGHTS) if is_tilted else 0.0)
    return draft


def _fit_pattern(draft: _Draft, pattern: int, inside: Ints, rows: Rows, *, searches: bool) -> None:
    """Fits one pattern into the draft. `inside`: indices of the members whose sources are available."""
    has_sources = (rows.patterns & pattern) == pattern
    chosen_rows = rows.where(has_sources)
    chosen_rows = Rows(**{**vars(chosen_rows), "features": chosen_rows.features[:, inside]})
    default = {head: CANDIDATES[head][0] for head in Head}
    chosen = _choose_heads(chosen_rows) if searches else default
    for head, candidate in chosen.items():
        matrices, bias = fit_candidate(chosen_rows, candidate)
        draft.weights[head][pattern, inside] = matrices
        is_learned = chosen_rows.labels.size > 0
        draft.bias[head][pattern] = bias + (_log_weights(head, candidate) if is_learned else 0.0)
        draft.choices[head].append(candidate.words if is_learned else "plain mean: no label")


def _family_rows(
    probabilities: Floats, member_sources: tuple[int, ...], family: Family, labels: Labels, folds: Labels
) -> Rows:
    """Returns the labelled rows of a family over its members [num_members, num_studies, 25, 3]."""
    findings, levels = family_findings(family)
    own = probabilities[:, :, findings]
    is_labelled = labels[:, findings] != MISSING_LABEL
    studies, places = np.nonzero(is_labelled)
    return Rows(
        features=member_features(own)[:, is_labelled].transpose(1, 0, 2),
        levels=levels[places],
        labels=labels[:, findings][is_labelled].astype(np.int64),
        studies=studies,
        folds=folds[studies].astype(np.int64),
        patterns=patterns_of(own, member_sources)[is_labelled],
    )


def _fit_family(
    members: Members, labels: Labels, folds: Labels, family: Family, *, only_observed: bool
) -> FamilyStacker:
    """Fits one family; `only_observed` leaves patterns that no row shows at zero."""
    indices = family_members(members, family)
    sources = tuple(dict.fromkeys(members.sources[i] for i in indices))
    if len(sources) > MAX_SOURCES:
        raise ValueError(
            f"A family may have at most {MAX_SOURCES} sources. Received: {list(sources)} for {family.value}."
        )
    member_sources = tuple(sources.index(members.sources[i]) for i in indices)
    own = members.probabilities[indices]
    rows = _family_rows(own, member_sources, family, labels, folds)
    observed = set(np.unique(patterns_of(own[:, :, family_findings(family)[0]], member_sources)).tolist())
    draft = _start_draft(rows, 1 << len(sources), len(indices))
    for pattern in range(1, 1 << len(sources)):
        if only_observed and pattern not in observed:
            for head in Head:
                draft.choices[head].append("not fitted")
            continue
        inside = np.flatnonzero([pattern >> source & 1 for source in member_sources])
        searches = pattern in observed or len(sources) <= _MAX_SOURCES_SEARCHED
        _fit_pattern(draft, pattern, inside, rows, searches=searches)
    heads = {head: draft.coefficients(head) for head in Head}
    names = tuple(members.names[i] for i in indices)
    return FamilyStacker(family, names, sources, member_sources, len(rows.labels), heads)


def _check(members: Members, labels: Labels, folds: Labels) -> None:
    num_studies = members.probabilities.shape[1]
    if labels.shape != (num_studies, NUM_FINDINGS) or folds.shape != (num_studies,):
        raise ValueError(
            f"`labels` must be [{num_studies}, {NUM_FINDINGS}] and `folds` [{num_studies}] long. "
            f"Received: {labels.shape} and {folds.shape}."
        )


def fit_stacker(members: Members, labels: Labels, folds: Labels) -> Stacker:
    """Fits both heads of all families.

    Args:
        members: out-of-fold predictions.
        labels: int [num_studies, 25], -1 where missing. A family without labels keeps the plain mean; one
            without members answers with its level prior, uniform if it has no label either.
        folds: fold of each study, int [num_studies]; folds hold patients whole.

    Raises:
        ValueError: shapes disagree, or a family has more than `MAX_SOURCES` sources.
    """
    _check(members, labels, folds)
    families = (_fit_family(members, labels, folds, family, only_observed=False) for family in Family)
    return Stacker(members.names, members.sources, tuple(families))


def nested_predictions(members: Members, labels: Labels, folds: Labels) -> Stacked:
    """Predicts each fold with a stacker that was fitted, and chosen, on the other folds.

    Args:
        members: out-of-fold predictions.
        labels: int [num_studies, 25], -1 where missing.
        folds: fold of each study, int [num_studies].

    Returns:
        Stacked answers for all studies, none of whose own labels had a part in them.

    Raises:
        ValueError: as `fit_stacker`, or there is but one fold.
    """
    _check(members, labels, folds)
    if len(np.unique(folds)) < 2:
        raise ValueError(
            f"Nested predictions must have at least two folds. Received: folds {np.unique(folds).tolist()}."
        )
    answers = [np.zeros(members.probabilities.shape[1:]) for _ in Head]
    pattern = np.zeros(labels.shape, np.int64)
    for fold in np.unique(folds):
        held_out = folds == fold
        # The members stay as they are, so that patterns mean the same in every fold; only labels are hidden.
        known = np.where(held_out[:, None], MISSING_LABEL, labels)
        families = (_fit_family(members, known, folds, family, only_observed=True) for family in Family)
        stacker = Stacker(members.names, members.sources, tuple(families))
        stacked = apply_stacker(stacker, members.probabilities[:, held_out])
        for answer, head in zip(answers, Head, strict=True):
            answer[held_out] = stacked.head(head)
        pattern[held_out] = stacked.pattern
    return Stacked(answers[0], answers[1], pattern)
