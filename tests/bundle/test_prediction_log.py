"""Files of requests, against the classes that TF Serving's own clients are made of."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from lumbar_tf.bundle.prediction_log import LoggedRequest, read_requests, write_requests

INPUTS = {
    "axial_t2": np.array([b"\x00\xff", b""], object),
    "sagittal_t1": np.array([b"", b"one"], object),
}
OUTPUTS = {
    "probability": np.array([[0.25, 0.5, 0.25], [np.nan, 1.0, 0.0]], np.float32),
    "flags": np.array([[True], [False]]),
}


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "requests"
    write_requests(
        path, [LoggedRequest("serve", INPUTS, OUTPUTS, model="plain"), LoggedRequest("other", INPUTS)]
    )
    first, second = read_requests(path)
    assert (first.signature, first.model, second.signature, second.model) == ("serve", "plain", "other", "")
    assert second.outputs == {}
    for name, value in INPUTS.items():
        assert first.inputs[name].tolist() == second.inputs[name].tolist() == value.tolist()
    for name, value in OUTPUTS.items():
        assert first.outputs[name].dtype == value.dtype
        np.testing.assert_array_equal(first.outputs[name], value)


def test_tensorflow_servings_own_classes_read_it_and_are_read(tmp_path: Path) -> None:
    logs = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    path = tmp_path / "requests"
    write_requests(
        path, [LoggedRequest("serve", INPUTS, OUTPUTS, model="plain"), LoggedRequest("serve", INPUTS)]
    )
    records = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    first, second = (logs.PredictionLog.FromString(record) for record in records)
    asked = first.predict_log.request
    assert (asked.model_spec.name, asked.model_spec.signature_name) == ("plain", "serve")
    assert {name: tf.make_ndarray(tensor).tolist() for name, tensor in asked.inputs.items()} == {
        name: values.tolist() for name, values in INPUTS.items()
    }
    answered = first.predict_log.response.outputs
    for name, value in OUTPUTS.items():
        np.testing.assert_array_equal(tf.make_ndarray(answered[name]), value)
    assert not second.predict_log.HasField("response")
    # And the other way round: what their classes write.
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(first.SerializeToString())
    (back,) = read_requests(path)
    np.testing.assert_array_equal(back.outputs["probability"], OUTPUTS["probability"])
    assert back.inputs["axial_t2"].tolist() == INPUTS["axial_t2"].tolist()


@pytest.mark.parametrize("content", [None, b"", b"nothing of the kind", "other log"])
def test_what_is_no_file_of_requests_is_named(tmp_path: Path, content: bytes | str | None) -> None:
    path = tmp_path / "requests"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        with tf.io.TFRecordWriter(str(path)) as writer:
            writer.write(b"")
    with pytest.raises(ValueError, match=str(path)):
        read_requests(path)
