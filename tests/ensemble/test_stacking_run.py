from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss

from lumbar_tf.ensemble.family_fitting import level_prior
from lumbar_tf.ensemble.stacker import Head, apply_stacker, family_findings, mean_in_logits
from lumbar_tf.ensemble.stacker_json import stacker_from_json
from lumbar_tf.ensemble.stacking_run import (
    FOLDS_NAME,
    OOF_NAMES,
    STACKER_NAME,
    StackerFitter,
    stack_tables,
    write_stacking_run,
)
from lumbar_tf.labels import Family
from lumbar_tf.tables.folds import read_fold_table
from lumbar_tf.tables.labels import read_label_tables
from lumbar_tf.tables.out_of_fold import Members, OutOfFoldTable, align_members, read_out_of_fold_tables
from tests.ensemble.synthetic_members import make_members


def _tables(*, with_folds: bool) -> tuple[list[OutOfFoldTable], list[str], np.ndarray, dict[str, int]]:
    members, labels, folds = make_members(30, 2, 0)
    ids = [f"s{index}" for index in range(30)]
    fold_of = dict(zip(ids, folds.tolist(), strict=True))
    tables = [
        OutOfFoldTable(name, dict(zip(ids, rows, strict=True)), fold_of if with_folds else {})
        for name, rows in zip(members.names, members.probabilities, strict=True)
    ]
    return tables, ids, labels, fold_of


def test_written_files_equal_the_run(tmp_path: Path) -> None:
    tables, ids, labels, fold_of = _tables(with_folds=True)
    blend = stack_tables(tables, ids, labels)
    write_stacking_run(blend, tmp_path)
    assert read_fold_table(tmp_path / FOLDS_NAME) == fold_of
    for head in Head:
        (table,) = read_out_of_fold_tables([tmp_path / OOF_NAMES[head]])
        assert table.folds == fold_of
        assert_allclose(align_members([table], ids).probabilities[0], blend.nested.head(head), atol=1e-8)
    stacker = stacker_from_json((tmp_path / STACKER_NAME).read_text())
    expected = apply_stacker(blend.stacker, blend.members.probabilities).competition
    assert_allclose(apply_stacker(stacker, blend.members.probabilities).competition, expected)


def test_labelled_studies_in_no_table_are_not_used() -> None:
    tables, ids, labels, _ = _tables(with_folds=True)
    blend = stack_tables(tables, ids, labels)
    more = np.concatenate([labels, np.full((3, 25), 2)])
    wider = stack_tables(tables, [*ids, "held_1", "held_2", "held_3"], more)
    assert wider.study_ids == tuple(ids) and wider.num_uncovered == 3
    assert_allclose(wider.nested.competition, blend.nested.competition)


def test_labels_that_are_all_missing_are_refused() -> None:
    tables, ids, labels, _ = _tables(with_folds=True)
    with pytest.raises(ValueError, match=r"must have a label of a study with predictions.* 30 studies"):
        stack_tables(tables, ids, np.full_like(labels, -1))
    # Labels of other studies do not help.
    with pytest.raises(ValueError, match="must have a label"):
        stack_tables(tables, [*ids, "other"], np.concatenate([np.full_like(labels, -1), labels[:1]]))


def test_a_real_table_of_blank_labels_is_refused(shared_data: Path) -> None:
    ids, labels = read_label_tables([shared_data.parent / "cases" / "tables" / "all_blank.csv"])
    members, _, _ = make_members(len(ids), 1, 0)
    table = OutOfFoldTable("m", dict(zip(ids, members.probabilities[0], strict=True)), {})
    with pytest.raises(ValueError, match="must have a label"):
        stack_tables([table], ids, labels)


def test_without_folds_studies_are_assigned_new_ones() -> None:
    tables, ids, labels, _ = _tables(with_folds=False)
    blend = stack_tables(tables, ids, labels)
    assert np.bincount(blend.folds).tolist() == [6] * 5


def test_contradicting_absent_and_missing_folds_are_refused() -> None:
    tables, ids, labels, fold_of = _tables(with_folds=True)
    wrong = {**fold_of, "s3": fold_of["s3"] + 1}
    with pytest.raises(ValueError, match="'s3'"):
        stack_tables(tables, ids, labels, folds=wrong)
    partial = OutOfFoldTable("other", tables[0].rows, {})
    with pytest.raises(ValueError, match="none for 29 studies"):
        stack_tables([partial], ids, labels, folds={"s0": 0})
    with pytest.raises(ValueError, match="one out-of-fold table"):
        stack_tables([], ids, labels)


_WEIGHTS = np.array([1.0, 2.0, 4.0])


def _loss(labels: np.ndarray, probabilities: np.ndarray, *, weighted: bool = False) -> float:
    flat = labels.ravel()
    weights = _WEIGHTS[flat] if weighted else None
    return log_loss(flat, probabilities.reshape(-1, 3), sample_weight=weights, labels=[0, 1, 2])


@pytest.mark.parametrize("seed", range(3))
def test_nested_stack_is_no_worse_than_the_mean_or_any_member(seed: int) -> None:
    members, labels, folds = make_members(80, 3, seed)
    nested = StackerFitter(members, labels, folds).nested()
    rivals = [mean_in_logits(members.probabilities), *members.probabilities]
    noise = 0.005  # what fitting on 64 studies may cost
    assert _loss(labels, nested.probability) <= min(_loss(labels, rival) for rival in rivals) + noise
    weighted = [_loss(labels, rival, weighted=True) for rival in rivals]
    assert _loss(labels, nested.competition, weighted=True) <= min(weighted) + noise


def test_overconfident_members_are_calibrated() -> None:
    members, labels, folds = make_members(80, 2, 5, temperature=2.5)
    nested = StackerFitter(members, labels, folds).nested()
    mean = mean_in_logits(members.probabilities)
    assert _loss(labels, nested.probability) < _loss(labels, mean) - 0.05


def test_a_useless_member_does_not_hurt() -> None:
    members, labels, folds = make_members(80, 3, 6)
    probabilities = members.probabilities.copy()
    probabilities[2] = np.random.default_rng(0).dirichlet([1, 1, 1], probabilities.shape[1:3])
    spoilt = Members(members.names, members.sources, probabilities)
    nested = StackerFitter(spoilt, labels, folds).nested()
    assert _loss(labels, nested.probability) < min(_loss(labels, member) for member in probabilities[:2])
    assert _loss(labels, nested.probability) < _loss(labels, mean_in_logits(probabilities)) - 0.02


def test_each_head_is_best_at_its_own_loss() -> None:
    members, labels, folds = make_members(80, 2, 7)
    nested = StackerFitter(members, labels, folds).nested()
    assert _loss(labels, nested.probability) < _loss(labels, nested.competition)
    competition, probability = (
        _loss(labels, nested.head(head), weighted=True) for head in (Head.COMPETITION, Head.PROBABILITY)
    )
    assert competition < probability


def test_nested_predictions_are_independent_of_their_own_labels() -> None:
    members, labels, folds = make_members(40, 2, 8)
    before = StackerFitter(members, labels, folds).nested()
    held_out = folds == 0
    changed = np.where(held_out[:, None], (labels + 1) % 3, labels)
    after = StackerFitter(members, changed, folds).nested()
    assert_allclose(after.probability[held_out], before.probability[held_out])
    assert_allclose(after.competition[held_out], before.competition[held_out])
    assert np.abs(after.probability[~held_out] - before.probability[~held_out]).max() > 1e-3


def test_every_pattern_of_missing_members_is_finite_and_better_than_the_prior() -> None:
    members, labels, folds = make_members(100, 3, 9, missing=0.25)
    stacker = StackerFitter(members, labels, folds).fit()
    complete = members.probabilities
    for pattern in range(8):
        shown = complete.copy()
        shown[[k for k in range(3) if not pattern >> k & 1]] = np.nan
        stacked = apply_stacker(stacker, shown)
        for head in Head:
            assert np.isfinite(stacked.head(head)).all()
            assert_allclose(stacked.head(head).sum(axis=-1), 1.0)
    nothing = apply_stacker(stacker, np.full_like(complete, np.nan))
    everything = apply_stacker(stacker, complete)
    assert (nothing.pattern == 0).all()
    assert _loss(labels, everything.probability) < _loss(labels, nothing.probability) - 0.1


def test_without_members_a_family_gets_its_level_prior() -> None:
    members, labels, folds = make_members(40, 2, 10)
    canal, _ = family_findings(Family.CANAL)
    only_canal = np.full_like(members.probabilities, np.nan)
    only_canal[:, :, canal] = members.probabilities[:, :, canal]
    stacker = StackerFitter(Members(members.names, members.sources, only_canal), labels, folds).fit()
    foraminal = stacker.family(Family.FORAMINAL)
    assert not foraminal.members and foraminal.num_labels == 40 * 10
    rows, levels = family_findings(Family.FORAMINAL)
    stacked = apply_stacker(stacker, only_canal)
    expected = level_prior(labels[:, rows].ravel(), np.tile(levels, 40))[levels]
    assert_allclose(stacked.probability[0, rows], expected)
    tilted = expected * _WEIGHTS
    assert_allclose(stacked.competition[0, rows], tilted / tilted.sum(axis=1, keepdims=True))


def test_without_labels_a_family_keeps_the_plain_mean_or_is_uniform() -> None:
    members, labels, folds = make_members(40, 2, 11)
    canal, _ = family_findings(Family.CANAL)
    foraminal, _ = family_findings(Family.FORAMINAL)
    subarticular, _ = family_findings(Family.SUBARTICULAR)
    only_canal_labels = np.full_like(labels, -1)
    only_canal_labels[:, canal] = labels[:, canal]
    probabilities = members.probabilities.copy()
    probabilities[:, :, foraminal] = np.nan
    partial = Members(members.names, members.sources, probabilities)
    stacker = StackerFitter(partial, only_canal_labels, folds).fit()
    stacked = apply_stacker(stacker, probabilities)
    assert stacker.family(Family.FORAMINAL).num_labels == 0
    for head in Head:
        assert_allclose(stacked.head(head)[:, foraminal], 1 / 3)
        assert_allclose(stacked.head(head)[:, subarticular], mean_in_logits(probabilities)[:, subarticular])
    nested = StackerFitter(partial, only_canal_labels, folds).nested()
    assert np.isfinite(nested.competition).all()


def test_level_prior_is_near_the_frequencies_and_uniform_without_labels() -> None:
    labels, levels = np.array([0] * 900 + [2] * 100), np.zeros(1000, int)
    prior = level_prior(labels, levels)
    assert_allclose(prior[0], [0.9, 0.0, 0.1], atol=0.002)
    assert (prior > 0).all()
    assert_allclose(level_prior(np.zeros(0, int), np.zeros(0, int)), 1 / 3)


def test_one_fold_and_wrong_shapes_are_refused() -> None:
    members, labels, folds = make_members(10, 1, 0)
    with pytest.raises(ValueError, match="two folds"):
        StackerFitter(members, labels, np.zeros_like(folds)).nested()
    with pytest.raises(ValueError, match="`labels`"):
        StackerFitter(members, labels[:9], folds).fit()


def test_too_many_sources_are_refused() -> None:
    names = tuple(f"model_{index}" for index in range(11))
    members = Members(names, names, np.full((11, 4, 25, 3), 1 / 3))
    with pytest.raises(ValueError, match="at most 8 sources"):
        StackerFitter(members, np.zeros((4, 25), int), np.arange(4)).fit()


def _best_temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Returns the temperature with the smallest log loss (Guo et al. 2017, section 4.2)."""

    def loss(temperature: float) -> float:
        softened = probabilities ** (1 / temperature)
        return log_loss(labels, softened / softened.sum(axis=1, keepdims=True), labels=[0, 1, 2])

    return float(minimize_scalar(loss, bounds=(0.05, 20), method="bounded").x)


def test_every_pattern_of_missing_members_is_calibrated_on_its_own_studies() -> None:
    members, labels, folds = make_members(300, 3, 12, missing=0.3, temperature=2.0)
    nested = StackerFitter(members, labels, folds).nested()
    for pattern in range(8):
        mine = (nested.pattern == pattern).all(axis=1)
        said, happened = nested.probability[mine].reshape(-1, 3), labels[mine].ravel()
        frequencies = np.bincount(happened, minlength=3) / len(happened)
        # Four standard errors of a frequency; the pattern without members answers with the prior.
        assert_allclose(said.mean(axis=0), frequencies, atol=4 * np.sqrt(0.25 / len(happened)))
        if pattern:
            assert 0.8 < _best_temperature(happened, said) < 1.25
            raw = mean_in_logits(members.probabilities)[mine].reshape(-1, 3)
            assert _best_temperature(happened, raw) > 1.4  # what the members themselves are


def test_two_folds_are_split_for_cross_validation() -> None:
    members, labels, _ = make_members(60, 2, 13, temperature=3.0)
    two = np.arange(60) % 2
    stacker = StackerFitter(members, labels, two).fit()
    nested = StackerFitter(members, labels, two).nested()
    assert stacker.family(Family.CANAL).heads[Head.COMPETITION].choices[-1] != "plain mean as it comes"
    mean = mean_in_logits(members.probabilities)
    assert _loss(labels, nested.competition, weighted=True) < _loss(labels, mean, weighted=True) - 0.05


def test_a_member_that_lacks_some_studies_of_its_source_is_replaced_by_its_neighbour() -> None:
    members, labels, folds = make_members(60, 2, 14)
    shared = Members(members.names, ("axial_t2", "axial_t2"), members.probabilities.copy())
    shared.probabilities[1, :6] = np.nan
    stacked = apply_stacker(StackerFitter(shared, labels, folds).fit(), shared.probabilities)
    assert (stacked.pattern == 1).all()
    doubled = shared.probabilities.copy()
    doubled[1, :6] = doubled[0, :6]
    same = apply_stacker(StackerFitter(shared, labels, folds).fit(), doubled)
    assert_allclose(stacked.probability[:6], same.probability[:6], atol=1e-9)


def test_many_sources_with_scattered_gaps_stay_finite() -> None:
    members, labels, folds = make_members(30, 6, 15, missing=0.3)
    foreign = Members(members.names, members.names, members.probabilities)
    nested = StackerFitter(foreign, labels, folds).nested()
    stacker = StackerFitter(foreign, labels, folds).fit()
    choices = stacker.family(Family.CANAL).heads[Head.PROBABILITY].choices
    assert len(choices) == 64 and "not fitted" not in choices
    for head in Head:
        assert np.isfinite(nested.head(head)).all()
