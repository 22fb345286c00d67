"""Recalibration to a site: what is found where there is something to find, and what is left alone."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize
from scipy.special import log_softmax, logit

from lumbar_tf.ensemble.candidates import default_candidates
from lumbar_tf.ensemble.features import centred_logs, softmax
from lumbar_tf.ensemble.intervals import member_intervals
from lumbar_tf.ensemble.prediction_sets import FEW_ROWS
from lumbar_tf.ensemble.recalibrated_stacker import (
    apply_calibration,
    carried_thresholds,
    recalibrate_stacker,
)
from lumbar_tf.ensemble.recalibration import (
    MIN_PATIENTS,
    NUM_REPEATS,
    Calibration,
    FamilyCheck,
    LocalRows,
    check_family,
    fit_calibration,
)
from lumbar_tf.ensemble.stacker import Head, StackerCoefficients, apply_stacker, family_findings
from lumbar_tf.ensemble.stacker_json import stacker_from_json, stacker_to_json
from lumbar_tf.ensemble.stacking_run import StackerFitter
from lumbar_tf.labels import MISSING_LABEL, Family, Severity
from tests.ensemble.synthetic_members import make_members

SITE = Calibration(0.8, 0.5, 1.5)


def _rows(seed: int, num_patients: int, truth: Calibration, *, per_patient: int = 10) -> LocalRows:
    """Findings whose labels are drawn from the transformed probabilities."""
    generator = np.random.default_rng(seed)
    num_rows = num_patients * per_patient
    logits = generator.normal(size=(num_rows, 3)) * 2 + np.log([0.8, 0.15, 0.05])
    logits -= logits.mean(axis=1, keepdims=True)
    draws = generator.random((num_rows, 1)) < softmax(truth.apply(logits)).cumsum(axis=1)
    return LocalRows(logits, draws.argmax(axis=1), np.repeat(np.arange(num_patients), per_patient))


def _check(rows: LocalRows, num_patients: int) -> FamilyCheck:
    return check_family(rows, num_patients, advance=lambda count: None)


def test_the_fit_is_the_penalised_maximum_that_scipy_finds() -> None:
    rows, ridge = _rows(0, 30, SITE), 3.0

    def objective(values: np.ndarray) -> float:
        scale, *offsets = values
        centred = np.array([0.0, *offsets]) - np.mean([0.0, *offsets])
        losses = -log_softmax(scale * rows.logits + centred, axis=1)[np.arange(300), rows.labels]
        return float(losses.sum() + ridge / 2 * centred @ centred + 40 * ridge / 2 * (scale - 1) ** 2)

    expected = minimize(objective, [1.0, 0.0, 0.0]).x
    found = fit_calibration(rows, ridge)
    assert_allclose([found.scale, found.moderate, found.severe], expected, atol=1e-3)


def test_a_known_calibration_is_recovered() -> None:
    found = _check(_rows(1, 500, SITE), 500).calibration
    assert found is not None
    assert_allclose([found.scale, found.moderate, found.severe], [0.8, 0.5, 1.5], atol=0.15)


def test_without_rows_the_fit_is_the_identity() -> None:
    rows = _rows(0, 1, SITE)
    assert fit_calibration(rows.where(np.zeros(10, bool)), 1.0) == Calibration()


@pytest.mark.slow
@pytest.mark.parametrize("num_patients", [25, 60, 250])
def test_where_there_is_nothing_to_gain_a_calibration_is_rarely_accepted(num_patients: int) -> None:
    checks = [_check(_rows(seed, num_patients, Calibration()), num_patients) for seed in range(20)]
    assert sum(check.calibration is not None for check in checks) <= 2
    assert all("no reliable gain" in check.reason for check in checks if check.calibration is None)


@pytest.mark.slow
def test_a_large_shift_is_accepted_and_its_nested_gain_is_that_of_new_patients() -> None:
    gains, expected = [], []
    for seed in range(8):
        check = _check(_rows(seed, 80, SITE), 80)
        assert check.calibration is not None and check.reason == ""
        assert 0 < check.gain_bound < check.loss_before - check.loss_after
        gains.append(check.loss_before - check.loss_after)
        later = _rows(seed + 100, 2000, SITE)
        expected.append((later.losses() - later.losses(check.calibration)).mean())
    assert np.mean(gains) == pytest.approx(np.mean(expected), rel=0.2)


def test_a_family_with_too_few_patients_keeps_its_calibration_whatever_its_rows_show() -> None:
    counted: list[int] = []
    rows = _rows(2, MIN_PATIENTS - 1, SITE, per_patient=100)
    check = check_family(rows, 300, advance=counted.append)
    assert check.calibration is None and f"labels of {MIN_PATIENTS - 1} patients" in check.reason
    assert sum(counted) == NUM_REPEATS


def test_all_rows_of_a_patient_stay_in_one_fold() -> None:
    # Every patient has a label of its own for all rows, so that rows of a patient predict each other.
    generator = np.random.default_rng(0)
    patients = np.repeat(np.arange(40), 25)
    labels = generator.choice(3, 40, p=[0.5, 0.3, 0.2])[patients]
    rows = LocalRows(np.zeros((1000, 3)), labels, patients)
    apart = LocalRows(rows.logits, labels, np.arange(1000))
    grouped, ungrouped = _check(rows, 40), _check(apart, 1000)
    assert grouped.gain_bound < ungrouped.gain_bound


@pytest.fixture(scope="module")
def stacker() -> StackerCoefficients:
    """A stacker of three members, one for each plane."""
    members, labels, folds = make_members(200, 3, seed=0)
    return StackerFitter(members, labels, folds, forms=default_candidates()).fit()


def _site(
    stacker: StackerCoefficients, seed: int, num_studies: int, truth: Calibration = SITE
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Members' predictions and labels that follow the recalibrated stacker."""
    members, _, _ = make_members(num_studies, 3, seed)
    generator = np.random.default_rng([seed, 1])  # not that of the members
    probability = apply_stacker(stacker, members.probabilities).probability
    site = softmax(truth.apply(centred_logs(probability)))
    labels = (generator.random((*site.shape[:2], 1)) < site.cumsum(axis=-1)).argmax(axis=-1)
    return members.probabilities, labels, [str(place) for place in range(num_studies)]


def _loss(probability: np.ndarray, labels: np.ndarray) -> float:
    return float(-np.log(np.take_along_axis(probability, labels[..., None], -1)).mean())


def test_a_recalibrated_stacker_transforms_the_logits_of_both_heads(stacker: StackerCoefficients) -> None:
    part = stacker.family(Family.CANAL)
    families = tuple(apply_calibration(each, SITE) for each in stacker.families)
    changed = StackerCoefficients(stacker.members, stacker.sources, stacker.context_centre, families)
    probabilities, _, _ = _site(stacker, 5, 20)
    probabilities[0, :5] = np.nan
    probabilities[:, 5] = np.nan
    before, after = apply_stacker(stacker, probabilities), apply_stacker(changed, probabilities)
    known = before.pattern > 0
    for head, tilt in ((Head.PROBABILITY, np.zeros(3)), (Head.COMPETITION, np.log([1.0, 2.0, 4.0]))):
        logits = SITE.apply(np.log(before.head(head)) - tilt) + tilt
        assert_allclose(after.head(head)[known], softmax(logits)[known], atol=1e-9)
        # The level prior has no image whose scale could differ.
        prior = np.log(before.head(head)) + SITE.offsets
        assert_allclose(after.head(head)[~known], softmax(prior)[~known], atol=1e-9)
    assert not known.all() and part.num_labels > 0
    assert_array_equal(after.pattern, before.pattern)
    assert "recalibrated: scale 0.800" in families[0].heads[Head.PROBABILITY].choices[-1]


def test_the_identity_changes_nothing(stacker: StackerCoefficients) -> None:
    same = apply_calibration(stacker.families[0], Calibration())
    for head in Head:
        assert_allclose(same.heads[head].bias, stacker.families[0].heads[head].bias, atol=1e-12)
        assert_allclose(same.heads[head].weights, stacker.families[0].heads[head].weights)


def test_intervals_move_with_the_probabilities(stacker: StackerCoefficients) -> None:
    families = tuple(apply_calibration(part, Calibration(0.5, 0.7, 1.4)) for part in stacker.families)
    changed = StackerCoefficients(stacker.members, stacker.sources, stacker.context_centre, families)
    probabilities, _, _ = _site(stacker, 6, 60)
    widths = []
    for each in (stacker, changed):
        intervals = member_intervals(each, probabilities)
        probability = apply_stacker(each, probabilities).probability
        assert ((intervals.low <= probability) & (probability <= intervals.high)).all()
        widths.append(logit(intervals.high) - logit(intervals.low))
    # Half the scale halves the variation in log-odds.
    assert np.median(widths[1] / widths[0]) == pytest.approx(0.5, rel=0.1)


@pytest.mark.slow
def test_a_site_gains_and_its_sets_cover_each_grade(stacker: StackerCoefficients) -> None:
    probabilities, labels, patients = _site(stacker, 7, 200)
    found = recalibrate_stacker(stacker, probabilities, labels, patients)
    assert found.stacker is not None
    assert all(check.calibration is not None for check in found.checks.values())
    later, later_labels, _ = _site(stacker, 8, 2000)
    before, after = apply_stacker(stacker, later), apply_stacker(found.stacker, later)
    assert _loss(after.probability, later_labels) < _loss(before.probability, later_labels) - 0.01
    for family in Family:
        rows, _ = family_findings(family)
        for grade in Severity:
            is_grade = later_labels[:, rows] == grade
            # With 200 studies, the thresholds alone scatter by 0.02 to 0.03.
            assert after.sets[:, rows][is_grade][:, grade].mean() == pytest.approx(0.9, abs=0.06)
    # Without a plane, too, whose pattern was fitted with the plane hidden.
    later[0] = np.nan
    without = apply_stacker(found.stacker, later)
    severe = later_labels == Severity.SEVERE
    assert without.sets[severe][:, Severity.SEVERE].mean() == pytest.approx(0.9, abs=0.06)


def test_a_recalibrated_stacker_survives_json(stacker: StackerCoefficients) -> None:
    found = recalibrate_stacker(stacker, *_site(stacker, 7, 30))
    assert found.stacker is not None
    probabilities, _, _ = _site(stacker, 9, 10)
    restored = stacker_from_json(stacker_to_json(found.stacker))
    for head in Head:
        expected = apply_stacker(found.stacker, probabilities).head(head)
        assert_array_equal(apply_stacker(restored, probabilities).head(head), expected)


def test_a_family_without_a_gain_keeps_all_its_coefficients(stacker: StackerCoefficients) -> None:
    probabilities, labels, patients = _site(stacker, 14, 50)
    _, usual, _ = _site(stacker, 14, 50, Calibration())
    rows, _ = family_findings(Family.FORAMINAL)
    labels[:, rows] = usual[:, rows]
    found = recalibrate_stacker(stacker, probabilities, labels, patients)
    assert found.stacker is not None
    assert found.stacker.family(Family.FORAMINAL) is stacker.family(Family.FORAMINAL)
    assert found.stacker.family(Family.CANAL) is not stacker.family(Family.CANAL)
    assert found.checks[Family.FORAMINAL].reason


def test_a_site_like_the_training_studies_is_refused(stacker: StackerCoefficients) -> None:
    found = recalibrate_stacker(stacker, *_site(stacker, 11, 40, Calibration()))
    assert found.stacker is None
    assert all(check.calibration is None for check in found.checks.values())


def test_too_few_patients_are_refused_with_rule_and_count(stacker: StackerCoefficients) -> None:
    probabilities, labels, patients = _site(stacker, 12, 40)
    with pytest.raises(ValueError, match=r"at least 25 patients.*Received: 24"):
        recalibrate_stacker(stacker, probabilities[:, :24], labels[:24], patients[:24])
    # Studies without a label do not count, nor do further studies of a patient.
    labels[24:] = MISSING_LABEL
    with pytest.raises(ValueError, match="Received: 24"):
        recalibrate_stacker(stacker, probabilities, labels, patients)
    _, labels, _ = _site(stacker, 12, 40)
    with pytest.raises(ValueError, match="Received: 20"):
        recalibrate_stacker(stacker, probabilities, labels, [str(place // 2) for place in range(40)])


def test_a_grade_with_few_labels_keeps_the_bundles_threshold_moved(stacker: StackerCoefficients) -> None:
    probabilities, labels, patients = _site(stacker, 13, 60)
    rows, _ = family_findings(Family.CANAL)
    canal = labels[:, rows]
    severe = np.argwhere(canal == Severity.SEVERE)[FEW_ROWS - 1 :]
    canal[tuple(severe.T)] = MISSING_LABEL
    labels[:, rows] = canal
    found = recalibrate_stacker(stacker, probabilities, labels, patients)
    assert found.stacker is not None
    assert found.few_labels[Family.CANAL] == (Severity.SEVERE,)
    calibration = found.checks[Family.CANAL].calibration
    old, new = (each.family(Family.CANAL).set_thresholds for each in (stacker, found.stacker))
    assert old is not None and new is not None and calibration is not None
    assert_allclose(new.thresholds[-1, 2], carried_thresholds(old.thresholds[-1], calibration)[2])
    assert_array_equal(new.num_rows[-1], [*np.bincount(canal[canal >= 0])[:2], old.num_rows[-1, 2]])


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.7])
def test_what_reached_a_threshold_reaches_the_moved_one(scale: float) -> None:
    generator = np.random.default_rng(3)
    logits = generator.normal(size=(20_000, 3)) * 3
    for offsets in ((0.0, 0.0), (0.8, 2.0), (-1.0, 0.5)):
        calibration = Calibration(scale, *offsets)
        before, after = softmax(logits), softmax(calibration.apply(logits))
        for threshold in (0.02, 0.3, 0.9):
            moved = carried_thresholds(np.full(3, threshold), calibration)
            assert (after >= moved - 1e-12)[before >= threshold].all()
            # Not by being 0: the nearest of the findings that reached it is not far above.
            assert (after / moved)[before >= threshold].min() < 2
    assert_array_equal(carried_thresholds(np.array([0.0, 1.0, 40.0]), calibration), [0.0, 1.0, 40.0])
