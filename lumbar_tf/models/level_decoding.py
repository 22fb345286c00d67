"""Joint decoding of the five lumbar levels from their heatmaps, with uncertainty.

The heatmap of one level may prefer a neighbouring disc while the others are right, so that five separate
peaks can contain a disc twice or skip one. Here the peaks of all heatmaps together are candidates, and the
level sequence is the sequence of five candidates, head to feet, with the largest weight under the heatmaps
and the regular spacing of a spine. This is a second-order hidden Markov model, small enough (K candidates,
K**2 states) for exact inference.
"""

from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf

from lumbar_tf.labels import NUM_LEVELS

#: K, the number of candidates per study and side: the discs in an image (6 to 12) and some false ones.
_NUM_CANDIDATES = 16
#: Least share of the mass of all heatmaps at the five discs; below it no level sequence is returned.
_LEAST_SUPPORT = 0.3
#: Least share of the mass of all heatmaps at a single level; below it the level has no point.
_LEAST_SHARE = 0.01
#: Log of the smallest heatmap share of a candidate, which bounds the certainty of one heatmap so that the
#: others can outvote it.
_FLOOR = -9.0
#: Weights of the levels' heatmaps. L5/S1 lies on the sacrum and is recognisable by itself; the levels above
#: look alike and are identified by counting, so that four of them can be wrong together.
_LEVEL_WEIGHTS = (0.2, 0.2, 0.2, 0.3, 1.0)
#: Weight of the evidence of all levels together that there is a disc.
_DISC_WEIGHT = 0.5
#: Distance of neighbouring discs: a vertebral body of 27 mm plus a disc of 9 to 11 mm in adults. The
#: tolerance is wide (0.35 in the logarithm: 25 to 51 mm at one sigma), to allow for children and wrong pixel
#: spacings.
_GAP_MM = 36.0
_GAP_SD_LOG = 0.35
#: Log ratio of neighbouring gaps, which are similar at any scale, and the angle between them in radians (the
#: lumbar lordosis of 40 to 60 degrees is distributed over four angles).
_RATIO_SD_LOG = 0.25
_BEND_SD_RAD = 0.35
#: Candidates nearer than this are the same disc.
SAME_DISC_MM = 12.0
#: A larger uncertainty is flagged as a possible level shift. A single network is often certain of a wrong
#: level sequence, so the flag misses most of those; disagreement between folds raises the uncertainty far
#: above this.
SHIFT_UNCERTAINTY = 0.02
_IMPOSSIBLE = -1.0e4


class DecodedLevels(NamedTuple):
    """The best level sequence.

    Attributes:
        points: float32 [n, 5, 3], LPS mm: centres of the chosen candidates; NaN where there is no level
            sequence, or no heatmap has mass at the level.
        uncertainty: float32 [n, 5], 0 to 1: the share of all level sequences, by weight, that have the level
            on another disc. 1 where there is no point.
    """

    points: tf.Tensor
    uncertainty: tf.Tensor


@dataclass(frozen=True)
class LevelPotentials:
    """Log weights of level sequences over K candidates.

    Attributes:
        single: float32 [n, 5, K], a candidate as a level.
        pair: float32 [n, K, K], the second candidate directly below the first.
        triple: float32 [n, K, K, K], three candidates in a row.
    """

    single: tf.Tensor
    pair: tf.Tensor
    triple: tf.Tensor


def decode_levels(heatmap: tf.Tensor, position: tf.Tensor) -> DecodedLevels:
    """Finds the best sequence of five levels.

    Args:
        heatmap: float32 [n, slice, h, w, 5], probabilities that sum to 1 over a level's cells.
        position: float32 [n, slice, h, w, 3], LPS mm of the cells.
    """
    centre, single, share = _candidates(heatmap, position)
    potentials = LevelPotentials(single, *_shape_potentials(centre))
    chosen, best = best_sequence(potentials)
    share = tf.gather(share, chosen, batch_dims=1)
    exists = (best > _IMPOSSIBLE / 2) & (tf.reduce_sum(share, axis=-1) >= _LEAST_SUPPORT)
    is_seen = exists[:, tf.newaxis] & (share >= _LEAST_SHARE)
    points = tf.gather(centre, chosen, batch_dims=1)
    uncertainty = _uncertainty(potentials, centre, points)
    return DecodedLevels(
        tf.where(is_seen[..., tf.newaxis], points, float("nan")), tf.where(is_seen, uncertainty, 1.0)
    )


def _window(cells: int) -> int:
    """Returns the odd side of the window around a peak, in cells: about 16 mm of a field of 320 mm."""
    return 2 * max(1, cells // 32) + 1


def _candidates(heatmap: tf.Tensor, position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Finds the strongest peaks of the sum of all heatmaps.

    Returns:
        The centres of the candidates, float32 [n, K, 3], LPS mm; the weighted log share of each level's
        heatmap around each candidate, float32 [n, 5, K] (`_IMPOSSIBLE` if there are fewer peaks); and the
        candidate's share of all heatmaps together, float32 [n, K].
    """
    count, cells = tf.shape(heatmap)[0], heatmap.shape[2]
    window = _window(cells)
    near = tf.reduce_sum(heatmap, axis=1)
    # Padded explicitly, because "SAME" averages over fewer cells at the edges.
    edge = [[0, 0], [window // 2, window // 2], [window // 2, window // 2], [0, 0]]
    shares = tf.nn.avg_pool2d(tf.pad(near, edge), window, 1, "VALID") * window**2
    total = tf.reduce_sum(near, axis=-1, keepdims=True)
    is_peak = tf.equal(total, tf.nn.max_pool2d(total, window, 1, "SAME")) & (total > 0)
    strength = tf.reshape(tf.where(is_peak, total, -1.0), [count, cells * cells])
    strength, place = tf.math.top_k(strength, _NUM_CANDIDATES)
    share = tf.gather(tf.reshape(shares, [count, cells * cells, NUM_LEVELS]), place, batch_dims=1)
    single = tf.maximum(tf.math.log(share), _FLOOR) * tf.constant(_LEVEL_WEIGHTS, tf.float32)
    disc = tf.minimum(tf.reduce_sum(share, axis=-1, keepdims=True), 1.0)
    single += _DISC_WEIGHT * tf.maximum(tf.math.log(disc), _FLOOR)
    single = tf.where(strength[..., tf.newaxis] > 0, single, _IMPOSSIBLE)
    # Centre of mass of all heatmaps around the peak, over all slices.
    seen = tf.reduce_sum(heatmap, axis=-1, keepdims=True)
    moments = tf.reduce_sum(tf.concat([seen * position, seen], axis=-1), axis=1)
    moments = tf.nn.avg_pool2d(moments, window, 1, "SAME")
    moments = tf.gather(tf.reshape(moments, [count, cells * cells, 4]), place, batch_dims=1)
    centre = moments[..., :3] / tf.maximum(moments[..., 3:], 1e-20)
    return centre, tf.transpose(single, [0, 2, 1]), tf.reduce_mean(share, axis=-1)


def _shape_potentials(centre: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the log weights of pairs and triples of candidates under the geometry of a spine."""
    step = centre[:, tf.newaxis] - centre[:, :, tf.newaxis]
    length = tf.maximum(tf.norm(step, axis=-1), 1e-3)
    log_length = tf.math.log(length)
    pair = -0.5 * tf.square((log_length - tf.math.log(_GAP_MM)) / _GAP_SD_LOG)
    is_below = (step[..., 2] < 0) & (length > SAME_DISC_MM)
    pair = tf.where(is_below, pair, _IMPOSSIBLE)
    ratio = log_length[:, tf.newaxis] - log_length[..., tf.newaxis]
    along = step / length[..., tf.newaxis]
    cosine = tf.einsum("nijx,njkx->nijk", along, along)
    bend = tf.acos(tf.clip_by_value(cosine, -1.0, 1.0))
    triple = -0.5 * (tf.square(ratio / _RATIO_SD_LOG) + tf.square(bend / _BEND_SD_RAD))
    return pair, triple


def best_sequence(potentials: LevelPotentials) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the best sequence, int32 [n, 5], and its log weight, float32 [n] (Viterbi algorithm)."""
    single, candidates = potentials.single, potentials.single.shape[-1]
    step = potentials.pair[:, tf.newaxis] + potentials.triple
    score = _first_two(potentials)
    origins = []
    for level in range(2, NUM_LEVELS):
        longer = score[..., tf.newaxis] + step + single[:, level, tf.newaxis, tf.newaxis]
        origins.append(tf.argmax(longer, axis=1, output_type=tf.int32))
        score = tf.reduce_max(longer, axis=1)
    flat = tf.reshape(score, [-1, candidates * candidates])
    last = tf.argmax(flat, axis=-1, output_type=tf.int32)
    sequence = [last % candidates, last // candidates]
    for origin in reversed(origins):
        sequence.append(tf.gather_nd(origin, tf.stack([sequence[-1], sequence[-2]], axis=-1), batch_dims=1))
    return tf.stack(sequence[::-1], axis=-1), tf.reduce_max(flat, axis=-1)


def _first_two(potentials: LevelPotentials) -> tf.Tensor:
    single = potentials.single
    return single[:, 0, :, tf.newaxis] + single[:, 1, tf.newaxis] + potentials.pair


def log_total_weight(potentials: LevelPotentials) -> tf.Tensor:
    """Returns the log of the total weight of all sequences, float32 [n] (forward algorithm)."""
    step = potentials.pair[:, tf.newaxis] + potentials.triple
    score = _first_two(potentials)
    for level in range(2, NUM_LEVELS):
        longer = score[..., tf.newaxis] + step + potentials.single[:, level, tf.newaxis, tf.newaxis]
        score = tf.reduce_logsumexp(longer, axis=1)
    return tf.reduce_logsumexp(score, axis=[1, 2])


def _uncertainty(potentials: LevelPotentials, centre: tf.Tensor, points: tf.Tensor) -> tf.Tensor:
    """Returns the share of the sequences without the chosen disc at a level, float32 [n, 5]."""
    is_same = tf.norm(centre[:, tf.newaxis] - points[:, :, tf.newaxis], axis=-1) <= SAME_DISC_MM
    # [n, barred level, level, K]
    barred = tf.eye(NUM_LEVELS, dtype=tf.bool)[..., tf.newaxis] & is_same[:, :, tf.newaxis]
    single = tf.where(barred, _IMPOSSIBLE, potentials.single[:, tf.newaxis])

    def repeat(weights: tf.Tensor) -> tf.Tensor:
        return tf.repeat(weights, NUM_LEVELS, axis=0)

    elsewhere = LevelPotentials(
        tf.reshape(single, [-1, *single.shape[2:]]), repeat(potentials.pair), repeat(potentials.triple)
    )
    total = log_total_weight(potentials)[:, tf.newaxis]
    return tf.exp(tf.minimum(tf.reshape(log_total_weight(elsewhere), [-1, NUM_LEVELS]) - total, 0.0))
