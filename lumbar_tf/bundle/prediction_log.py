"""TFRecord files of `tensorflow.serving.PredictionLog`: requests that TensorFlow Serving can replay.

A bundle contains two: `tf_serving_warmup_requests`, which a server replays before it reports that it is
ready, and `parity_requests.tfrecord`, which also contains the expected responses, to verify that a client, a
server or another build of TensorFlow returns the same outputs.

The messages are declared here, with the field numbers of
tensorflow_serving/apis/{prediction_log,predict,model}.proto (2.20), so that reading a bundle does not need
tensorflow-serving-api; a test compares them with its classes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from lumbar_tf.serving.tensors import read_tensor

#: Requests hold a few studies of some megabytes.
_MAX_BYTES = 1 << 30
_FIELD = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "lumbar_tf_logs"
#: Message -> field -> (number, type); "map" is map<string, TensorProto>, with the values kept as bytes.
_MESSAGES: Mapping[str, Mapping[str, tuple[int, str]]] = {
    "ModelSpec": {"name": (1, "string"), "signature_name": (3, "string")},
    "PredictRequest": {"model_spec": (1, "ModelSpec"), "inputs": (2, "map")},
    "PredictResponse": {"outputs": (1, "map"), "model_spec": (2, "ModelSpec")},
    "PredictLog": {"request": (1, "PredictRequest"), "response": (2, "PredictResponse")},
    "PredictionLog": {"predict_log": (6, "PredictLog")},
}


@dataclass(frozen=True, eq=False)
class LoggedRequest:
    """A request with its expected response.

    Attributes:
        signature: name of the requested signature.
        inputs: by the signature's names; strings are arrays of `object` with bytes.
        outputs: expected outputs by the signature's names; empty in a warm-up request.
        model: name of the served model; empty where it does not matter.
    """

    signature: str
    inputs: Mapping[str, NDArray[Any]]
    outputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    model: str = ""


def write_requests(path: Path, requests: Iterable[LoggedRequest]) -> None:
    """Writes a file of requests."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for request in requests:
            writer.write(_encode(request))


def read_requests(path: Path) -> list[LoggedRequest]:
    """Reads a file of requests.

    Raises:
        ValueError: the file is absent, empty, damaged or of another kind.
    """
    if not path.is_file():
        raise ValueError(f"The file of requests must exist. Received: {path}.")
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"The file of requests must have at most {_MAX_BYTES} bytes. Received: {path}.")
    try:
        records: Sequence[bytes] = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
        if not records:
            raise ValueError("The file is empty.")
        return [_decode(record) for record in records]
    except (tf.errors.DataLossError, DecodeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} must be a TFRecord of PredictionLog. {error}") from error


def _encode(request: LoggedRequest) -> bytes:
    log = _message("PredictionLog")()
    message = log.predict_log.request
    message.model_spec.name, message.model_spec.signature_name = request.model, request.signature
    for tensors, values in ((message.inputs, request.inputs), (_outputs(log, request), request.outputs)):
        # Sorted, so that equal requests have equal bytes.
        for name in sorted(values):
            tensors[name] = tf.make_tensor_proto(values[name]).SerializeToString(deterministic=True)
    encoded: bytes = log.SerializeToString(deterministic=True)
    return encoded


def _outputs(log: Any, request: LoggedRequest) -> Any:
    # Accessing the field would add an empty response to a warm-up request.
    return log.predict_log.response.outputs if request.outputs else {}


def _decode(record: bytes) -> LoggedRequest:
    log = _message("PredictionLog").FromString(record)
    if not log.HasField("predict_log"):
        raise ValueError("A log must be of a Predict call.")
    message = log.predict_log.request
    return LoggedRequest(
        signature=message.model_spec.signature_name,
        inputs=_arrays(message.inputs),
        outputs=_arrays(log.predict_log.response.outputs),
        model=message.model_spec.name,
    )


def _arrays(tensors: Mapping[str, bytes]) -> dict[str, NDArray[Any]]:
    proto = type(tf.make_tensor_proto(0))
    return {name: read_tensor(proto.FromString(value)) for name, value in tensors.items()}


@cache
def _message(name: str) -> Any:
    """Returns the class of a message."""
    # A separate pool, because the original declarations may be loaded as well.
    pool = descriptor_pool.DescriptorPool()
    file = descriptor_pb2.FileDescriptorProto(name=f"{_PACKAGE}.proto", package=_PACKAGE, syntax="proto3")
    for title, fields in _MESSAGES.items():
        message = file.message_type.add(name=title)
        for field_name, (number, kind) in fields.items():
            _add_field(message, field_name, number, kind)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


def _add_field(message: Any, name: str, number: int, kind: str) -> None:
    if kind == "string":
        message.field.add(name=name, number=number, type=_FIELD.TYPE_STRING, label=_FIELD.LABEL_OPTIONAL)
        return
    is_map = kind == "map"
    label = _FIELD.LABEL_REPEATED if is_map else _FIELD.LABEL_OPTIONAL
    entry = f"{name.title()}Entry"
    type_name = f".{_PACKAGE}.{message.name}.{entry}" if is_map else f".{_PACKAGE}.{kind}"
    message.field.add(name=name, number=number, type=_FIELD.TYPE_MESSAGE, label=label, type_name=type_name)
    if is_map:
        # Messages and bytes have the same encoding.
        nested = message.nested_type.add(name=entry)
        nested.options.map_entry = True
        nested.field.add(name="key", number=1, type=_FIELD.TYPE_STRING, label=_FIELD.LABEL_OPTIONAL)
        nested.field.add(name="value", number=2, type=_FIELD.TYPE_BYTES, label=_FIELD.LABEL_OPTIONAL)
