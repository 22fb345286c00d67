"""Definition of a SavedModel's graph, as protocol buffers: reading, selection and simplification.

Nothing here creates a graph or calls a function.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tensorflow.core.framework import graph_pb2
from tensorflow.core.protobuf import saved_model_pb2

from lumbar_tf.files import open_regular_file
from lumbar_tf.models.bundle_folder import MODEL_NAME

#: A graph contains no weights; that of the demo's ensemble has 6 MB.
MAX_MODEL_BYTES = 512 << 20


def read_model(path: Path) -> Any:
    """Returns the SavedModel protocol buffer of a folder, without any check of what is in it.

    Raises:
        ValueError: `saved_model.pb` is too large or no SavedModel.
    """
    try:
        with open_regular_file(path / MODEL_NAME) as file:
            content = file.read(MAX_MODEL_BYTES + 1)
        if len(content) > MAX_MODEL_BYTES:
            raise ValueError(f"it has more than {MAX_MODEL_BYTES} bytes")
        return saved_model_pb2.SavedModel.FromString(content)
    except (DecodeError, ValueError) as error:
        raise ValueError(f"{MODEL_NAME} must hold a SavedModel ({error})") from error


def node_name(tensor: str) -> str:
    """Returns the node of a tensor's name, such as `node:0`, or of a control input, `^node`."""
    return tensor.removeprefix("^").partition(":")[0]


def called_functions(nodes: Iterable[Any]) -> set[str]:
    """Returns the functions that nodes name as their operation's arguments."""
    called: set[str] = set()
    for node in nodes:
        for value in node.attr.values():
            if value.HasField("func"):
                called.add(value.func.name)
            elif value.HasField("list"):
                called.update(function.name for function in value.list.func)
    return called


def select_part(graph: Any, tensors: Iterable[str]) -> Any:
    """Returns a GraphDef of what the given tensors or operations of a GraphDef depend on."""
    nodes = {node.name: node for node in graph.node}
    functions = {function.signature.name: function for function in graph.library.function}
    part = graph_pb2.GraphDef(versions=graph.versions)
    part.node.extend(
        _reachable(nodes, map(node_name, tensors), lambda node: {node_name(name) for name in node.input})
    )
    part.library.function.extend(
        _reachable(functions, _functions_of(part.node), lambda function: _functions_of(function.node_def))
    )
    return part


def _functions_of(nodes: Any) -> set[str]:
    """Returns the functions that nodes call; names of operations may be among them."""
    return called_functions(nodes) | {node.op for node in nodes}


def _reachable(
    elements: Mapping[str, Any], start: Iterable[str], find_next: Callable[[Any], Iterable[str]]
) -> list[Any]:
    """Returns the elements that are reached from some of them; other names are ignored."""
    reached: dict[str, Any] = {}
    waiting = list(start)
    while waiting:
        name = waiting.pop()
        if name in elements and name not in reached:
            reached[name] = elements[name]
            waiting.extend(find_next(elements[name]))
    return list(reached.values())


def rename_functions(part: Any, prefix: str) -> None:
    """Adds a prefix to the functions of a GraphDef: TensorFlow has one function of a name in a process."""
    names = {function.signature.name for function in part.library.function}
    for function in part.library.function:
        function.signature.name = prefix + function.signature.name
    for node in itertools.chain(part.node, *(function.node_def for function in part.library.function)):
        if node.op in names:
            node.op = prefix + node.op
        for value in node.attr.values():
            for called in [value.func] if value.HasField("func") else value.list.func:
                called.name = prefix + called.name


def merge_constants(function: Any) -> None:
    """Replaces equal constants of a FunctionDef by the first of them, which changes no result.

    Half of the operations of a traced function are constants, most of them the bounds of a slice, and the
    time of TensorFlow for the first call grows with their number.
    """
    # The names of constants may also be in placement constraints.
    if any("_class" in node.attr for node in function.node_def):
        return
    first: dict[tuple[str, bytes], str] = {}
    replaced: dict[str, str] = {}
    for node in function.node_def:
        if node.op == "Const" and not node.input:
            kept = first.setdefault((node.device, node.attr["value"].SerializeToString()), node.name)
            if kept != node.name:
                replaced[node.name] = kept
    nodes = [node for node in function.node_def if node.name not in replaced]
    for node in nodes:
        for place, name in enumerate(node.input):
            node.input[place] = _rename(name, replaced)
    merged = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del function.node_def[:]
    function.node_def.extend(merged)
    for results in (function.ret, function.control_ret):
        for key, name in list(results.items()):
            results[key] = _rename(name, replaced)


def _rename(tensor: str, replaced: Mapping[str, str]) -> str:
    """Returns the name of an input such as `node:output:0` or `^node` with another node."""
    name = node_name(tensor)
    return tensor.replace(name, replaced[name], 1) if name in replaced else tensor
