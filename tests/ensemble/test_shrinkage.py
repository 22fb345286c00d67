import numpy as np
import pytest
from numpy.testing import assert_allclose

from lumbar_tf.ensemble.any_severe import Sharpening
from lumbar_tf.ensemble.candidates import Fit, Rows
from lumbar_tf.ensemble.shrinkage import Shrinkage, choose_share, find_shrinkage
from lumbar_tf.labels import Family


def _rows(num_studies: int, *, noise: float, seed: int = 0) -> tuple[Rows, np.ndarray]:
    """Rows whose labels follow the mean of two members exactly, and logits that are `noise` off it."""
    generator = np.random.default_rng(seed)
    studies = np.repeat(np.arange(num_studies), 5)
    mean = 1.5 * generator.normal(size=(len(studies), 3)) + np.log([0.8, 0.13, 0.07])
    labels = (mean + generator.gumbel(size=mean.shape)).argmax(axis=1)
    weighted = mean + np.log([1.0, 2.0, 4.0])
    weighted -= weighted.mean(axis=1, keepdims=True)
    rows = Rows(
        features=np.stack([weighted, weighted], axis=1),
        context=np.zeros((len(studies), 5, 3)),
        levels=np.tile(np.arange(5), num_studies),
        labels=labels,
        studies=studies,
        folds=studies % 5,
    )
    return rows, weighted + noise * generator.normal(size=weighted.shape)


@pytest.mark.parametrize("family", [Family.FORAMINAL, Family.CANAL])
def test_a_fit_that_is_the_mean_and_noise_gets_little(family: Family) -> None:
    shares = [find_shrinkage(family, *_rows(200, noise=0.5, seed=seed)).share for seed in range(5)]
    assert np.mean(shares) < 0.2


@pytest.mark.parametrize("family", list(Family))
def test_a_fit_that_is_right_where_the_mean_is_wrong_is_taken(family: Family) -> None:
    rows, logits = _rows(300, noise=0.0)
    wrong = Rows(
        rows.features * 2.5, rows.context, rows.levels, rows.labels, rows.studies, rows.folds
    )  # twice too sure of themselves
    assert find_shrinkage(family, wrong, logits).share > 0.85


def test_the_surer_a_gain_the_larger_the_share() -> None:
    generator = np.random.default_rng(1)
    noise = generator.normal(size=(400, 1))

    def share_of(gain: float) -> float:
        """Losses (share - 1)^2 * gain, and a study's luck in proportion to the share."""
        return choose_share(
            np.zeros((400, 3)),
            np.ones((400, 3)),
            lambda logits: gain * (logits[:, 0] - 1) ** 2 + logits[:, 0] * (noise - noise.mean())[:, 0],
        )

    shares = [share_of(gain) for gain in (0.0, 0.01, 0.03, 0.1, 1.0)]
    assert shares == sorted(shares)
    assert shares[0] == 0.0 and 0.0 < shares[2] < 0.9 and shares[-1] >= 0.95


def test_a_share_blends_with_the_plain_mean_of_the_members() -> None:
    generator = np.random.default_rng(2)
    fit = Fit(generator.normal(size=(2, 3, 3)), generator.normal(size=(5, 3)), np.zeros((5, 3, 3)))
    rows, _ = _rows(4, noise=0.0)
    blended = Shrinkage(0.3, Sharpening(1.2, 0.1, 0.2)).apply(fit).logits(rows)
    expected = 0.3 * (1.2 * fit.logits(rows) + [0.0, 0.1, 0.2]) + 0.7 * rows.features.mean(axis=1)
    assert_allclose(blended, expected)


def test_words_say_what_was_made_of_the_fit() -> None:
    assert Shrinkage().words == ""
    assert Shrinkage(0.75).words == "; 25% plain mean"
    assert Shrinkage(0.0, Sharpening(1.1)).words == "; no gain is sure: plain mean"
    assert Shrinkage(0.5, Sharpening(1.1)).words.startswith(", for any severe: scale 1.100")
