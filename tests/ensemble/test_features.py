import numpy as np
from numpy.testing import assert_allclose

from lumbar_tf.ensemble.features import NEIGHBOURS, SLOTS, context_centre, context_features, mean_features
from lumbar_tf.labels import FINDINGS, mirror_indices


def _named(slot: str, row: str) -> set[str]:
    index = [finding.name for finding in FINDINGS].index(row)
    return {FINDINGS[j].name for j in np.flatnonzero(NEIGHBOURS[SLOTS.index(slot), index])}


def test_slots_select_the_named_neighbours() -> None:
    left = "left_subarticular_stenosis_l3_l4"
    assert _named("other_side", left) == {"right_subarticular_stenosis_l3_l4"}
    assert _named("above", left) == {"left_subarticular_stenosis_l2_l3"}
    assert _named("below", left) == {"left_subarticular_stenosis_l4_l5"}
    assert _named("first_other_family", left) == {"spinal_canal_stenosis_l3_l4"}
    assert _named("second_other_family", left) == {"left_neural_foraminal_narrowing_l3_l4"}
    canal = "spinal_canal_stenosis_l1_l2"
    assert _named("other_side", canal) == _named("above", canal) == set()
    assert _named("first_other_family", canal) == {
        "left_neural_foraminal_narrowing_l1_l2",
        "right_neural_foraminal_narrowing_l1_l2",
    }


def test_no_finding_is_its_own_context_and_shares_sum_to_one_or_nothing() -> None:
    assert (np.diagonal(NEIGHBOURS, axis1=1, axis2=2) == 0).all()
    assert set(np.unique(NEIGHBOURS.sum(axis=2))) == {0.0, 1.0}


def test_a_mirrored_study_has_a_mirrored_context() -> None:
    generator, mirror = np.random.default_rng(0), list(mirror_indices())
    mean = generator.normal(size=(8, 25, 3))
    mean[generator.random((8, 25)) < 0.2] = np.nan
    centre = context_centre(mean)
    assert_allclose(centre, centre[mirror])
    around = context_features(mean, centre)
    assert_allclose(context_features(mean[:, mirror], centre), around[:, mirror], atol=1e-12)


def test_unknown_and_average_neighbours_have_zero_context() -> None:
    mean = np.full((4, 25, 3), 0.7)
    mean[0] = np.nan
    centre = context_centre(mean)
    assert_allclose(centre, 0.7)
    assert_allclose(context_features(mean, centre), 0.0, atol=1e-12)
    assert_allclose(context_centre(np.full((2, 25, 3), np.nan)), 0.0)


def test_the_mean_leaves_out_the_missing() -> None:
    features = np.zeros((2, 1, 25, 3))
    features[0] = 1.0
    is_there = np.zeros((2, 1, 25), bool)
    is_there[0, 0, :10] = True
    is_there[1, 0, :5] = True
    mean = mean_features(features, is_there)
    assert_allclose(mean[0, :5], 0.5)
    assert_allclose(mean[0, 5:10], 1.0)
    assert np.isnan(mean[0, 10:]).all()
