import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from lumbar_tf.ensemble.loss_attribution import (
    MIN_LABELS,
    LossAttribution,
    attribute_loss,
    mean_attribution,
    read_attribution,
)
from lumbar_tf.evaluation.metrics import competition_score, condition_level_prior
from lumbar_tf.labels import MISSING_LABEL
from tests.graded_cohort import draw_answers, draw_labels

#: Points cost 0.035 of 0.535, which is not large.
HEALTHY = LossAttribution(100, 0.500, 0.510, 0.535, (80, 15, 3, 2), prior=0.79, auc=0.9)


def _mean_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    score = competition_score(labels, probabilities)
    return float(np.nanmean([score.canal, score.foraminal, score.subarticular]))


def test_losses_and_prior_are_those_of_the_metric() -> None:
    labels = draw_labels(60, num_graded=15)
    answers = np.stack([draw_answers(labels, sharpness=k, seed=k) for k in (3, 2, 1)])
    answers[1, :7, 3] = np.nan
    found = attribute_loss(labels, answers)
    assert found is not None
    known = labels.copy()
    known[:7, 3] = MISSING_LABEL
    expected = [_mean_loss(known, np.nan_to_num(values, nan=1 / 3)) for values in answers]
    assert [found.at_annotated, found.in_annotated_slice, found.at_predicted] == pytest.approx(expected)
    prior = np.broadcast_to(condition_level_prior(known), answers.shape[1:])
    assert found.prior == pytest.approx(_mean_loss(known, prior))
    assert found.num_findings == 60 * 15 - 7 and found.slice_offsets is None


def test_the_auc_does_not_count_the_frequencies_of_levels() -> None:
    rng = np.random.default_rng(0)
    shares = np.linspace(0.1, 0.9, 25)
    labels = (rng.random((400, 25)) < shares).astype(np.int64)
    answers = np.broadcast_to(np.stack([1 - shares, shares, 0 * shares], -1), (3, 400, 25, 3))
    # One study in ten thousand differs, so that scores are not all equal.
    assert roc_auc_score(labels.ravel(), answers[0, ..., 1].ravel()) > 0.7
    found = attribute_loss(labels, answers)
    assert found is not None and found.auc == 0.5
    known = draw_answers(labels, sharpness=1.0, seed=1)
    found = attribute_loss(labels, np.stack([known] * 3))
    pairs = [(grades == 1).sum() * (grades == 0).sum() for grades in labels.T]
    areas = [roc_auc_score(labels[:, k], 1 - known[:, k, 0]) for k in range(25)]
    assert found is not None and found.auc == pytest.approx(np.average(areas, weights=pairs))


def test_few_labels_have_no_auc_and_no_label_no_attribution() -> None:
    labels = np.zeros((MIN_LABELS + 5, 25), np.int64)
    labels[:, 1:] = MISSING_LABEL
    answers = np.full((3, *labels.shape, 3), 1 / 3)
    for num_positive, auc in ((0, None), (MIN_LABELS - 1, None), (MIN_LABELS, None)):
        labels[:num_positive, 0] = 1
        found = attribute_loss(labels, answers)
        assert found is not None and found.auc is auc
    assert attribute_loss(np.full_like(labels, MISSING_LABEL), answers) is None
    assert attribute_loss(labels, np.full_like(answers, np.nan)) is None


def test_a_sentence_names_the_parts_and_folds_are_averaged_by_findings() -> None:
    assert str(HEALTHY) == (
        "0.035 of 0.535 is lost to points: 0.010 in the slice, 0.025 to the choice of the slice, which is "
        "the annotated one for 80.0% of 100 findings, one off for 15.0%, two for 3.0%, more for 2.0%"
    )
    assert str(replace(HEALTHY, slice_offsets=None)).endswith("choice of the slice (100 findings)")
    second = LossAttribution(300, 0.6, 0.6, 0.6, (300, 0, 0, 0), prior=0.59)
    assert str(second).startswith("nothing of 0.600 is lost to points: 0.000 in the slice")
    both = mean_attribution([HEALTHY, second])
    assert both is not None and both.at_annotated == pytest.approx(0.575)
    assert (both.num_findings, both.slice_offsets) == (400, (380, 15, 3, 2))
    # The second fold has too few labels for an AUC.
    assert both.prior == pytest.approx(0.64) and both.auc == 0.9
    assert mean_attribution([]) is None


def test_an_attribution_is_read_from_the_files_of_this_and_of_earlier_versions() -> None:
    content = json.loads(json.dumps(asdict(HEALTHY)))
    assert read_attribution(content) == HEALTHY
    older = {name: value for name, value in content.items() if name not in ("prior", "auc")}
    assert read_attribution(older) == replace(HEALTHY, prior=None, auc=None)
    assert read_attribution(older).cause == ""


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({}, ""),
        ({"at_predicted": 0.54, "in_annotated_slice": 0.54}, ""),
        ({"at_predicted": 0.60, "in_annotated_slice": 0.57}, "the localizer's error within the slice"),
        ({"at_predicted": 0.60, "in_annotated_slice": 0.53}, "the choice of the slice"),
        (
            {"at_predicted": 0.60, "in_annotated_slice": 0.55},
            "the localizer's points, both within the slice and in the choice of the slice",
        ),
        # Worse than the prior, and better than chance: overconfident, which is no fault of labels.
        ({"at_annotated": 1.0, "in_annotated_slice": 1.0, "at_predicted": 1.0}, ""),
        ({"prior": 0.49, "auc": 0.52}, "labels, crops or the grader, not the points"),
        # Differences between points mean nothing where the grader has learned nothing.
        ({"prior": 0.49, "auc": 0.52, "at_predicted": 0.9}, "labels, crops or the grader, not the points"),
        ({"prior": 0.49, "auc": None}, ""),
        ({"at_annotated": 0.6}, ""),
    ],
)
def test_a_cause_is_named_where_it_is_clear(changes: dict[str, float], cause: str) -> None:
    assert replace(HEALTHY, **changes).cause.partition(":")[0] == cause
