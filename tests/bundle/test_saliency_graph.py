"""Maps come back where they lie in the patient; weights are what the stacker in NumPy does."""

import numpy as np
import tensorflow as tf

from lumbar_tf.bundle.members import MemberPredictions
from lumbar_tf.bundle.saliency_graph import arrange_maps, member_weights, stack_maps
from lumbar_tf.bundle.stacker_graph import stack_predictions
from lumbar_tf.ensemble.stacker import apply_stacker
from lumbar_tf.ensemble.stacking_run import StackerFitter
from lumbar_tf.inputs.crop_layout import CropLayout
from lumbar_tf.labels import Condition, Family, Level, Plane, finding_index
from tests.ensemble.synthetic_members import make_members

AXIAL = CropLayout(Plane.AXIAL_T2, (Family.CANAL, Family.SUBARTICULAR))
T1 = CropLayout(Plane.SAGITTAL_T1, (Family.FORAMINAL,))
LEVEL = Level.L3_L4
#: The crops of that level, left before right.
LEFT, RIGHT = 4, 5


def _row(condition: Condition) -> int:
    return finding_index(condition, LEVEL)


def _maps(layout: CropLayout, *, is_mirrored: bool = True) -> np.ndarray:
    """Every map holds its family, crop and slice as digits, and 0.5 more in its upper left cell."""
    families, crops = len(layout.targets), len(layout.sides)
    family, crop, number = np.meshgrid(range(families), range(crops), range(3), indexing="ij")
    parts = np.zeros((1, families, crops, 3, 2, 2), np.float32)
    parts += (100 * family + 10 * crop + number)[None, ..., None, None] + 1
    parts[..., 0, 0] += 0.5
    # Against stenosis: no part of a map.
    parts[0, 0, 0, 0, 1, 1] = -7
    mask = np.ones((1, crops, 3), bool)
    mask[0, RIGHT, 2] = False
    maps = arrange_maps(tf.constant(parts), tf.constant(mask), layout, is_mirrored=is_mirrored)
    return maps.numpy()[0]


def test_columns_of_a_right_axial_crop_are_turned_back() -> None:
    maps = _maps(AXIAL)
    left = _row(Condition.LEFT_SUBARTICULAR_STENOSIS)
    right = _row(Condition.RIGHT_SUBARTICULAR_STENOSIS)
    assert maps.shape == (25, 2, 3, 2, 2)
    np.testing.assert_array_equal(maps[left, 0, 1], [[142.5, 142], [142, 142]])
    np.testing.assert_array_equal(maps[right, 0, 1], [[152, 152.5], [152, 152]])
    # One look each, and no slice where there is none: the third one.
    assert np.isnan(maps[[left, right], 1]).all() and np.isnan(maps[right, 0, 2]).all()
    canal = maps[_row(Condition.SPINAL_CANAL_STENOSIS)]
    np.testing.assert_array_equal(canal[:, 0], [[[41.5, 41], [41, 41]], [[51, 51.5], [51, 51]]])
    assert np.isnan(maps[_row(Condition.LEFT_NEURAL_FORAMINAL_NARROWING)]).all()
    first = maps[finding_index(Condition.SPINAL_CANAL_STENOSIS, Level.L1_L2)]
    assert first[0, 0, 1, 1] == 0


def test_slices_of_a_right_sagittal_crop_are_put_back_in_order() -> None:
    maps = _maps(T1)
    left, right = (
        _row(condition)
        for condition in (
            Condition.LEFT_NEURAL_FORAMINAL_NARROWING,
            Condition.RIGHT_NEURAL_FORAMINAL_NARROWING,
        )
    )
    assert maps.shape == (25, 1, 3, 2, 2)
    assert maps[left, 0, :, 0, 0].tolist() == [41.5, 42.5, 43.5]
    # The third in the mirrored order, which is missing, is the first one.
    np.testing.assert_array_equal(maps[right, 0, :, 0, 0], [np.nan, 52.5, 51.5])


def test_what_was_not_mirrored_is_not_turned() -> None:
    right = _row(Condition.RIGHT_SUBARTICULAR_STENOSIS)
    np.testing.assert_array_equal(_maps(AXIAL, is_mirrored=False)[right, 0, 1], [[152.5, 152], [152, 152]])


def test_members_of_other_sizes_keep_their_middle_slice_and_their_corners() -> None:
    wide = tf.fill([2, 25, 1, 5, 4, 4], 7.0)
    small = tf.reshape(tf.range(3.0), [1, 1, 1, 3, 1, 1]) + tf.constant([[0.0, 10.0], [20.0, 30.0]])
    small = tf.tile(small, [2, 25, 2, 1, 1, 1])
    small = tf.where(tf.reshape(tf.range(3), [1, 1, 1, 3, 1, 1]) == 2, float("nan"), small)
    maps = stack_maps([wide, small]).numpy()
    assert maps.shape == (2, 2, 25, 2, 5, 4, 4)
    assert np.isnan(maps[:, 0, :, 1]).all() and (maps[:, 0, :, 0] == 7).all()
    assert np.isnan(maps[:, 1, :, :, [0, 3, 4]]).all()
    middle = maps[0, 1, 0, 0, 2]
    assert [middle[0, 0], middle[0, 3], middle[3, 0], middle[3, 3]] == [1, 11, 21, 31]


def _sick_odds(probability: np.ndarray) -> np.ndarray:
    return np.log(probability[..., 1:].sum(axis=-1) / probability[..., 0])


def test_a_weight_is_by_how_much_the_stacked_log_odds_follow_a_members() -> None:
    """Against finite differences of the stacker in NumPy: one member's odds of one finding are raised."""
    members, labels, folds = make_members(60, 5, 2)
    tables = members.probabilities
    tables[1, :, 3] = np.nan
    stacker, shown = StackerFitter(members, labels, folds).fit(), tables[:, :4]
    logs = tf.constant(np.log(shown), tf.float32)
    said = MemberPredictions(logs, tf.zeros([4, 25, 3]), tf.zeros([4, 25]))
    probability, _, pattern = stack_predictions(stacker, logs)
    weights = member_weights(stacker, said, probability, pattern).numpy()
    assert weights.shape == (4, 5, 25)
    assert np.isnan(weights[:, 1, 3]).all() and np.isfinite(np.delete(weights, 3, axis=2)).all()

    def odds_with(member: int, row: int, step: float) -> np.ndarray:
        raised = shown.copy()
        # The odds of the two sick grades against each other stay.
        raised[member, :, row, 1:] *= np.exp(step)
        raised[member, :, row] /= raised[member, :, row].sum(axis=-1, keepdims=True)
        return _sick_odds(apply_stacker(stacker, raised).probability)[:, row]

    for member, row in [(0, 0), (0, 3), (2, 7), (4, 12), (3, 24)]:
        slope = (odds_with(member, row, 1e-4) - odds_with(member, row, -1e-4)) / 2e-4
        np.testing.assert_allclose(weights[:, member, row], slope, rtol=1e-3, atol=1e-4)
