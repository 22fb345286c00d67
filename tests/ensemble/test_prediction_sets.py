import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from lumbar_tf.ensemble.candidates import default_candidates
from lumbar_tf.ensemble.prediction_sets import (
    COVERAGE,
    fit_thresholds,
    grade_rank,
    grade_sets,
)
from lumbar_tf.ensemble.stacker import StackerCoefficients, apply_stacker, family_findings, find_sets
from lumbar_tf.ensemble.stacker_json import stacker_from_json, stacker_to_json
from lumbar_tf.ensemble.stacking_run import StackerFitter, set_notes
from lumbar_tf.labels import Family, mirror_indices
from lumbar_tf.tables.out_of_fold import Members
from tests.ensemble.synthetic_members import make_members

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_SHARES = np.array([0.85, 0.1, 0.05])


def _rows(seed: int, num_rows: int, skill: float, shares: Floats = _SHARES) -> tuple[Floats, Ints]:
    """Calibrated probabilities of an ordinal grade: exp(-(look - grade)^2 / 2 sd^2) times the shares."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(3, num_rows, p=shares)
    looks = labels + generator.normal(size=num_rows) / skill
    weights = shares * np.exp(-((looks[:, None] - np.arange(3)) ** 2) * skill**2 / 2)
    return weights / weights.sum(axis=1, keepdims=True), labels


def _coverage(sets: NDArray[np.bool_], labels: Ints) -> list[float]:
    return [float(sets[labels == grade, grade].mean()) for grade in range(3)]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), zero=st.integers(0, 3))
def test_a_set_is_contiguous_and_never_empty(seed: int, zero: int) -> None:
    generator = np.random.default_rng(seed)
    probability = generator.dirichlet([0.3] * 3, 200)
    probability[:zero] = np.eye(3)[:zero]
    thresholds = generator.choice([0.0, 0.05, 0.3, 0.9, 5.0], (200, 3))
    sets = grade_sets(probability, thresholds)
    assert sets.any(axis=1).all()
    assert not (sets[:, 0] & ~sets[:, 1] & sets[:, 2]).any()
    assert sets[probability >= thresholds].all()


def test_sets_follow_the_formula() -> None:
    thresholds = np.array([0.8, 0.2, 0.25])
    cases = {
        (0.9, 0.06, 0.04): "100",
        (0.8, 0.2, 0.0): "110",
        (0.1, 0.5, 0.4): "011",
        # None reaches its threshold: Normal/Mild has 0.975 of its own, Moderate 0.6.
        (0.78, 0.12, 0.1): "100",
        # None either: Moderate is nearer to its threshold, though Normal/Mild is more probable.
        (0.62, 0.19, 0.19): "010",
    }
    found = grade_sets(np.array(list(cases)), thresholds)
    assert ["".join(str(int(inside)) for inside in row) for row in found] == list(cases.values())
    # A gap is filled.
    assert grade_sets(np.array([0.6, 0.1, 0.3]), np.array([0.5, 0.2, 0.25])).tolist() == [True] * 3


def test_the_rank_is_that_of_numpys_conformal_quantile() -> None:
    generator = np.random.default_rng(0)
    for num_rows in (9, 10, 19, 57, 200):
        for coverage in (0.8, 0.9):
            scores = generator.random(num_rows)
            level = np.ceil((num_rows + 1) * coverage - 1e-9) / num_rows
            # The quantile of the nonconformity scores 1 - p.
            expected = 1 - np.quantile(1 - scores, level, method="inverted_cdf")
            rank = grade_rank(num_rows, coverage)
            assert np.sort(scores)[rank - 1] == pytest.approx(expected)


def test_the_thresholds_of_an_ensemble_without_empty_sets_are_those_quantiles() -> None:
    probability, labels = _rows(1, 4000, 1.2)
    thresholds = fit_thresholds(probability, labels, 0.9)
    for grade in range(3):
        own = probability[labels == grade, grade]
        level = np.ceil((len(own) + 1) * 0.9 - 1e-9) / len(own)
        assert thresholds[grade] == pytest.approx(1 - np.quantile(1 - own, level, method="inverted_cdf"))
    # No set is empty before its filling, so there was nothing to raise.
    assert (probability >= thresholds).any(axis=1).all()


@pytest.mark.parametrize("skill", [1.2, 2.0, 3.0, 6.0])
@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_fitted_rows_are_covered_and_raising_makes_sets_smaller(skill: float, coverage: float) -> None:
    probability, labels = _rows(2, 3000, skill)
    thresholds = fit_thresholds(probability, labels, coverage)
    sets = grade_sets(probability, thresholds)
    assert min(_coverage(sets, labels)) >= coverage
    plain = []
    for grade in range(3):
        own = np.sort(probability[labels == grade, grade])
        plain.append(own[grade_rank(len(own), coverage) - 1])
    assert sets.sum() <= grade_sets(probability, np.array(plain)).sum()
    assert (thresholds >= plain).all()


def test_new_findings_are_covered_by_grade_at_other_frequencies_too() -> None:
    covered, shifted = [], []
    for seed in range(20):
        thresholds = fit_thresholds(*_rows(seed, 3000, 2.0), 0.9)
        probability, labels = _rows(seed + 100, 3000, 2.0)
        covered.append(_coverage(grade_sets(probability, thresholds), labels))
        # Another site: more severe patients, and probabilities that still imply the old frequencies.
        generator = np.random.default_rng(seed + 200)
        chosen = generator.choice(3000, 3000, p=(weights := np.array([1, 3, 6])[labels]) / weights.sum())
        sets = grade_sets(probability[chosen], thresholds)
        shifted.append(_coverage(sets, labels[chosen]))
    assert_allclose(np.mean(covered, axis=0), 0.9, atol=0.012)
    assert_allclose(np.mean(shifted, axis=0), 0.9, atol=0.012)


def test_thresholds_do_not_depend_on_the_order_of_the_rows() -> None:
    probability, labels = _rows(3, 900, 3.0)
    order = np.random.default_rng(0).permutation(900)
    expected = fit_thresholds(probability, labels, 0.9)
    assert_array_equal(fit_thresholds(probability[order], labels[order], 0.9), expected)


@pytest.mark.parametrize("num_severe", [0, 1, 8])
def test_a_grade_with_too_few_cases_is_in_every_set(num_severe: int) -> None:
    probability, labels = _rows(4, 2000, 2.0)
    severe = np.flatnonzero(labels == 2)
    kept = np.setdiff1d(np.arange(2000), severe[num_severe:])
    thresholds = fit_thresholds(probability[kept], labels[kept], 0.9)
    assert thresholds[2] == 0.0 and (thresholds[:2] > 0).all()
    assert grade_sets(probability, thresholds)[:, 2].all()


def test_no_rows_at_all_leave_every_grade_possible() -> None:
    thresholds = fit_thresholds(np.zeros((0, 3)), np.zeros(0, int), 0.9)
    assert_array_equal(thresholds, 0.0)
    assert grade_sets(np.array([1.0, 0.0, 0.0]), thresholds).all()


def test_ties_are_all_covered() -> None:
    labels = np.repeat([0, 1, 2], 50)
    probability = np.full((150, 3), 1 / 3)
    assert grade_sets(probability, fit_thresholds(probability, labels, 0.9)).all()


@pytest.fixture(scope="module")
def fitted() -> tuple[StackerCoefficients, Members, Ints, Ints]:
    members, labels, folds = make_members(120, 3, 0, missing=0.15)
    return StackerFitter(members, labels, folds).fit(), members, labels, folds


def test_nested_sets_cover_every_grade_of_every_family() -> None:
    members, labels, folds = make_members(400, 2, 1)
    nested = StackerFitter(members, labels, folds).nested()
    for family in Family:
        rows, _ = family_findings(family)
        sets, own = nested.sets[:, rows].reshape(-1, 3), labels[:, rows].ravel()
        assert_allclose(_coverage(sets, own), 0.9, atol=0.02)
        assert 1 <= sets.sum(axis=1).mean() < 1.6


def test_every_pattern_of_missing_planes_has_thresholds_of_its_own(
    fitted: tuple[StackerCoefficients, Members, Ints, Ints],
) -> None:
    stacker, members, labels, _ = fitted
    for part in stacker.families:
        sets = part.set_thresholds
        assert sets is not None and sets.coverage == COVERAGE
        rows, _ = family_findings(part.family)
        own = labels[:, rows]
        pattern = apply_stacker(stacker, members.probabilities).pattern[:, rows]
        for index in range(1, part.num_patterns):
            used = own[(pattern & index) == index]
            assert_array_equal(sets.num_rows[index], np.bincount(used, minlength=3))
        assert (sets.thresholds[1:] > 0).all()
        assert len(np.unique(sets.thresholds[1:, 0])) == part.num_patterns - 1
        # Without any image every grade remains possible.
        assert_array_equal(sets.thresholds[0], 0)
    nothing = apply_stacker(stacker, np.full_like(members.probabilities, np.nan))
    assert nothing.sets.all()


def test_sets_of_studies_with_missing_planes_are_covered() -> None:
    members, labels, folds = make_members(600, 3, 5, missing=0.3)
    nested = StackerFitter(members, labels, folds, forms=default_candidates()).nested()
    for pattern in range(1, 8):
        mine = nested.pattern == pattern
        coverage = _coverage(nested.sets[mine], labels[mine])
        count = np.bincount(labels[mine], minlength=3)
        # Three standard errors of a share of 0.9, and a little for thresholds from other patterns' findings.
        assert (np.abs(np.array(coverage) - 0.9) < 3 * np.sqrt(0.09 / count) + 0.02).all(), pattern


def test_nested_sets_are_independent_of_their_own_labels() -> None:
    members, labels, folds = make_members(60, 2, 8)
    before = StackerFitter(members, labels, folds).nested()
    held_out = folds == 0
    changed = np.where(held_out[:, None], (labels + 1) % 3, labels)
    after = StackerFitter(members, changed, folds).nested()
    assert_array_equal(after.sets[held_out], before.sets[held_out])
    assert (after.sets[~held_out] != before.sets[~held_out]).any()


def test_a_mirrored_patient_has_mirrored_sets(
    fitted: tuple[StackerCoefficients, Members, Ints, Ints],
) -> None:
    stacker, members, _, _ = fitted
    mirror = list(mirror_indices())
    sets = apply_stacker(stacker, members.probabilities).sets
    assert_array_equal(apply_stacker(stacker, members.probabilities[:, :, mirror]).sets, sets[:, mirror])


def test_a_higher_coverage_gives_larger_sets() -> None:
    members, labels, folds = make_members(120, 2, 9)
    sizes = []
    for coverage in (0.7, 0.9, 0.97):
        stacker = StackerFitter(members, labels, folds, forms=default_candidates(), coverage=coverage).fit()
        assert stacker.set_coverage == coverage
        sizes.append(apply_stacker(stacker, members.probabilities).sets.sum())
    assert sizes[0] < sizes[1] < sizes[2]


@pytest.mark.parametrize("coverage", [0.0, 0.49, 1.0, 1.5, float("nan")])
def test_a_coverage_out_of_range_is_refused(coverage: float) -> None:
    members, labels, folds = make_members(10, 1, 0)
    with pytest.raises(ValueError, match=r"`coverage` must be at least 0.5 and below 1"):
        StackerFitter(members, labels, folds, coverage=coverage)


def test_labels_that_are_missing_leave_every_grade_possible() -> None:
    members, labels, folds = make_members(20, 2, 3)
    stacker = StackerFitter(members, np.full_like(labels, -1), folds).fit()
    assert apply_stacker(stacker, members.probabilities).sets.all()
    assert all((part.set_thresholds.num_rows == 0).all() for part in stacker.families if part.set_thresholds)


def test_sets_survive_json_and_older_files_have_none(
    fitted: tuple[StackerCoefficients, Members, Ints, Ints],
) -> None:
    stacker, members, _, _ = fitted
    text = stacker_to_json(stacker)
    again = stacker_from_json(text)
    expected = apply_stacker(stacker, members.probabilities)
    assert_array_equal(apply_stacker(again, members.probabilities).sets, expected.sets)
    assert_array_equal(find_sets(again, expected.probability, expected.pattern), expected.sets)
    content = json.loads(text)
    for part in content["families"].values():
        assert part["prediction_sets"]["coverage"] == COVERAGE
        del part["prediction_sets"]
    old = stacker_from_json(json.dumps(content))
    assert old.set_coverage is None
    assert not apply_stacker(old, members.probabilities).sets.any()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("coverage", 1.0, "`coverage` must be"),
        ("coverage", None, "Missing or malformed"),
        ("thresholds", [[0.1, 0.1, 0.1]], "canal.prediction_sets.thresholds"),
        ("thresholds", [[0.1, 0.1, -0.1]] * 8, "must not be negative"),
        ("thresholds", [[0.1, 0.1, float("nan")]] * 8, "must be finite"),
        ("num_rows", [[1, 2]] * 8, "canal.prediction_sets.num_rows"),
        ("num_rows", [[-1, 2, 3]] * 8, "must not be negative"),
    ],
)
def test_malformed_sets_are_refused(
    fitted: tuple[StackerCoefficients, Members, Ints, Ints], key: str, value: object, words: str
) -> None:
    content = json.loads(stacker_to_json(fitted[0]))
    content["families"]["canal"]["prediction_sets"][key] = value
    with pytest.raises(ValueError, match=words):
        stacker_from_json(json.dumps(content))


def test_few_labels_are_noted_with_their_number() -> None:
    members, labels, folds = make_members(60, 2, 4)
    rows, _ = family_findings(Family.CANAL)
    severe = np.argwhere(labels[:, rows] == 2)
    labels[:, rows] = np.where(labels[:, rows] == 2, 0, labels[:, rows])
    for study, place in severe[:5]:
        labels[study, rows[place]] = 2
    stacker = StackerFitter(members, labels, folds, forms=default_candidates()).fit()
    (note,) = set_notes(stacker)
    assert "canal" in note and "below 30" in note and "5 Severe (in every set)" in note
    assert apply_stacker(stacker, members.probabilities).sets[:, rows, 2].all()


def test_a_family_without_thresholds_has_no_sets(
    fitted: tuple[StackerCoefficients, Members, Ints, Ints],
) -> None:
    stacker, members, _, _ = fitted
    canal, *others = stacker.families
    part = replace(stacker, families=(replace(canal, set_thresholds=None), *others))
    sets = apply_stacker(part, members.probabilities).sets
    rows, _ = family_findings(Family.CANAL)
    assert not sets[:, rows].any()
    assert sets.any(axis=-1).sum() == len(sets) * (25 - len(rows))
