"""Requests as TF Serving logs and replays them: TFRecord files of `tensorflow.serving.PredictionLog`.

A bundle holds two: `tf_serving_warmup_requests`, which a server sends itself before it says that it is ready,
and `parity_requests.tfrecord`, whose logs hold the expected responses too, for whoever wants to know that a
client, a server or another build of TensorFlow answers as this package does.

The few messages are declared here, with the numbers of tensorflow_serving/apis/{prediction_log,predict,model}
.proto (2.20), so that reading a bundle needs no tensorflow-serving-api; a test compares with its classes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

_FIELD = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "lumbar_tf_logs"
#: Message -> field -> (number, type); "map" is map<string, TensorProto>, whose values stay bytes here.
_MESSAGES: Mapping[str, Mapping[str, tuple[int, str]]] = {
    "ModelSpec": {"name": (1, "string"), "signature_name": (3, "string")},
    "PredictRequest": {"model_spec": (1, "ModelSpec"), "inputs": (2, "map")},
    "PredictResponse": {"outputs": (1, "map"), "model_spec": (2, "ModelSpec")},
    "PredictLog": {"request": (1, "PredictRequest"), "response": (2, "PredictResponse")},
    "PredictionLog": {"predict_log": (6, "PredictLog")},
}


@dataclass(frozen=True, eq=False)
class LoggedRequest:
    """One request, and what is expected of it.

    Attributes:
        signature: the name of the signature that is asked.
        inputs: by the signature's names; strings are arrays of `object` that hold bytes.
        outputs: the expected answers by the signature's names; empty in a warm-up request.
        model: the served model's name; empty where it does not matter.
    """

    signature: str
    inputs: Mapping[str, NDArray[Any]]
    outputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    model: str = ""


def write_requests(path: Path, requests: Iterable[LoggedRequest]) -> None:
    """Writes a file of requests."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for each in requests:
            writer.write(_encode(each))


def read_requests(path: Path) -> list[LoggedRequest]:
    """Reads a file of requests.

    Raises:
        ValueError: it is absent, empty, damaged or holds something else.
    """
    if not path.is_file():
        raise ValueError(f"There must be a file of requests. Received: {path}, which is absent.")
    try:
        records: Sequence[bytes] = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
        if not records:
            raise ValueError("It is empty.")
        return [_decode(each) for each in records]
    except (tf.errors.DataLossError, DecodeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} must be a TFRecord of PredictionLog. {error}") from error


def _encode(request: LoggedRequest) -> bytes:
    log = _message("PredictionLog")()
    asked = log.predict_log.request
    asked.model_spec.name, asked.model_spec.signature_name = request.model, request.signature
    for tensors, values in ((asked.inputs, request.inputs), (_outputs(log, request), request.outputs)):
        # In order of their names: the same requests give the same bytes.
        for name in sorted(values):
            tensors[name] = tf.make_tensor_proto(values[name]).SerializeToString(deterministic=True)
    encoded: bytes = log.SerializeToString(deterministic=True)
    return encoded


def _outputs(log: Any, request: LoggedRequest) -> Any:
    # To touch it would put an empty response into a warm-up request.
    return log.predict_log.response.outputs if request.outputs else {}


def _decode(record: bytes) -> LoggedRequest:
    log = _message("PredictionLog").FromString(record)
    if not log.HasField("predict_log"):
        raise ValueError("A log must be of a Predict call.")
    asked = log.predict_log.request
    return LoggedRequest(
        signature=asked.model_spec.signature_name,
        inputs=_arrays(asked.inputs),
        outputs=_arrays(log.predict_log.response.outputs),
        model=asked.model_spec.name,
    )


def _arrays(tensors: Mapping[str, bytes]) -> dict[str, NDArray[Any]]:
    proto = type(tf.make_tensor_proto(0))
    return {name: np.asarray(tf.make_ndarray(proto.FromString(each))) for name, each in tensors.items()}


@cache
def _message(name: str) -> Any:
    """Returns a message's class."""
    # A pool of its own: the real declarations may be loaded beside it.
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
        # A message and bytes are the same on the wire.
        nested = message.nested_type.add(name=entry)
        nested.options.map_entry = True
        nested.field.add(name="key", number=1, type=_FIELD.TYPE_STRING, label=_FIELD.LABEL_OPTIONAL)
        nested.field.add(name="value", number=2, type=_FIELD.TYPE_BYTES, label=_FIELD.LABEL_OPTIONAL)
