"""Reading and writing of tf.train.Example without TensorFlow, which takes 400 MB in every worker.

The message is declared as in tensorflow/core/example/{example,feature}.proto, and the protobuf library reads
and writes it. A test compares both with TensorFlow's class.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

#: A part of a message's bytes. Pixels are written from their arrays without a copy.
Piece = bytes | NDArray[np.uint8]
#: A feature's values: byte strings, or an array of floats or integers.
Values = Sequence[Piece] | NDArray[Any]

#: Wire type of strings, bytes and messages (protobuf.dev/programming-guides/encoding).
_LENGTH_DELIMITED = 2
_SMALL_BYTES = 4096

_FIELD = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "lumbar_tf.example"


def _declare() -> Any:
    """Returns the class of the Example message, in a descriptor pool separate from TensorFlow's."""
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
    """Serializes a tf.train.Example, see `example_pieces`."""
    return join_pieces(example_pieces(features))


def view_piece(piece: Piece) -> memoryview:
    """Returns a view of a piece's bytes."""
    buffer: Any = piece  # arrays are buffers, which type checkers know from Python 3.12 on
    return memoryview(buffer)


def join_pieces(pieces: Iterable[Piece]) -> bytes:
    """Returns the concatenated pieces."""
    return b"".join(map(view_piece, pieces))


def example_pieces(features: Mapping[str, Values]) -> list[Piece]:
    """Serializes a tf.train.Example; the same features give the same bytes.

    The protobuf library would copy every byte three times. It writes everything except lists of byte strings,
    which are framed here as in the wire format and not copied.

    Args:
        features: by name: byte strings, or an array, which is flattened and written as float32 if its dtype
            is floating and as int64 otherwise.

    Returns:
        The serialized message, in pieces.
    """
    # The order of the protobuf library's deterministic serialization.
    entries = [_entry(name, features[name]) for name in sorted(features)]
    return _join_small(_message(1, [piece for entry in entries for piece in entry]))


def _entry(name: str, values: Values) -> list[Piece]:
    """Returns one entry of the map of features, field 1 of Features."""
    if isinstance(values, np.ndarray):
        entry = _Example().features
        field = getattr(entry.feature[name], "float_list" if values.dtype.kind == "f" else "int64_list")
        field.SetInParent()  # an empty list is still a feature of its kind, as TensorFlow writes it
        field.value.extend(values.ravel().tolist())
        return [entry.SerializeToString()]
    bytes_list = [piece for value in values for piece in _message(1, [value])]
    feature = _message(2, _message(1, bytes_list))
    return _message(1, [*_message(1, [name.encode()]), *feature])


def _message(number: int, pieces: list[Piece]) -> list[Piece]:
    """Returns a length-delimited field: tag, length and content."""
    return [_varint(number << 3 | _LENGTH_DELIMITED) + _varint(sum(map(len, pieces))), *pieces]


def _varint(value: int) -> bytes:
    """Returns a number as a varint: seven bits per byte, lowest first, top bit set in all but the last.

    >>> _varint(300).hex()
    'ac02'
    """
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*groups, value))


def _join_small(pieces: Iterable[Piece]) -> list[Piece]:
    """Joins consecutive small pieces, to save write calls."""
    joined: list[Piece] = []
    small: list[Piece] = []
    for piece in pieces:
        if len(piece) < _SMALL_BYTES:
            small.append(piece)
            continue
        joined += [join_pieces(small), piece]
        small.clear()
    return [*joined, join_pieces(small)]


def parse_feature(view: memoryview, name: str) -> list[Any]:
    """Parses one feature of a tf.train.Example, without reading the bytes of the others.

    Entries of the map are skipped by their lengths until the one with the name. Messages of another form than
    `example_pieces` writes are parsed whole.

    Args:
        view: bytes of the message.
        name: name of the feature.

    Returns:
        Flat bytes, floats or integers; empty if the feature is absent.

    Raises:
        ValueError: the bytes are not an Example.
    """
    try:
        entry = _find_entry(view, name)
    except (IndexError, ValueError):
        entry = None
    serialized = bytes(view) if entry is None else join_pieces(_message(1, [entry]))
    return parse_example_features(serialized).get(name, [])


def _find_entry(view: memoryview, name: str) -> bytes | None:
    """Returns the tag, length and content of a feature's entry, None if there is none.

    Raises:
        IndexError, ValueError: the message has another form.
    """
    key = join_pieces(_message(1, [name.encode()]))
    place, end = _open_field(view, 0)
    while place < end:
        start, after = _open_field(view, place)
        if view[start : start + len(key)] == key:
            return bytes(view[place:after])
        place = after
    return None


def _open_field(view: memoryview, place: int) -> tuple[int, int]:
    """Returns the start and the end of the content of field 1, whose tag is at `place`.

    Raises:
        IndexError, ValueError: there is another field, or its length exceeds the message.
    """
    if view[place] != 1 << 3 | _LENGTH_DELIMITED:
        raise ValueError("field 1 is absent")
    length, shift, is_last = 0, 0, False
    while not is_last:
        place += 1
        length |= (view[place] & 0x7F) << shift
        shift, is_last = shift + 7, view[place] <= 0x7F
    if length > len(view) - place - 1:
        raise ValueError("a field exceeds the message")
    return place + 1, place + 1 + length


def parse_example_features(serialized: bytes) -> dict[str, list[Any]]:
    """Parses a tf.train.Example: flat lists of bytes, floats or integers by feature name.

    Raises:
        ValueError: the bytes are not an Example.
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
