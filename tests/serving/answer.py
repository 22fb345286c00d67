"""Asks an exported ensemble as a stranger would: this script imports TensorFlow and nothing of ours.

Usage: answer.py MODEL REQUEST ANSWER. REQUEST is a TFRecord file with three records a study (sagittal T1,
sagittal T2, axial T2; empty for a missing plane). ANSWER is a folder; it gets a serialized tensor an output.
"""

import sys

import tensorflow as tf

NAMES = ("sagittal_t1", "sagittal_t2", "axial_t2")


def main() -> None:
    """Loads, asks, writes."""
    model, request, answer = sys.argv[1:]
    records = list(tf.data.TFRecordDataset(request).as_numpy_iterator())
    loaded = tf.saved_model.load(model)
    serve = loaded.signatures["serving_default"]
    inputs = {name: tf.constant(records[place::3]) for place, name in enumerate(NAMES)}
    for name, value in serve(**inputs).items():
        tf.io.write_file(f"{answer}/{name}", tf.io.serialize_tensor(value))
    if "lumbar_tf" in sys.modules or "keras_cv" in sys.modules:
        raise SystemExit("this script must not import the project")


if __name__ == "__main__":
    main()
