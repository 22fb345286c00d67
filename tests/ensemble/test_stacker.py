import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from lumbar_tf.ensemble.stacker import (
    Coefficients,
    FamilyStacker,
    Head,
    StackerCoefficients,
    apply_stacker,
    mean_in_logits,
)
from lumbar_tf.ensemble.stacker_json import stacker_from_json, stacker_to_json
from lumbar_tf.ensemble.stacking_run import StackerFitter
from lumbar_tf.labels import FINDINGS, Family, Finding, Level, mirror_indices
from tests.ensemble.synthetic_members import make_members

_MEMBERS = ("sagittal_t2/a", "axial_t2/b", "sagittal_t2/c")
_SOURCES = ("sagittal_t2", "axial_t2", "sagittal_t2")
#: Members of each family of the random stacker below; no member covers the foramina.
_COVER = {Family.CANAL: (0, 1, 2), Family.FORAMINAL: (), Family.SUBARTICULAR: (1,)}


def _random_stacker(seed: int) -> StackerCoefficients:
    generator = np.random.default_rng(seed)
    families = []
    for family, indices in _COVER.items():
        sources = tuple(dict.fromkeys(_SOURCES[index] for index in indices))
        patterns = 1 << len(sources)
        heads = {
            head: Coefficients(
                generator.normal(size=(patterns, len(indices), 3, 3)),
                0.3 * generator.normal(size=(patterns, 5, 3, 3)),
                generator.normal(size=(patterns, 5, 3)),
                ("drawn",) * patterns,
            )
            for head in Head
        }
        member_sources = tuple(sources.index(_SOURCES[index]) for index in indices)
        names = tuple(_MEMBERS[index] for index in indices)
        families.append(FamilyStacker(family, names, sources, member_sources, 7, heads))
    centre = generator.normal(size=(25, 3))
    return StackerCoefficients(
        _MEMBERS, _SOURCES, centre - centre.mean(axis=1, keepdims=True), tuple(families)
    )


def _random_members(seed: int, num_studies: int = 6, missing: float = 0.4) -> np.ndarray:
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet([1, 1, 1], (3, num_studies, 25))
    probabilities[generator.random((3, num_studies, 25)) < missing] = np.nan
    return probabilities


def _mean_of_all(members: np.ndarray, study: int, row: int) -> np.ndarray | None:
    logs = [np.log(np.maximum(p, 1e-6)) for p in members[:, study, row] if np.isfinite(p).all()]
    return sum(x - x.mean() for x in logs) / len(logs) if logs else None


def _around(finding: Finding) -> list[list[Finding]]:
    """Other side, above, below, and the two other families at the level, written out from the names."""

    def named(condition: str, level: int) -> list[Finding]:
        known = [f for f in FINDINGS if 0 <= level < 5 and f.level is list(Level)[level]]
        return [f for f in known if f.condition.value == condition]

    own, level = finding.condition.value, list(Level).index(finding.level)
    side, _, rest = own.partition("_")
    if own == "spinal_canal_stenosis":
        pairs = ("neural_foraminal_narrowing", "subarticular_stenosis")
        others = [named(f"left_{pair}", level) + named(f"right_{pair}", level) for pair in pairs]
        return [[], named(own, level - 1), named(own, level + 1), *others]
    opposite = {"left": "right", "right": "left"}[side]
    partner = {
        "neural_foraminal_narrowing": "subarticular_stenosis",
        "subarticular_stenosis": "neural_foraminal_narrowing",
    }[rest]
    return [
        named(f"{opposite}_{rest}", level),
        named(own, level - 1),
        named(own, level + 1),
        named("spinal_canal_stenosis", level),
        named(f"{side}_{partner}", level),
    ]


def _by_hand(
    stacker: StackerCoefficients, members: np.ndarray, study: int, row: int, head: Head
) -> tuple[np.ndarray, int]:
    """The formula at the top of stacking.py, written out with loops."""
    finding = FINDINGS[row]
    part = stacker.family(finding.condition.family)
    pattern = 0
    for k, source in enumerate(part.sources):
        present = [
            np.isfinite(members[stacker.members.index(name), study, row]).all()
            for name in part.members
            if stacker.sources[stacker.members.index(name)] == source
        ]
        pattern += 2**k if any(present) else 0
    fitted = part.heads[head]
    logits = fitted.bias[pattern, list(Level).index(finding.level)].copy()
    known = {
        m: np.log(np.maximum(p, 1e-6)) - np.log(np.maximum(p, 1e-6)).mean()
        for m, name in enumerate(part.members)
        if np.isfinite(p := members[stacker.members.index(name), study, row]).all()
    }
    for m in range(len(part.members)):
        if known:
            logits += fitted.weights[pattern, m] @ known.get(m, sum(known.values()) / len(known))
    for slot, rows in enumerate(_around(finding)):
        for other in rows:
            said = _mean_of_all(members, study, FINDINGS.index(other))
            if said is not None:
                x = (said - stacker.context_centre[FINDINGS.index(other)]) / len(rows)
                logits += fitted.context[pattern, slot] @ x
    return np.exp(logits) / np.exp(logits).sum(), pattern


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_formula_written_out(seed: int) -> None:
    stacker, members = _random_stacker(seed), _random_members(seed)
    stacked = apply_stacker(stacker, members)
    for study, row in np.ndindex(members.shape[1:3]):
        for head in Head:
            answer, pattern = _by_hand(stacker, members, study, row, head)
            assert_allclose(stacked.head(head)[study, row], answer, atol=1e-12)
            assert stacked.pattern[study, row] == pattern


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), missing=st.floats(0, 1))
def test_rows_sum_to_one_and_order_of_studies_is_kept(seed: int, missing: float) -> None:
    stacker, members = _random_stacker(seed), _random_members(seed, missing=missing)
    order = np.random.default_rng(seed).permutation(members.shape[1])
    stacked, shuffled = apply_stacker(stacker, members), apply_stacker(stacker, members[:, order])
    for head in Head:
        assert_allclose(stacked.head(head).sum(axis=-1), 1.0)
        assert_allclose(stacked.head(head)[order], shuffled.head(head), atol=1e-12)
    assert_array_equal(stacked.pattern[order], shuffled.pattern)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_json_round_trip_is_exact(seed: int) -> None:
    stacker, members = _random_stacker(seed), _random_members(seed)
    again = stacker_from_json(stacker_to_json(stacker))
    assert stacker_to_json(again) == stacker_to_json(stacker)
    assert again.families[0].member_sources == stacker.families[0].member_sources
    assert_array_equal(apply_stacker(again, members).competition, apply_stacker(stacker, members).competition)


@pytest.mark.parametrize("seed", range(3))
def test_a_mirrored_patient_swaps_left_and_right(seed: int) -> None:
    stacker, members = _random_stacker(seed), _random_members(seed)
    mirror = list(mirror_indices())
    # The centre has sides: only one that is the same on both sides may answer both patients alike.
    centre = (stacker.context_centre + stacker.context_centre[mirror]) / 2
    even = replace(stacker, context_centre=centre)
    stacked, mirrored = apply_stacker(even, members), apply_stacker(even, members[:, :, mirror])
    for head in Head:
        assert_allclose(mirrored.head(head), stacked.head(head)[:, mirror], atol=1e-12)
    assert_array_equal(mirrored.pattern, stacked.pattern[:, mirror])


def test_a_fitted_stacker_survives_json() -> None:
    members, labels, folds = make_members(30, 2, 0)
    stacker = StackerFitter(members, labels, folds).fit()
    answers = apply_stacker(stacker_from_json(stacker_to_json(stacker)), members.probabilities)
    assert_array_equal(answers.probability, apply_stacker(stacker, members.probabilities).probability)


def test_other_versions_and_broken_parts_are_refused() -> None:
    content = json.loads(stacker_to_json(_random_stacker(0)))
    with pytest.raises(ValueError, match="version"):
        stacker_from_json(json.dumps({**content, "version": 99}))
    with pytest.raises(ValueError, match="families"):
        stacker_from_json(json.dumps({key: value for key, value in content.items() if key != "families"}))
    bias = content["families"]["canal"]["heads"]["probability"]["bias"]
    bias[0][0][0] = float("nan")
    with pytest.raises(ValueError, match=r"canal.probability.bias"):
        stacker_from_json(json.dumps(content))
    bias.pop()
    with pytest.raises(ValueError, match=r"canal.probability.bias"):
        stacker_from_json(json.dumps(content))


def test_unknown_members_of_a_family_are_refused() -> None:
    content = json.loads(stacker_to_json(_random_stacker(0)))
    content["families"]["subarticular"]["members"] = ["axial_t2/nobody"]
    with pytest.raises(ValueError, match="nobody"):
        stacker_from_json(json.dumps(content))


def test_the_wrong_number_of_members_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Received: \(2, 6, 25, 3\)"):
        apply_stacker(_random_stacker(0), _random_members(0)[:2])


def test_plain_mean_leaves_out_the_missing() -> None:
    members = np.full((2, 1, 25, 3), np.nan)
    members[0] = [0.2, 0.3, 0.5]
    members[1, 0, 0] = [0.5, 0.3, 0.2]
    mean = mean_in_logits(members)
    assert_allclose(mean[0, 1], [0.2, 0.3, 0.5])
    expected = np.sqrt([0.1, 0.09, 0.1])
    assert_allclose(mean[0, 0], expected / expected.sum())
    assert np.isnan(mean_in_logits(members[1:])[0, 1]).all()


@pytest.mark.parametrize("seed", range(2))
def test_the_graph_says_the_same(seed: int) -> None:
    import tensorflow as tf

    from lumbar_tf.bundle.stacker_graph import stack_predictions

    stacker, members = _random_stacker(seed), _random_members(seed)
    logs = tf.constant(np.log(members), tf.float32)
    probability, competition, pattern = stack_predictions(stacker, logs)
    expected = apply_stacker(stacker, members)
    assert_allclose(probability, expected.probability, atol=1e-5)
    assert_allclose(competition, expected.competition, atol=1e-5)
    assert_array_equal(pattern, expected.pattern)


def test_a_fitted_stacker_mirrors_too() -> None:
    members, labels, folds = make_members(30, 3, 1, missing=0.2)
    stacker, mirror = StackerFitter(members, labels, folds).fit(), list(mirror_indices())
    stacked = apply_stacker(stacker, members.probabilities)
    mirrored = apply_stacker(stacker, members.probabilities[:, :, mirror])
    assert_allclose(mirrored.probability, stacked.probability[:, mirror], atol=1e-12)
    assert_allclose(mirrored.competition, stacked.competition[:, mirror], atol=1e-12)
