from itertools import pairwise

import numpy as np
import pytest

from lumbar_tf.labels import FINDINGS, Level
from lumbar_tf.training.localization_metrics import (
    EDGES_MM,
    count_level_shifts,
    measure_landmark_accuracy,
    measure_level_errors,
)


def test_each_level_is_measured_over_all_conditions_and_studies() -> None:
    generator = np.random.default_rng(3)
    predicted, annotated = ({f"{k}": generator.normal(0, 6, (25, 3)) for k in range(40)} for _ in range(2))
    predicted["3"][7] = np.nan
    predicted["unknown"] = np.zeros((25, 3))
    found = measure_level_errors(predicted, annotated)
    assert [error.level for error in found] == list(Level)
    for error in found:
        distances = np.array([
            float(np.sqrt(((predicted[study][row] - annotated[study][row]) ** 2).sum()))
            for study in annotated
            for row, finding in enumerate(FINDINGS)
            if finding.level is error.level and np.isfinite(predicted[study][row]).all()
        ])  # fmt: skip
        assert error.num_points == len(distances) == (199 if error.level is FINDINGS[7].level else 200)
        assert error.median_mm == pytest.approx(np.median(distances))
        assert error.ninetieth_mm == pytest.approx(np.percentile(distances, 90))
        bounds = [0.0, *EDGES_MM, np.inf]
        shares = [float(((distances > low) & (distances <= high)).mean()) for low, high in pairwise(bounds)]
        assert error.shares == pytest.approx(tuple(shares))


def test_level_errors_without_common_points_are_nan() -> None:
    for predicted in ({}, {"1": np.full((25, 3), np.nan)}):
        found = measure_level_errors(predicted, {"1": np.zeros((25, 3))})
        assert [error.num_points for error in found] == [0] * 5
        assert np.isnan(found[0].median_mm) and np.isnan(found[0].shares).all()


def _spine() -> np.ndarray:
    """Five levels 35 mm apart for each of five conditions."""
    points = np.zeros((25, 3), np.float32)
    points[:, 2] = -35.0 * (np.arange(25) % 5)
    points[:, 0] = 15.0 * (np.arange(25) // 5)
    return points


def test_outliers_do_not_enter_the_standard_deviation() -> None:
    truth = {"1": _spine(), "2": _spine(), "9": _spine()}
    guess = {"1": _spine(), "2": _spine(), "8": _spine()}
    guess["1"][:, 0] += 3.0
    guess["2"][:, 1] -= 4.0
    guess["2"][7, 2] += 35.0  # one level too high
    guess["1"][3] = np.nan
    truth["1"][4] = np.nan
    error = measure_landmark_accuracy(guess, truth)
    assert error.num_points == 48
    assert error.num_withheld == 1
    assert error.median_mm == pytest.approx(4.0)  # 23 of 3 mm, 24 of 4 mm, one far off
    assert error.within_10_mm == pytest.approx(47 / 48)
    assert error.own_level == pytest.approx(47 / 48)
    np.testing.assert_allclose(
        error.sd_mm, (3 * np.sqrt(23 / 47), 4 * np.sqrt(24 / 47), 0.0), rtol=1e-5, atol=1e-6
    )


def test_accuracy_without_common_points_is_nan() -> None:
    empty = np.full((25, 3), np.nan, np.float32)
    for guess in ({}, {"2": _spine()}, {"1": empty}):
        error = measure_landmark_accuracy(guess, {"1": _spine()})
        assert error.num_points == 0
        assert np.isnan(error.median_mm)
        assert error.sd_mm == (0.0, 0.0, 0.0)


def test_level_shifts_need_two_points_of_a_study() -> None:
    truth = {study: _spine() for study in "1234"}
    guess = {study: _spine() for study in "12345"}
    guess["1"][:5, 2] += 35.0
    guess["2"][:5, 2] -= 35.0
    guess["3"][3, 2] += 35.0
    doubt = {study: np.full(25, np.nan, np.float32) for study in "12345"}
    doubt["1"][2] = 0.3
    doubt["2"][2] = 0.1
    doubt["4"][4] = 0.21
    flags = count_level_shifts(guess, doubt, truth, threshold=0.2)
    assert (flags.num_studies, flags.num_shifted, flags.num_flagged, flags.num_caught) == (4, 2, 2, 1)
