from itertools import pairwise

import numpy as np
import pytest

from lumbar_tf.labels import FINDINGS, Level
from lumbar_tf.training.level_errors import EDGES_MM, measure_levels


def test_each_level_is_measured_over_all_conditions_and_studies() -> None:
    generator = np.random.default_rng(3)
    predicted, annotated = ({f"{k}": generator.normal(0, 6, (25, 3)) for k in range(40)} for _ in range(2))
    predicted["3"][7] = np.nan
    predicted["unknown"] = np.zeros((25, 3))
    found = measure_levels(predicted, annotated)
    assert [each.level for each in found] == list(Level)
    for each in found:
        distances = np.array([
            float(np.sqrt(((predicted[study][row] - annotated[study][row]) ** 2).sum()))
            for study in annotated
            for row, finding in enumerate(FINDINGS)
            if finding.level is each.level and np.isfinite(predicted[study][row]).all()
        ])  # fmt: skip
        assert each.num_points == len(distances) == (199 if each.level is FINDINGS[7].level else 200)
        assert each.median_mm == pytest.approx(np.median(distances))
        assert each.ninetieth_mm == pytest.approx(np.percentile(distances, 90))
        bounds = [0.0, *EDGES_MM, np.inf]
        shares = [float(((distances > low) & (distances <= high)).mean()) for low, high in pairwise(bounds)]
        assert each.shares == pytest.approx(tuple(shares))


def test_without_a_common_point_nothing_is_claimed() -> None:
    for predicted in ({}, {"1": np.full((25, 3), np.nan)}):
        found = measure_levels(predicted, {"1": np.zeros((25, 3))})
        assert [each.num_points for each in found] == [0] * 5
        assert np.isnan(found[0].median_mm) and np.isnan(found[0].shares).all()
