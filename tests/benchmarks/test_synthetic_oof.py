"""The synthetic cohort is like the public label tables, and its members are what their recipes say."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import spearmanr

from lumbar_tf.labels import FINDINGS, Family, finding_index


@pytest.fixture(scope="module")
def synthetic() -> ModuleType:
    """The script's module: benchmarks are no package."""
    spec = importlib.util.spec_from_file_location(
        "synthetic_oof", Path(__file__).with_name("synthetic_oof.py")
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["synthetic_oof"] = module
    spec.loader.exec_module(module)
    return module


def test_labels_have_the_public_frequencies_and_correlations(synthetic: ModuleType) -> None:
    labels = synthetic.make_cohort(0, 20000).labels
    counts = np.array([synthetic.LABEL_COUNTS[f.condition] for f in FINDINGS[::5]]).reshape(25, 4)
    assert (counts.sum(axis=1) == 1975).all()
    found = np.stack([(labels == value).mean(axis=0) for value in (0, 1, 2, -1)], axis=1)
    assert_allclose(found, counts / 1975, atol=0.015)
    for one, level, other, other_level, expected in synthetic.PUBLISHED_CORRELATIONS:
        pair = labels[:, [finding_index(one, level), finding_index(other, other_level)]]
        pair = pair[(pair >= 0).all(axis=1)]
        assert spearmanr(pair).statistic == pytest.approx(expected, abs=0.09)


def test_a_member_as_trained_without_weights_is_calibrated(synthetic: ModuleType) -> None:
    cohort = synthetic.make_cohort(1, 4000)
    shared = synthetic.SHARED_SD * np.random.default_rng(0).normal(size=cohort.latent.shape)
    for sees_study in (False, True):
        recipe = synthetic.MemberRecipe("m", 0.3, sees_study=sees_study, tilt=0.0, fold_spread=0.0)
        said = synthetic.make_member(cohort, recipe, shared, seed=(0, 9))
        for value in range(3):
            happened = (cohort.labels == value)[cohort.labels >= 0]
            expected = said[..., value][cohort.labels >= 0]
            assert happened.mean() == pytest.approx(expected.mean(), abs=0.01)
            surest = expected > 0.8
            if surest.sum() > 500:
                assert happened[surest].mean() == pytest.approx(expected[surest].mean(), abs=0.02)


def test_tables_are_partial_where_asked_and_the_same_for_a_seed(synthetic: ModuleType) -> None:
    _, members = synthetic.make_tables(2, 5, synthetic.Scenario.PARTIAL, 50)
    _, again = synthetic.make_tables(2, 5, synthetic.Scenario.PARTIAL, 50)
    assert_allclose(members.probabilities, again.probabilities)
    recipes = synthetic.draw_recipes(2, 5, synthetic.Scenario.PARTIAL)
    for recipe, table in zip(recipes, members.probabilities, strict=True):
        covered = {
            FINDINGS[row].condition.family for row in np.flatnonzero(~np.isnan(table[..., 0]).all(axis=0))
        }
        assert covered == set(recipe.families)
    assert set(recipes[0].families) == set(Family)
