from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose, assert_array_equal

from lumbar_tf.bundle.stacker_graph import find_intervals, find_prediction_sets, stack_predictions
from lumbar_tf.ensemble.candidates import CANDIDATES
from lumbar_tf.ensemble.intervals import member_intervals
from lumbar_tf.ensemble.stacker import Head, StackerCoefficients, apply_stacker, find_sets
from lumbar_tf.ensemble.stacking_run import StackerFitter
from lumbar_tf.labels import FINDINGS, Family, mirror_indices
from tests.ensemble.synthetic_members import make_members

_FAMILIES = [finding.condition.family for finding in FINDINGS]


def _graph(stacker: StackerCoefficients, probabilities: np.ndarray) -> np.ndarray:
    @tf.function
    def intervals(logs: tf.Tensor) -> tf.Tensor:
        probability, _, pattern = stack_predictions(stacker, logs)
        return find_intervals(stacker, logs, probability, pattern)

    interval: np.ndarray = intervals(tf.constant(np.log(probabilities), tf.float32)).numpy()
    return interval


def _missing(probabilities: np.ndarray, stacker: StackerCoefficients) -> np.ndarray:
    """Studies without a plane, with one member alone, with none, and with one missing beside another."""
    shown = probabilities.copy()
    for place, source in enumerate(sorted(set(stacker.sources))):
        shown[[member_source == source for member_source in stacker.sources], place] = np.nan
    shown[1:, 4] = np.nan
    shown[:, 5] = np.nan
    shown[0, 6, ::2] = np.nan
    return shown


@pytest.fixture(params=["chosen", "context"])
def stacker_and_tables(
    request: pytest.FixtureRequest,
) -> tuple[StackerCoefficients, np.ndarray]:
    freest = dict.fromkeys(Head, CANDIDATES[Head.PROBABILITY][-1])
    forms = freest if request.param == "context" else None
    members, labels, folds = make_members(60, 5, 2)
    # The foramina are covered by some of the members only.
    foraminal = [row for row, family in enumerate(_FAMILIES) if family is Family.FORAMINAL]
    members.probabilities[np.ix_([1, 4], range(60), foraminal)] = np.nan
    return StackerFitter(members, labels, folds, forms=forms).fit(), members.probabilities


def test_the_graph_gives_numpys_numbers_whatever_is_missing(
    stacker_and_tables: tuple[StackerCoefficients, np.ndarray],
) -> None:
    stacker, tables = stacker_and_tables
    shown = _missing(tables, stacker)
    found = member_intervals(stacker, shown)
    expected = np.stack([found.low, found.high], axis=-1)
    interval = _graph(stacker, shown)
    assert interval.dtype == np.float32
    assert_allclose(interval, expected, atol=1e-6, rtol=0)
    assert np.isnan(interval[4:6]).all() and np.isfinite(interval[7:]).all()
    assert np.isfinite(interval[:4]).any()


def test_a_mirrored_study_swaps_sides_in_the_graph(
    stacker_and_tables: tuple[StackerCoefficients, np.ndarray],
) -> None:
    stacker, tables = stacker_and_tables
    mirror = list(mirror_indices())
    interval = _graph(stacker, tables)
    assert_allclose(_graph(stacker, tables[:, :, mirror]), interval[:, mirror], atol=1e-6)
    assert np.abs(interval - interval[:, mirror]).max() > 0.01


def _graph_sets(stacker: StackerCoefficients, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the graph's sets and probabilities."""

    @tf.function
    def sets(logs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        probability, _, pattern = stack_predictions(stacker, logs)
        return find_prediction_sets(stacker, probability, pattern), probability

    inside, probability = sets(tf.constant(np.log(probabilities), tf.float32))
    return inside.numpy(), probability.numpy()


def test_the_graph_gives_numpys_sets_whatever_is_missing(
    stacker_and_tables: tuple[StackerCoefficients, np.ndarray],
) -> None:
    stacker, tables = stacker_and_tables
    shown = _missing(tables, stacker)
    sets, probability = _graph_sets(stacker, shown)
    expected = apply_stacker(stacker, shown)
    assert sets.dtype == np.bool_ and sets.shape == (60, 25, 3)
    # Of the graph's own probabilities; those of NumPy differ in the last digits.
    assert_array_equal(sets, find_sets(stacker, probability, expected.pattern))
    assert (sets == expected.sets).all(axis=-1).mean() > 0.99
    assert sets[5].all() and 1 <= sets.sum(axis=-1).min() < sets[6:].sum(axis=-1).max()


def test_a_family_without_thresholds_has_no_sets_in_the_graph(
    stacker_and_tables: tuple[StackerCoefficients, np.ndarray],
) -> None:
    stacker, tables = stacker_and_tables
    canal, *others = stacker.families
    changed = replace(stacker, families=(replace(canal, set_thresholds=None), *others))
    sets, _ = _graph_sets(changed, tables)
    is_canal = np.array([family is Family.CANAL for family in _FAMILIES])
    assert not sets[:, is_canal].any()
    assert_array_equal(sets[:, ~is_canal], _graph_sets(stacker, tables)[0][:, ~is_canal])
