from itertools import pairwise

import numpy as np
import pytest

from lumbar_tf.labels import FINDINGS, Condition, Finding, Level, Side
from lumbar_tf.synthetic.anatomy import closure, make_anatomy, mirror_anatomy
from lumbar_tf.synthetic.cohort import landmark
from lumbar_tf.synthetic.severity import thresholds


def test_closure_increases_with_severity() -> None:
    values = [closure(relative) for relative in np.linspace(-3, 3, 25)]
    assert all(first < second for first, second in pairwise(values))
    assert values[0] >= 0
    assert values[-1] <= 1


def test_left_is_at_plus_x_and_levels_descend() -> None:
    anatomy = make_anatomy(np.zeros(25), np.random.default_rng(3))
    heights = []
    for level in Level:
        left = landmark(anatomy, Finding(Condition.LEFT_NEURAL_FORAMINAL_NARROWING, level))
        right = landmark(anatomy, Finding(Condition.RIGHT_NEURAL_FORAMINAL_NARROWING, level))
        canal = landmark(anatomy, Finding(Condition.SPINAL_CANAL_STENOSIS, level))
        assert left[0] > canal[0] > right[0]
        # In the competition's data, foramina are 13 to 23 mm to either side of the canal point.
        assert 13 < left[0] - canal[0] < 23
        heights.append(canal[2])
    assert heights == sorted(heights, reverse=True)


def test_a_mirrored_patient_has_left_where_right_was() -> None:
    anatomy = make_anatomy(np.zeros(25), np.random.default_rng(4))
    mirrored = mirror_anatomy(anatomy)
    assert anatomy.side_sign(Side.LEFT) == -mirrored.side_sign(Side.LEFT)
    for finding in FINDINGS:
        expected = landmark(anatomy, finding) * (-1, 1, 1)
        np.testing.assert_allclose(landmark(mirrored, finding.mirrored), expected, atol=1e-9)


def test_a_severity_affects_its_own_level_and_side_only() -> None:
    latent = thresholds()[:, 0] - 3
    finding = Finding(Condition.LEFT_SUBARTICULAR_STENOSIS, Level.L3_L4)
    latent[FINDINGS.index(finding)] = thresholds()[FINDINGS.index(finding), 1] + 1
    anatomy = make_anatomy(latent, np.random.default_rng(5))
    for level in Level:
        segment = anatomy.segment(level)
        left, right = segment.recesses
        assert left == pytest.approx(1, abs=0.1) if level is Level.L3_L4 else left < 0.1
        assert max(right, segment.canal, *segment.foramina) < 0.1
