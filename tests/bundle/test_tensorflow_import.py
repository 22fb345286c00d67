"""TensorFlow comes without Keras where it is asked to, and Keras works afterwards."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

IMPORTS = """
import sys
from lumbar_tf.bundle.tensorflow_import import import_tensorflow
import_tensorflow()
import_tensorflow()
import tensorflow as tf
"""


def _run(script: str, *, before: str = "") -> str:
    words = [sys.executable, "-c", before + IMPORTS + script]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_nothing_that_only_keras_needs_is_loaded() -> None:
    names = "{'keras', 'sklearn', 'pandas', 'matplotlib'}"
    assert _run(f"print(sorted({names} & set(sys.modules)))") == "[]"


def test_tensorflow_computes_and_keras_can_be_used_later() -> None:
    script = """
total = tf.function(lambda x: tf.reduce_sum(x))(tf.ones([3])).numpy()
import keras
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
model.compile("adam", loss="mse")
model.fit(tf.zeros([4, 2]), tf.zeros([4, 3]), verbose=0)
print([finder for finder in sys.meta_path if "lumbar_tf" in type(finder).__module__])
print(total, model(tf.zeros([1, 2])).shape, tf.keras.layers.Dense is keras.layers.Dense)
"""
    assert _run(script) == "[]\n3.0 (1, 3) True"


def test_keras_that_is_loaded_already_stays() -> None:
    assert _run("print(tf.keras.layers.Dense is keras.layers.Dense)", before="import keras\n") == "True"
