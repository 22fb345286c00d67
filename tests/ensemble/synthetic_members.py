"""Synthetic out-of-fold predictions with known truth."""

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.tables.out_of_fold import Members, source_of

#: Shares of the three severities: common enough that small cohorts have some of each.
_SHARES = np.array([0.7, 0.2, 0.1])
_PLANES = ("sagittal_t2", "axial_t2", "sagittal_t1")


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def make_members(
    num_studies: int, num_members: int, seed: int, *, missing: float = 0.0, temperature: float = 1.0
) -> tuple[Members, NDArray[np.int64], NDArray[np.int64]]:
    """Members that saw one shared noisy look at the truth, and noise of their own.

    Returns the members, labels [num_studies, 25] and folds [num_studies].
    """
    generator = np.random.default_rng(seed)
    labels = generator.choice(3, size=(num_studies, 25), p=_SHARES)
    onehot = np.eye(3)[labels]
    # x = evidence * onehot + noise with variance v has log-likelihood ratio x * evidence / v between classes.
    shared = onehot + 0.6 * generator.normal(size=onehot.shape)
    looks = shared + generator.uniform(0.3, 0.7, (num_members, 1, 1, 1)) * generator.normal(
        size=(num_members, *onehot.shape)
    )
    probabilities = _softmax((looks / 0.6 + np.log(_SHARES)) * temperature)
    probabilities[generator.random((num_members, num_studies)) < missing] = np.nan
    names = tuple(f"{_PLANES[index % 3]}/net_{index}" for index in range(num_members))
    folds = generator.permutation(np.arange(num_studies) % 5)
    return Members(names, tuple(map(source_of, names)), probabilities), labels, folds
