"""tf.train.Example without TensorFlow: building records needs no 400 MB of it in every worker.

The message is declared here, field for field as in tensorflow/core/example/{example,feature}.proto,
and the protobuf library writes and reads it; a test holds both against TensorFlow's own class.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

#: A feature's values: byte strings, or an array of floats or integers.
Values = Sequence[bytes] | NDArray[Any]

_FIELD = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "lumbar_tf.example"


def _declare() -> Any:
    """Returns the class of the Example message, in a pool of its own beside TensorFlow's."""
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package=_PACKAGE, syntax="proto3")

    def add(parent: Any, name: str, fields: Sequence[tuple[str, int, int, int, str]]) -> Any:
        message = parent.add(name=name)
        for field_name, number, label, kind, type_name in fields:
            message.field.add(
                name=field_name,
                number=number,
                label=label,
                type=kind,
                type_name=f".{_PACKAGE}.{type_name}" if type_name else None,
            )
        return message

    one, many, message = _FIELD.LABEL_OPTIONAL, _FIELD.LABEL_REPEATED, _FIELD.TYPE_MESSAGE
    add(file.message_type, "BytesList", [("value", 1, many, _FIELD.TYPE_BYTES, "")])
    add(file.message_type, "FloatList", [("value", 1, many, _FIELD.TYPE_FLOAT, "")])
    add(file.message_type, "Int64List", [("value", 1, many, _FIELD.TYPE_INT64, "")])
    kinds = [("bytes_list", 1, "BytesList"), ("float_list", 2, "FloatList"), ("int64_list", 3, "Int64List")]
    feature = add(
        file.message_type, "Feature", [(name, number, one, message, kind) for name, number, kind in kinds]
    )
    feature.oneof_decl.add(name="kind")
    for field in feature.field:
        field.oneof_index = 0
    features = add(file.message_type, "Features", [("feature", 1, many, message, "Features.FeatureEntry")])
    entry = add(
        features.nested_type,
        "FeatureEntry",
        [("key", 1, one, _FIELD.TYPE_STRING, ""), ("value", 2, one, message, "Feature")],
    )
    entry.options.map_entry = True
    add(file.message_type, "Example", [("features", 1, one, message, "Features")])
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Example"))


_Example = _declare()


def serialize_example(features: Mapping[str, Values]) -> bytes:
    """Serializes a tf.train.Example; the same features give the same bytes.

    Args:
        features: by name: byte strings, or an array whose values are written flat, as float32 where
            it holds floats and as int64 where it holds integers.
    """
    example = _Example()
    example.features.SetInParent()  # an Example without features holds an empty list of them
    target = example.features.feature
    for name, values in features.items():
        kind = _kind(values)
        field = getattr(target[name], kind)
        field.SetInParent()  # an empty list is still a feature of its kind, as TensorFlow writes it
        flat = values.ravel().tolist() if isinstance(values, np.ndarray) else values
        field.value.extend(flat)
    # Map fields have no order of their own; without this two runs could differ.
    serialized: bytes = example.SerializeToString(deterministic=True)
    return serialized


def _kind(values: Values) -> str:
    if not isinstance(values, np.ndarray):
        return "bytes_list"
    return "float_list" if values.dtype.kind == "f" else "int64_list"


def parse_features(serialized: bytes) -> dict[str, list[Any]]:
    """Parses a tf.train.Example: flat lists of bytes, floats or integers by feature name.

    Raises:
        ValueError: the bytes are no Example.
    """
    example = _Example()
    try:
        example.ParseFromString(serialized)
    except DecodeError as error:
        raise ValueError(f"A record must be a tf.train.Example. Received: {error}.") from None
    found = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        found[name] = list(getattr(feature, kind).value) if kind else []
    return found
