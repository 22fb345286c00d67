import itertools

import numpy as np
import pytest
import tensorflow as tf

from lumbar_tf.models import level_decoding
from lumbar_tf.models.level_decoding import DecodedLevels, decode_levels

CELLS, PITCH_MM = 64, 4.0


def _position() -> np.ndarray:
    """One sagittal slice: columns to the back (y), rows to the feet (-z), float32 [1, 1, h, w, 3]."""
    row, column = np.mgrid[:CELLS, :CELLS] * PITCH_MM
    return np.stack([np.zeros_like(row), column, -row], axis=-1)[np.newaxis, np.newaxis].astype(np.float32)


def _read(weights: list[dict[int, float]], *, gap: int = 9) -> DecodedLevels:
    """Reads a spine of seven discs, `gap` cells apart; `weights` says which discs each level sees."""
    heatmap = np.full((1, 1, CELLS, CELLS, 5), 1e-9, np.float32)
    for level, discs in enumerate(weights):
        for disc, weight in discs.items():
            heatmap[0, 0, 3 + gap * disc, 30, level] += weight
    heatmap /= heatmap.sum(axis=(1, 2, 3), keepdims=True)
    return decode_levels(tf.constant(heatmap), tf.constant(_position()))


def _discs(found: DecodedLevels, *, gap: int = 9) -> list[float]:
    return list((-found.points.numpy()[0, :, 2] / PITCH_MM - 3) / gap)


def test_five_clear_levels_are_read_as_they_are_and_without_doubt() -> None:
    found = _read([{level + 1: 1.0} for level in range(5)])
    assert _discs(found) == pytest.approx([1, 2, 3, 4, 5])
    assert found.uncertainty.numpy().max() < 1e-3


@pytest.mark.parametrize("gap", [6, 9, 12])
def test_a_ladder_that_names_one_disc_twice_is_put_right_at_any_scale(gap: int) -> None:
    # The three upper levels are one disc low, so that two name disc 4 and none disc 1.
    seen = [{2: 0.8, 1: 0.2}, {3: 0.8, 2: 0.2}, {4: 0.8, 3: 0.2}, {4: 1.0}, {5: 1.0}]
    if gap == 12:  # only five discs fit into the image
        seen = [{disc - 1: share for disc, share in level.items()} for level in seen]
    first = 0 if gap == 12 else 1
    assert _discs(_read(seen, gap=gap), gap=gap) == pytest.approx([first + level for level in range(5)])


def test_the_disc_on_the_sacrum_outvotes_four_that_merely_count() -> None:
    seen = [{level + 2: 0.9, level + 1: 0.1} for level in range(4)] + [{5: 0.9, 6: 0.1}]
    found = _read(seen)
    assert _discs(found) == pytest.approx([1, 2, 3, 4, 5])
    assert found.uncertainty.numpy().min() > 0.05


def test_two_ladders_as_likely_as_each_other_give_a_doubt_of_a_half() -> None:
    found = _read([{level: 0.5, level + 1: 0.5} for level in range(5)])
    np.testing.assert_allclose(found.uncertainty, 0.5, atol=0.12)


def test_where_four_discs_are_seen_the_fifth_point_is_withheld() -> None:
    found = _read([{max(level - 1, 0): 1.0} for level in range(5)])
    assert np.isnan(found.points[0, 0]).all()
    assert float(found.uncertainty[0, 0]) == 1
    assert _discs(found)[1:] == pytest.approx([0, 1, 2, 3])


def test_heatmaps_that_are_even_give_no_ladder() -> None:
    found = _read([{}] * 5)
    assert np.isnan(found.points).all()
    assert (found.uncertainty.numpy() == 1).all()


def test_thebest_sequence_and_the_total_are_those_of_all_ladders_written_out() -> None:
    rng = np.random.default_rng(3)
    count = 5
    single, pair, triple = (
        rng.normal(size=shape) for shape in ((2, 5, count), (2,) + 2 * (count,), (2,) + 3 * (count,))
    )
    weights = {
        sequence: np.array(
            [
                sum(single[study, level, sequence[level]] for level in range(5))
                + sum(pair[study, sequence[level], sequence[level + 1]] for level in range(4))
                + sum(
                    triple[study, sequence[level], sequence[level + 1], sequence[level + 2]]
                    for level in range(3)
                )
                for study in range(2)
            ]
        )
        for sequence in itertools.product(range(count), repeat=5)
    }
    potentials = level_decoding.LevelPotentials(
        *(tf.constant(weights, tf.float32) for weights in (single, pair, triple))
    )
    chosen, best = level_decoding.best_sequence(potentials)
    total = level_decoding.log_total_weight(potentials)
    for study in range(2):
        expected = max(weights, key=lambda each: weights[each][study])
        assert tuple(chosen.numpy()[study]) == expected
        assert float(best[study]) == pytest.approx(weights[expected][study], rel=1e-5)
        everything = np.logaddexp.reduce([log_weight[study] for log_weight in weights.values()])
        assert float(total[study]) == pytest.approx(everything, rel=1e-5)


def test_the_ladder_has_static_shapes_and_compiles() -> None:
    compiled = tf.function(
        decode_levels,
        input_signature=[
            tf.TensorSpec([None, 1, CELLS, CELLS, 5], tf.float32),
            tf.TensorSpec([None, 1, CELLS, CELLS, 3], tf.float32),
        ],
    )
    outputs = compiled.get_concrete_function().structured_outputs
    assert outputs.points.shape.as_list() == [None, 5, 3]
    assert outputs.uncertainty.shape.as_list() == [None, 5]
