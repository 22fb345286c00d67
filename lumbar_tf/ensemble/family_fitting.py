"""Fit of one family's part of the stacker.

Each pattern of available sources has its own coefficients, fitted to all rows that have at least those
sources. Frequent patterns choose their candidate by cross-validation (`search.py`), rare patterns use the
choice of the nearest frequent one, and all others the default.
"""

from collections.abc import Mapping
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.ensemble.candidates import (
    CLASS_WEIGHTS,
    Candidate,
    Rows,
    default_candidates,
    log_weights,
)
from lumbar_tf.ensemble.features import (
    NUM_SLOTS,
    context_centre,
    context_features,
    fill_missing,
    is_available,
    mean_features,
    member_features,
    patterns_of,
    softmax,
)
from lumbar_tf.ensemble.prediction_sets import COVERAGE, SetThresholds, fit_thresholds
from lumbar_tf.ensemble.search import Folds, PatternSearch, split_folds
from lumbar_tf.ensemble.shrinkage import Shrinkage, find_shrinkage
from lumbar_tf.ensemble.stacker import MAX_SOURCES, Coefficients, FamilyStacker, Head, family_findings
from lumbar_tf.labels import MISSING_LABEL, NUM_LEVELS, NUM_SEVERITIES, Family
from lumbar_tf.tables.out_of_fold import Members

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Labels = NDArray[np.integer]
#: The candidate of each head.
Forms = Mapping[Head, Candidate]

#: Weight of the family's class frequencies in a level's prior, in rows.
_PRIOR_ROWS = 5.0
#: With at most this many sources every pattern is searched, even one that no row has.
_MAX_SOURCES_SEARCHED = 3
#: With more sources, a pattern is searched if it has this share of the rows and is one of the most frequent
#: ones.
_MIN_SHARE_SEARCHED = 0.05
_MAX_SEARCHED = 4
#: Number of the most frequent patterns that use the choice of the nearest searched one; the rest use the
#: default.
_MAX_INHERITED = 16


def family_members(members: Members, family: Family) -> list[int]:
    """Returns the indices of the members with a finite row in the family."""
    rows, _ = family_findings(family)
    own = members.probabilities[:, :, rows]
    return [index for index, member in enumerate(own) if np.isfinite(member).all(axis=-1).any()]


def level_prior(labels: Ints, levels: Ints) -> Floats:
    """Returns the smoothed class frequencies of each level, [5, 3]; uniform without any label."""
    counts = np.zeros((NUM_LEVELS, NUM_SEVERITIES))
    np.add.at(counts, (levels, labels), 1.0)
    pooled = (counts.sum(axis=0) + 1.0) / (counts.sum() + NUM_SEVERITIES)
    smoothed = counts + _PRIOR_ROWS * pooled
    prior: Floats = smoothed / smoothed.sum(axis=1, keepdims=True)
    return prior


class FamilyFitter:
    """Fits one family's stacker, to all folds or without some folds' labels.

    Attributes:
        family: the family.
        sources: the distinct inputs of its members.
        indices: indices of its members in the list of all members.
    """

    def __init__(
        self,
        members: Members,
        labels: Labels,
        folds: Labels,
        family: Family,
        *,
        forms: Forms | None = None,
        coverage: float = COVERAGE,
    ) -> None:
        self.family = family
        self._coverage = coverage
        self._forms = forms
        self.indices = family_members(members, family)
        self.sources = tuple(dict.fromkeys(members.sources[i] for i in self.indices))
        if len(self.sources) > MAX_SOURCES:
            raise ValueError(
                f"A family may have at most {MAX_SOURCES} sources. "
                f"Received: {list(self.sources)} for {family.value}."
            )
        self.member_sources = tuple(self.sources.index(members.sources[i]) for i in self.indices)
        self._members = members
        findings, self._levels = family_findings(family)
        self._findings = findings
        self._labels = labels[:, findings].astype(np.int64)
        self._is_labelled = self._labels != MISSING_LABEL
        self._studies, self._places = np.nonzero(self._is_labelled)
        self._groups = split_folds(folds)
        self._patterns = patterns_of(members.probabilities[self.indices][:, :, findings], self.member_sources)
        self._searches: dict[int, PatternSearch] = {}
        self._shrinkages: dict[tuple[int, Folds, Candidate], Shrinkage] = {}

    @property
    def num_patterns(self) -> int:
        """Number of patterns, 2 to the number of sources."""
        return 1 << len(self.sources)

    def members_inside(self, pattern: int) -> list[int]:
        """Returns the members whose source a pattern has, as indices into the family's members."""
        return [place for place, source in enumerate(self.member_sources) if pattern >> source & 1]

    def fit_without(self, held_out: NDArray[np.bool_]) -> FamilyStacker:
        """Fits the patterns that occur in the held-out studies, without the labels of these studies.

        Args:
            held_out: whether a study is held out, bool [num_studies]; whole folds.
        """
        excluded = frozenset(np.unique(self._groups[held_out]).tolist())
        return self.fit(excluded, set(np.unique(self._patterns[held_out]).tolist()))

    @cached_property
    def _features(self) -> Floats:
        return member_features(self._members.probabilities)

    def _pattern_rows(self, pattern: int) -> Rows:
        """Returns the labelled rows with at least the pattern's sources, without members of other sources."""
        hidden = {self.indices[p] for p in set(range(len(self.indices))) - set(self.members_inside(pattern))}
        visible = [index for index in range(len(self._members.names)) if index not in hidden]
        available = is_available(self._members.probabilities[visible])
        features = self._features[visible]
        mean = mean_features(features, available)
        context = context_features(mean, context_centre(mean))[:, self._findings]
        own = np.ix_([visible.index(self.indices[p]) for p in self.members_inside(pattern)])[0]
        filled = fill_missing(features[own][:, :, self._findings], available[own][:, :, self._findings])
        has_sources = (self._patterns[self._is_labelled] & pattern) == pattern
        studies, places = self._studies[has_sources], self._places[has_sources]
        return Rows(
            features=filled[:, studies, places].transpose(1, 0, 2),
            context=context[studies, places],
            levels=self._levels[places],
            labels=self._labels[studies, places],
            studies=studies,
            folds=self._groups[studies],
        )

    def _search(self, pattern: int) -> PatternSearch:
        if pattern not in self._searches:
            self._searches[pattern] = PatternSearch(self._pattern_rows(pattern))
        return self._searches[pattern]

    @cached_property
    def _common(self) -> list[int]:
        """Patterns that occur, labelled or not, the most frequent first; without pattern 0."""
        counts = np.bincount(self._patterns.ravel(), minlength=self.num_patterns)
        counts[0] = 0
        return [int(pattern) for pattern in np.argsort(-counts, kind="stable") if counts[pattern]]

    @cached_property
    def _searched(self) -> list[int]:
        """Patterns that choose their candidate by cross-validation."""
        if len(self.sources) <= _MAX_SOURCES_SEARCHED:
            return list(range(1, self.num_patterns))
        share = np.bincount(self._patterns.ravel(), minlength=self.num_patterns) / self._patterns.size
        frequent = [
            pattern for pattern in self._common[:_MAX_SEARCHED] if share[pattern] >= _MIN_SHARE_SEARCHED
        ]
        return frequent or self._common[:1]

    def _model(self, pattern: int) -> int | None:
        """Returns the pattern whose choice a pattern uses, or None for the default candidate."""
        if pattern in self._searched:
            return pattern
        if pattern not in self._common[:_MAX_INHERITED]:
            return None
        return min(self._searched, key=lambda searched: (searched ^ pattern).bit_count())

    def _choose(self, pattern: int, excluded: Folds) -> Forms:
        if self._forms is not None:
            return self._forms
        model = self._model(pattern)
        return default_candidates() if model is None else self._search(model).choose_heads(excluded)

    def _shrinkage(self, pattern: int, excluded: Folds, candidate: Candidate) -> Shrinkage:
        """Returns the competition head's shrinkage of a candidate's fit."""
        model = self._model(pattern) if self._forms is None else None
        if model is None:
            return Shrinkage()
        key = (model, excluded, candidate)
        if key not in self._shrinkages:
            search = self._search(model)
            rows = search.outside(excluded)
            if len(np.unique(rows.folds)) < 2:
                return Shrinkage()
            logits = search.held_out_logits(excluded, [candidate])[candidate]
            logits = logits + log_weights(Head.COMPETITION, candidate)
            self._shrinkages[key] = find_shrinkage(self.family, rows, logits)
        return self._shrinkages[key]

    def fit(self, excluded: Folds, wanted: set[int]) -> FamilyStacker:
        """Fits the wanted patterns without the labels of the excluded folds; other patterns have zeros."""
        is_known = ~np.isin(self._groups[self._studies], list(excluded))
        labels = self._labels[self._is_labelled][is_known]
        levels = self._levels[self._places[is_known]]
        draft = _Draft(self.num_patterns, len(self.indices))
        draft.put_prior(labels, levels)
        for pattern in range(1, self.num_patterns):
            if pattern in wanted:
                self._fit_pattern(draft, pattern, excluded, is_learned=labels.size > 0)
        names = tuple(self._members.names[i] for i in self.indices)
        heads = {head: draft.coefficients(head) for head in Head}
        sets = SetThresholds(self._coverage, draft.thresholds, draft.num_rows)
        return FamilyStacker(
            self.family,
            names,
            self.sources,
            self.member_sources,
            len(labels),
            heads,
            set_thresholds=sets,
        )

    def _fit_pattern(self, draft: "_Draft", pattern: int, excluded: Folds, *, is_learned: bool) -> None:
        search = self._search(pattern)
        inside = self.members_inside(pattern)
        for head, candidate in self._choose(pattern, excluded).items():
            fit = search.fits(excluded, [candidate])[candidate]
            bias = fit.bias + (log_weights(head, candidate) if is_learned else 0.0)
            fit = type(fit)(fit.weights, bias, fit.context)
            description = candidate.description if is_learned else "plain mean: no label"
            if head is Head.COMPETITION and is_learned:
                shrinkage = self._shrinkage(pattern, excluded, candidate)
                fit = shrinkage.apply(fit)
                description += shrinkage.description
            draft.weights[head][pattern, inside] = fit.weights
            draft.context[head][pattern] = fit.context
            draft.bias[head][pattern] = fit.bias
            draft.choices[head][pattern] = description
            if head is Head.PROBABILITY and is_learned:
                self._fit_sets(draft, pattern, excluded, candidate)

    def _fit_sets(self, draft: "_Draft", pattern: int, excluded: Folds, candidate: Candidate) -> None:
        """Fits the set thresholds of a pattern to predictions of its rows by fits without their folds.

        A pattern that uses the default candidate keeps thresholds of 0, because held-out fits of a hundred
        patterns that hardly any row has would take minutes.
        """
        search = self._search(pattern)
        rows = search.outside(excluded)
        if self._model(pattern) is None or len(np.unique(rows.folds)) < 2:
            return
        logits = search.held_out_logits(excluded, [candidate])[candidate]
        probability = softmax(logits + log_weights(Head.PROBABILITY, candidate))
        draft.thresholds[pattern] = fit_thresholds(probability, rows.labels, self._coverage)
        draft.num_rows[pattern] = np.bincount(rows.labels, minlength=NUM_SEVERITIES)


class _Draft:
    """Coefficients of a family while its patterns are fitted."""

    def __init__(self, num_patterns: int, num_members: int) -> None:
        square = (NUM_SEVERITIES, NUM_SEVERITIES)
        self.weights = {head: np.zeros((num_patterns, num_members, *square)) for head in Head}
        self.context = {head: np.zeros((num_patterns, NUM_SLOTS, *square)) for head in Head}
        self.bias = {head: np.zeros((num_patterns, NUM_LEVELS, NUM_SEVERITIES)) for head in Head}
        self.choices = {head: ["not fitted"] * num_patterns for head in Head}
        # A threshold of 0 puts its grade into every set.
        self.thresholds = np.zeros((num_patterns, NUM_SEVERITIES))
        self.num_rows = np.zeros((num_patterns, NUM_SEVERITIES), np.int64)

    def put_prior(self, labels: Ints, levels: Ints) -> None:
        """Sets pattern 0 to the smoothed level prior."""
        log_prior = np.log(level_prior(labels, levels))
        for head in Head:
            # Without any label both heads are uniform.
            is_tilted = head is Head.COMPETITION and labels.size > 0
            self.bias[head][0] = log_prior + (np.log(CLASS_WEIGHTS) if is_tilted else 0.0)
            self.choices[head][0] = "level prior" if labels.size else "uniform: no label"

    def coefficients(self, head: Head) -> Coefficients:
        """Returns the coefficients of one head."""
        return Coefficients(
            self.weights[head], self.context[head], self.bias[head], tuple(self.choices[head])
        )
