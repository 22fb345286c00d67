import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from pandas import DataFrame
from sklearn.metrics import log_loss

from lumbar_tf.evaluation.metrics import (
    any_severe_spinal,
    competition_score,
    condition_level_prior,
    condition_prior,
    log_losses,
    study_terms,
    weighted_log_loss,
)
from lumbar_tf.labels import FINDINGS, row_id

#: Labels of the 1,975 studies of the competition, (Normal/Mild, Moderate, Severe, missing) by condition and
#: level, from the public label table.
_COUNTS = """
1886 67 21 1 | 1770 151 53 1 | 1622 230 122 1 | 1482 237 255 1 | 1904 51 19 1
1908 63 2 2 | 1791 171 11 2 | 1522 411 40 2 | 1204 629 140 2 | 1247 520 206 2
1891 63 13 8 | 1793 168 6 8 | 1512 414 41 8 | 1208 629 130 8 | 1281 496 190 8
1690 93 28 164 | 1555 255 83 82 | 1324 454 194 3 | 887 624 461 3 | 1408 409 147 11
1680 110 24 161 | 1577 243 73 82 | 1322 454 197 2 | 891 622 460 2 | 1399 396 173 7
"""


def _table(seed: int, num_studies: int = 40, missing: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.choice(3, size=(num_studies, 25), p=[0.7, 0.2, 0.1])
    labels[generator.random(labels.shape) < missing] = -1
    return labels, generator.dirichlet([1, 0.7, 0.4], (num_studies, 25))


def _score_with_loops(labels: np.ndarray, probabilities: np.ndarray) -> list[float]:
    """The metric as the competition describes it, a row at a time."""
    weight_of = {0: 1.0, 1: 2.0, 2: 4.0}
    terms = []
    for columns in (range(5), range(5, 15), range(15, 25)):
        total = weights = 0.0
        for study in range(len(labels)):
            for column in columns:
                label = int(labels[study, column])
                if label in weight_of:
                    total -= weight_of[label] * math.log(probabilities[study, column, label])
                    weights += weight_of[label]
        terms.append(total / weights)
    total = weights = 0.0
    for study in range(len(labels)):
        rows = [
            (int(labels[study, k]), probabilities[study, k, 2]) for k in range(5) if labels[study, k] >= 0
        ]
        if rows:
            weight = max(weight_of[label] for label, _ in rows)
            predicted = max(p for _, p in rows)
            is_severe = any(label == 2 for label, _ in rows)
            total -= weight * math.log(predicted if is_severe else 1 - predicted)
            weights += weight
    terms.append(total / weights)
    return [sum(terms) / 4, *terms]


@pytest.mark.parametrize("seed", range(5))
def test_score_equals_a_plain_loop(seed: int) -> None:
    labels, probabilities = _table(seed)
    score = competition_score(labels, probabilities)
    found = [score.score, score.canal, score.foraminal, score.subarticular, score.any_severe_spinal]
    assert_allclose(found, _score_with_loops(labels, probabilities), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_terms_equal_scikit_learns_weighted_log_loss(seed: int) -> None:
    labels, probabilities = _table(seed)
    score = competition_score(labels, probabilities)
    for name, rows in (("canal", slice(0, 5)), ("foraminal", slice(5, 15)), ("subarticular", slice(15, 25))):
        known = labels[:, rows] >= 0
        truth = labels[:, rows][known]
        expected = log_loss(truth, probabilities[:, rows][known], sample_weight=2.0**truth, labels=[0, 1, 2])
        assert getattr(score, name) == pytest.approx(expected, abs=1e-12)
    canal = labels[:, :5]
    studies = (canal >= 0).any(axis=1)
    predicted = np.where(canal >= 0, probabilities[:, :5, 2], 0).max(axis=1)[studies]
    weights = 2.0 ** canal.max(axis=1)[studies]
    expected = log_loss((canal == 2).any(axis=1)[studies], predicted, sample_weight=weights)
    assert score.any_severe_spinal == pytest.approx(expected, abs=1e-12)


def _score_of_frames(solution: DataFrame, submission: DataFrame) -> dict[str, float]:
    """The metric again, on row tables, with pandas for the groups and scikit-learn for every log loss."""
    rows = solution.dropna(subset="grade").merge(submission, on="row_id", validate="one_to_one")
    grades = ["normal_mild", "moderate", "severe"]
    rows["weight"] = rows["grade"].map({"normal_mild": 1, "moderate": 2, "severe": 4})
    rows["study"] = rows["row_id"].str.split("_").str[0]
    terms = {}
    for name in ("canal", "foraminal", "subarticular"):
        chosen = rows[rows["row_id"].str.contains(name)]
        truth = chosen["grade"].map(grades.index)
        terms[name] = log_loss(truth, chosen[grades], sample_weight=chosen["weight"], labels=[0, 1, 2])
    canal = rows[rows["row_id"].str.contains("canal")].assign(
        is_severe=lambda rows: rows["grade"] == "severe"
    )
    studies = canal.groupby("study").agg({"is_severe": "any", "severe": "max", "weight": "max"})
    terms["any_severe_spinal"] = log_loss(
        studies["is_severe"], studies["severe"], sample_weight=studies["weight"], labels=[False, True]
    )
    return {"score": sum(terms.values()) / 4, **terms}


@pytest.mark.parametrize("seed", range(10))
def test_score_equals_an_independent_implementation_within_1e_9(seed: int) -> None:
    """Random tables with missing labels: of the canal at some levels, at all of a study, of a whole study."""
    generator = np.random.default_rng(seed)
    labels, probabilities = _table(seed, num_studies=60, missing=0.05 * seed)
    labels[:5, :5] = -1
    labels[5] = -1
    probabilities = (probabilities + 1e-6) / (probabilities + 1e-6).sum(axis=-1, keepdims=True)
    ids = [f"{4003253 + 7 * index}" for index in range(60)]
    names = [row_id(study, finding) for study in ids for finding in FINDINGS]
    grades = np.array(["normal_mild", "moderate", "severe", None], object)[labels.ravel()]
    submission = DataFrame(probabilities.reshape(-1, 3), columns=["normal_mild", "moderate", "severe"])
    submission.insert(0, "row_id", names)
    expected = _score_of_frames(
        DataFrame({"row_id": names, "grade": grades}),
        submission.sample(frac=1, random_state=generator.integers(99)),
    )
    found = asdict(competition_score(labels, probabilities))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert abs(found[name] - value) < 1e-9, name


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_order_of_studies_does_not_matter(seed: int) -> None:
    labels, probabilities = _table(seed, num_studies=8)
    order = np.random.default_rng(seed).permutation(8)
    first, second = (
        competition_score(labels, probabilities),
        competition_score(labels[order], probabilities[order]),
    )
    assert first.score == pytest.approx(second.score, abs=1e-12)


def _counts() -> np.ndarray:
    rows = _COUNTS.strip().split("\n")
    return np.array([[cell.split() for cell in row.split("|")] for row in rows], int).reshape(25, 4)


def _labels_with_those_counts() -> np.ndarray:
    """Label columns with the counts of the profile, put together without regard to each other."""
    values = [0, 1, 2, -1]
    return np.stack([np.repeat(values, counts) for counts in _counts()], axis=1)


def test_floors_of_the_real_label_table() -> None:
    """Uniform 0.9994, condition prior 0.911, condition-by-level prior 0.790.

    The counts give the three log losses, and of the any-severe term only its prediction: how many studies
    have a severe level, and with which weights, is a joint count that the profile has not. That is one
    unknown, the weighted share of such studies; the uniform floor determines it, the other two floors
    must then come out by themselves, and the number of such studies must be one that the counts allow.
    """
    labels = _labels_with_those_counts()
    tables = [np.full((25, 3), 1 / 3), condition_prior(labels), condition_level_prior(labels)]
    scores = [competition_score(labels, np.broadcast_to(table, (*labels.shape, 3))) for table in tables]
    means = [np.mean([score.canal, score.foraminal, score.subarticular]) for score in scores]
    assert means[0] == pytest.approx(math.log(3), abs=1e-12)
    severe = [table[:5, 2].max() for table in tables]
    any_severe_of_uniform = 4 * 0.9994 - 3 * means[0]
    share = (any_severe_of_uniform + math.log(1 - severe[0])) / (
        math.log(1 - severe[0]) - math.log(severe[0])
    )
    counts = _counts()[:5]
    fewest, most = counts[:, 2].max(), counts[:, 2].sum()
    # Studies without a severe level weigh 1 at least, and most if no two moderate labels share a study.
    for mean_weight in (1.0, 1.0 + counts[:, 1].sum() / (1975 - most)):
        # share = 4 n / (4 n + mean_weight (1975 - n))
        num_severe = share * mean_weight * 1975 / (4 * (1 - share) + share * mean_weight)
        assert fewest <= num_severe <= most
    for mean, q, floor in zip(means[1:], severe[1:], (0.911, 0.790), strict=True):
        any_severe = -(share * math.log(q) + (1 - share) * math.log(1 - q))
        assert (3 * mean + any_severe) / 4 == pytest.approx(floor, abs=5e-4)


def test_priors_are_the_best_constants() -> None:
    labels, _ = _table(1, num_studies=200)
    for prior, rows in (
        (condition_prior(labels), slice(5, 10)),
        (condition_level_prior(labels), slice(7, 8)),
    ):
        assert_allclose(prior.sum(axis=1), 1.0)
        best = weighted_log_loss(labels[:, rows], np.broadcast_to(prior, (200, 25, 3))[:, rows])
        for shift in np.random.default_rng(0).normal(0, 0.02, (20, 3)):
            other = np.abs(prior[rows] + shift)
            other /= other.sum(axis=1, keepdims=True)
            assert weighted_log_loss(labels[:, rows], np.broadcast_to(other, (200, *other.shape))) >= best


def test_impossible_labels_cost_the_clipped_loss() -> None:
    certain = np.array([[1.0, 0.0, 0.0]])
    assert weighted_log_loss(np.array([2]), certain) == pytest.approx(-math.log(1e-15), abs=1e-9)
    assert weighted_log_loss(np.array([0]), certain) == pytest.approx(0.0, abs=1e-14)


def test_rows_are_divided_by_their_sum() -> None:
    labels, probabilities = _table(2)
    assert weighted_log_loss(labels, probabilities * 0.9) == pytest.approx(
        weighted_log_loss(labels, probabilities)
    )


def test_a_term_without_labels_is_nan_and_no_part_of_the_score() -> None:
    labels, probabilities = _table(3)
    labels[:, 5:] = -1
    score = competition_score(labels, probabilities)
    assert score.missing_terms == ("foraminal", "subarticular")
    assert score.score == pytest.approx((score.canal + score.any_severe_spinal) / 2)
    assert math.isnan(competition_score(np.full_like(labels, -1), probabilities).score)


def test_missing_predictions_matter_only_where_there_is_a_label() -> None:
    labels, probabilities = _table(4)
    hole = np.argwhere(labels == -1)[0]
    probabilities[tuple(hole)] = np.nan
    competition_score(labels, probabilities)
    hole = np.argwhere(labels >= 0)[0]
    probabilities[tuple(hole)] = np.nan
    with pytest.raises(ValueError, match=rf"at index \({hole[0]}, {hole[1]}\)"):
        competition_score(labels, probabilities)


def test_any_severe_uses_labelled_levels_only() -> None:
    labels = np.full((1, 25), -1)
    labels[0, :2] = [0, 1]
    probabilities = np.full((1, 25, 3), 1 / 3)
    probabilities[0, 4] = [0.01, 0.01, 0.98]
    assert any_severe_spinal(labels, probabilities) == pytest.approx(-math.log(2 / 3))


def test_resampled_terms_equal_the_score_of_the_resample() -> None:
    labels, probabilities = _table(5)
    drawn = np.random.default_rng(0).integers(0, 40, 40)
    values = study_terms(labels, probabilities).values(drawn)
    expected = competition_score(labels[drawn], probabilities[drawn])
    assert_allclose(
        values,
        [
            expected.score,
            *(
                getattr(expected, name)
                for name in ("canal", "foraminal", "subarticular", "any_severe_spinal")
            ),
        ],
    )


@pytest.mark.parametrize(
    ("labels", "shape"), [(np.zeros((2, 25), int), (2, 25)), (np.full((2, 25), 3), (2, 25, 3))]
)
def test_wrong_shapes_and_labels_are_refused(labels: np.ndarray, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must"):
        log_losses(labels, np.full(shape, 1 / 3))
