"""Signatures return what `tf.saved_model.load` makes them return, whatever else the process has loaded."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from lumbar_tf.bundle.served_graph import ServedGraph

STUDIES = [b"1", b"", b"25"]


class _Scale(tf.Module):
    """Numbers from strings, scaled by a variable in a function of its own, in a loop over studies."""

    def __init__(self, factors: Sequence[float]) -> None:
        super().__init__()
        self.factors = [tf.Variable(factor) for factor in factors]

    @tf.function(
        input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.float32)],
        autograph=False,
        experimental_attributes={"_noinline": True},
    )
    def one(self, study: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
        size = tf.cast(tf.strings.length(study), tf.float32)
        # Constants of the same value, one of them of another type.
        return factor * (size + 1.0) + 1.0 + tf.cast(tf.constant(1), tf.float32)

    def _sum(self, studies: tf.Tensor) -> tf.Tensor:
        def scale(study: tf.Tensor) -> tf.Tensor:
            return tf.add_n([self.one(study, factor.read_value()) for factor in self.factors])

        return tf.map_fn(scale, studies, fn_output_signature=tf.float32)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="plane")], autograph=False)
    def grade(self, studies: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"total": self._sum(studies), "twice": tf.strings.join([studies, studies])}

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.string, name=name) for name in ("left", "right")],
        autograph=False,
    )
    def compare(self, left: tf.Tensor, right: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"difference": self._sum(left) - self._sum(right)}


def _save(path: Path, factors: Sequence[float]) -> Path:
    module = _Scale(factors)
    signatures = {"grade": module.grade, "compare": module.compare}
    tf.saved_model.save(module, str(path), signatures=signatures)
    return path


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SavedModel with two signatures and two variables."""
    return _save(tmp_path_factory.mktemp("saved") / "1", [2.0, 0.5])


def test_outputs_are_those_of_tensorflows_own_loader(saved: Path) -> None:
    graph, loaded = ServedGraph(saved), tf.saved_model.load(str(saved)).signatures
    assert {"grade", "compare"} <= graph.signatures
    expected = loaded["grade"](plane=tf.constant(STUDIES))
    outputs = graph.run("grade", {"plane": STUDIES})
    assert set(outputs) == set(expected)
    np.testing.assert_array_equal(outputs["total"], expected["total"])
    assert outputs["total"].tolist() == [2.5 * (len(study) + 1) + 4 for study in STUDIES]
    assert outputs["twice"].tolist() == [study * 2 for study in STUDIES]


def test_inputs_are_taken_by_name(saved: Path) -> None:
    graph = ServedGraph(saved)
    outputs = graph.run("compare", {"right": [b"1"], "left": [b"123"]})
    assert outputs["difference"].tolist() == [5.0]


def test_two_models_keep_their_own_variables(saved: Path, tmp_path: Path) -> None:
    graphs = [ServedGraph(saved), ServedGraph(_save(tmp_path / "1", [7.0, 0.0]))]
    totals = [graph.run("grade", {"plane": [b""]})["total"].tolist() for graph in graphs]
    assert totals == [[6.5], [11.0]]


def test_threads_get_the_answers_to_their_own_studies(saved: Path) -> None:
    graph = ServedGraph(saved)
    batches = [[b"x" * length] for length in range(12)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(
            pool.map(lambda batch: graph.run("grade", {"plane": batch})["total"].tolist(), batches)
        )
    assert answers == [[2.5 * (length + 1) + 4] for length in range(12)]


def test_an_unknown_signature_or_input_is_named(saved: Path) -> None:
    graph = ServedGraph(saved)
    with pytest.raises(ValueError, match=r"`signature` must be of .*compare.* Received: other"):
        graph.run("other", {})
    with pytest.raises(ValueError, match=r"Inputs must be left, right\. Received: plane"):
        graph.run("compare", {"plane": STUDIES})
