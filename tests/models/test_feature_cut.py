"""The two halves of a cut backbone are the whole, and the cut is where it should be."""

import keras
import numpy as np
import pytest

from lumbar_tf.models.backbones import build_backbone
from lumbar_tf.models.feature_cut import cut_backbone


@pytest.mark.parametrize("name", ["csp_darknet_narrow", "densenet_narrow"])
def test_the_two_halves_are_the_whole(name: str) -> None:
    base = build_backbone(name, size_px=48)
    front, rest = cut_backbone(base)
    # 48 px at stride 8; the last maps have 2 and 3 cells.
    assert front.output.shape[1:3] == (6, 6)
    image = np.random.default_rng(0).random((2, 48, 48, 3), np.float32)
    np.testing.assert_array_equal(rest(front(image)), base(image))
    assert {id(each) for each in base.weights} == {id(each) for each in (*front.weights, *rest.weights)}


def _bypassed() -> keras.Model:
    """Stride 2, 4 and 8, with a way around the map of stride 4, which is padded at last."""
    image = keras.Input((32, 32, 1))
    half = keras.layers.Conv2D(2, 3, strides=2, padding="same", name="half")(image)
    quarter = keras.layers.Conv2D(2, 3, strides=2, padding="same", name="quarter")(half)
    around = keras.layers.AveragePooling2D(4)(half)
    joined = keras.layers.Add(name="joined")([keras.layers.AveragePooling2D(2)(quarter), around])
    padded = keras.layers.ZeroPadding2D(3, name="padded")(joined)
    return keras.Model(image, keras.layers.Conv2D(2, 3, strides=4, name="last")(padded))


@pytest.mark.parametrize(("cells", "name"), [(9, "half"), (8, "half"), (4, "joined"), (1, "last")])
def test_all_paths_lead_through_the_cut_and_it_is_not_padded(cells: int, name: str) -> None:
    front, _ = cut_backbone(_bypassed(), min_cells=cells)
    assert front.layers[-1].name == name


def test_where_no_map_is_so_fine_the_cut_is_at_the_end() -> None:
    base = _bypassed()
    front, rest = cut_backbone(base, min_cells=20)
    assert front.layers[-1].name == "last"
    image = np.ones((1, 32, 32, 1), np.float32)
    np.testing.assert_array_equal(rest(front(image)), base(image))
