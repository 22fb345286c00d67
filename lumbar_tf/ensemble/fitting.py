"""Fits the stacker of `stacking.py` to out-of-fold predictions.

Every pattern of available sources has coefficients of its own, fitted on all rows that have at least those
sources, in the way that `candidates.py` chooses.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.ensemble.candidates import (
    CLASS_WEIGHTS,
    Rows,
    choose_heads,
    default_candidates,
    fit_candidate,
    log_weights,
)
from lumbar_tf.ensemble.oof import Members
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
from lumbar_tf.labels import MISSING_LABEL, NUM_FINDINGS, NUM_LEVELS, NUM_SEVERITIES, Family

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Labels = NDArray[np.integer]

#: Rows that the family's frequencies weigh in a level's prior.
_PRIOR_ROWS = 5.0
#: With more sources than this, a pattern that no row shows keeps to the default candidate.
_MAX_SOURCES_SEARCHED = 3


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
        draft.bias[head][0] = log_prior + (np.log(CLASS_WEIGHTS) if is_tilted else 0.0)
    return draft


def _fit_pattern(draft: _Draft, pattern: int, inside: Ints, rows: Rows, *, searches: bool) -> None:
    """Fits one pattern into the draft. `inside`: indices of the members whose sources are available."""
    has_sources = (rows.patterns & pattern) == pattern
    chosen_rows = rows.where(has_sources)
    chosen_rows = replace(chosen_rows, features=chosen_rows.features[:, inside])
    chosen = choose_heads(chosen_rows) if searches else default_candidates()
    for head, candidate in chosen.items():
        matrices, bias = fit_candidate(chosen_rows, candidate)
        draft.weights[head][pattern, inside] = matrices
        is_learned = chosen_rows.labels.size > 0
        draft.bias[head][pattern] = bias + (log_weights(head, candidate) if is_learned else 0.0)
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
