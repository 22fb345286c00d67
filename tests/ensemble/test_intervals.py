from collections.abc import Callable

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import norm

from lumbar_tf.ensemble.fitting import fit_stacker
from lumbar_tf.ensemble.intervals import jackknife_error, member_intervals
from lumbar_tf.ensemble.oof import Members
from lumbar_tf.ensemble.stacking import Head, Stacker, apply_stacker


@pytest.fixture(scope="module")
def fitted(make_members: Callable) -> tuple[Stacker, Members]:
    members, labels, folds = make_members(60, 4, 3)
    return fit_stacker(members, labels, folds), members


def test_the_error_is_the_jackknifes_by_its_textbook_formula(fitted: tuple[Stacker, Members]) -> None:
    stacker, members = fitted
    error, counts = jackknife_error(stacker, members.probabilities, Head.PROBABILITY)
    assert (counts == 4).all()
    odds = []
    for index in range(4):
        shown = members.probabilities.copy()
        shown[index] = np.nan
        p = apply_stacker(stacker, shown).probability[5, 11, 2]
        odds.append(np.log(p / (1 - p)))
    expected = np.sqrt(3 / 4 * np.sum((np.array(odds) - np.mean(odds)) ** 2))
    assert error[5, 11, 2] == pytest.approx(expected)


@pytest.mark.parametrize("head", Head)
def test_the_answer_lies_in_the_middle_of_its_interval_in_log_odds(
    fitted: tuple[Stacker, Members], head: Head
) -> None:
    stacker, members = fitted
    found = member_intervals(stacker, members.probabilities, head=head, level=0.9)
    answers = apply_stacker(stacker, members.probabilities).head(head)
    assert ((found.low <= answers) & (answers <= found.high)).all()
    odds = [np.log(p / (1 - p)) for p in (found.low, answers, found.high)]
    assert_allclose(odds[1], (odds[0] + odds[2]) / 2, atol=1e-6)
    error, _ = jackknife_error(stacker, members.probabilities, head)
    assert_allclose(odds[2] - odds[1], norm.ppf(0.95) * error, atol=1e-6)


def test_members_that_agree_leave_no_width_and_a_lone_one_has_no_interval(
    fitted: tuple[Stacker, Members],
) -> None:
    stacker, members = fitted
    wide = member_intervals(stacker, members.probabilities)
    alone = members.probabilities.copy()
    alone[1:, :30] = np.nan
    found = member_intervals(stacker, alone)
    assert np.isnan(found.low[:30]).all() and (found.num_members[:30] == 1).all()
    assert_array_equal(found.high[30:], wide.high[30:])
    nothing = member_intervals(stacker, np.full_like(alone, np.nan))
    assert np.isnan(nothing.low).all() and (nothing.num_members == 0).all()


def test_members_that_disagree_more_are_wider(make_members: Callable) -> None:
    members, labels, folds = make_members(80, 4, 4)
    stacker = fit_stacker(members, labels, folds)
    shown = members.probabilities.copy()
    spread = shown[:, :, :, 0].std(axis=0)
    found = member_intervals(stacker, shown)
    width = np.log(found.high / (1 - found.high))[..., 0] - np.log(found.low / (1 - found.low))[..., 0]
    often = spread > np.median(spread)
    assert width[often].mean() > width[~often].mean()


def test_a_level_outside_0_and_1_is_refused(fitted: tuple[Stacker, Members]) -> None:
    stacker, members = fitted
    with pytest.raises(ValueError, match="`level`"):
        member_intervals(stacker, members.probabilities, level=95.0)
