from pathlib import Path

import numpy as np
from matplotlib.image import imread

from lumbar_tf.evaluation.plots import plot_confusion, plot_reliability


def _table() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = generator.choice(3, size=(30, 25), p=[0.7, 0.2, 0.1])
    labels[:, 15:] = -1
    probabilities = generator.dirichlet([1, 1, 1], (30, 25))
    probabilities[0, 0] = np.nan
    return labels, probabilities


def test_pictures_are_drawn_with_a_family_without_labels(tmp_path: Path) -> None:
    for draw in (plot_reliability, plot_confusion):
        path = tmp_path / f"{draw.__name__}.png"
        draw(*_table(), path, title="a title")
        pixels = imread(path)[..., :3]
        assert min(pixels.shape[:2]) > 300
        assert pixels.std() > 0.05  # not an empty sheet
