"""What no TF Serving binary can serve is refused before it is exported."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from lumbar_tf.bundle.servable_check import find_faults


def _save(
    folder: Path, answer: tf.types.experimental.Callable, shape: tuple[int | None, ...] = (None,)
) -> Path:
    module = tf.Module()
    module.serve = tf.function(answer, input_signature=[tf.TensorSpec(shape, tf.float32, name="study")])
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
    return folder


def test_a_plain_graph_has_no_fault(tmp_path: Path) -> None:
    assert find_faults(_save(tmp_path, lambda study: {"twice": study * 2})) == []


@pytest.mark.parametrize("kind", ["py_function", "numpy_function"])
def test_python_that_is_smuggled_in_is_found_wherever_it_hides(tmp_path: Path, kind: str) -> None:
    def run(value: tf.Tensor) -> tf.Tensor:
        if kind == "py_function":
            return tf.py_function(lambda each: each * 2, [value], tf.float32)
        return tf.numpy_function(lambda each: each * 2, [value], tf.float32)

    def answer(study: tf.Tensor) -> dict[str, tf.Tensor]:
        # In the body of a loop, which is a function of its own in the graph's library.
        twice = tf.map_fn(run, study, fn_output_signature=tf.TensorSpec([], tf.float32))
        return {"twice": tf.reshape(twice, [-1])}

    (fault,) = find_faults(_save(tmp_path, answer))
    assert "PyFunc" in fault and "runs Python" in fault


def test_reading_a_file_is_found(tmp_path: Path) -> None:
    def answer(study: tf.Tensor) -> dict[str, tf.Tensor]:
        secret = tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32)
        return {"sum": study + secret}

    (fault,) = find_faults(_save(tmp_path, answer))
    assert "ReadFile" in fault


def test_an_operation_that_tensorflow_has_not_is_found(tmp_path: Path) -> None:
    path = _save(tmp_path, lambda study: {"twice": tf.math.erfinv(study)}) / "saved_model.pb"
    # As a graph with a custom operation looks in its file; of the same length, so that the file stays whole.
    path.write_bytes(path.read_bytes().replace(b"Erfinv", b"Custom"))
    faults = find_faults(tmp_path)
    assert any("Custom" in fault and "not part of TensorFlow" in fault for fault in faults)


def test_a_weight_that_is_a_constant_is_found(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).normal(size=(300, 300)).astype(np.float32)
    faults = find_faults(_save(tmp_path, lambda study: {"sum": study @ tf.constant(weights)}, (None, 300)))
    assert faults and all("weights must be variables" in fault for fault in faults)


def test_a_dimension_0_that_is_not_the_studys_is_found(tmp_path: Path) -> None:
    faults = find_faults(_save(tmp_path, lambda study: {"all": tf.reduce_sum(study), "two": study[:2]}, (2,)))
    assert [fault.split()[0] for fault in faults] == ["all", "study", "two"]
