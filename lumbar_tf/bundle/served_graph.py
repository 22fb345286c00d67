"""Graph of a SavedModel, run in a session as by TensorFlow Serving.

`tf.saved_model.load` makes a Python object of every operation, used or not, which takes longer than anything
else for a graph of tens of thousands. A session reads the graph in C++. It gets the part that a signature
needs, when the signature is first called, with each constant of a function once.
"""

import itertools
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.framework import graph_pb2

from lumbar_tf.bundle.servable_check import called_functions, node_name, read_model

#: Prefix of the files with the variables, relative to the SavedModel.
_VARIABLES = "variables/variables"
#: Tell the functions of all graphs of a process apart.
_NUMBERS = itertools.count()


class ServedGraph:
    """The signatures of a SavedModel, with its variables; safe to call from several threads.

    Attributes:
        signatures: their names.
    """

    def __init__(self, path: Path) -> None:
        """Restores the variables of a SavedModel that has passed `servable_check`.

        Args:
            path: the folder of `saved_model.pb`.

        Raises:
            ValueError: there is no SavedModel.
        """
        (self._definition,) = read_model(path).meta_graphs
        self.signatures = frozenset(self._definition.signature_def)
        self._variables = {
            node.name: tf.Variable(tf.zeros(_shape_of(node), node.attr["dtype"].type), trainable=False)
            for node in self._definition.graph_def.node
            if node.op == "VarHandleOp"
        }
        self._functions: dict[str, Any] = {}
        self._lock = threading.Lock()
        saver = self._definition.saver_def
        restore = self._import([saver.filename_tensor_name], [], [saver.restore_op_name])
        restore(tf.constant(str(path / _VARIABLES)))

    def run(self, signature: str, inputs: Mapping[str, Sequence[bytes]]) -> dict[str, NDArray[Any]]:
        """Returns the outputs of a signature by name.

        Args:
            signature: one of `signatures`.
            inputs: strings by the signature's names.

        Raises:
            ValueError: the signature or an input does not exist.
        """
        if signature not in self.signatures:
            raise ValueError(
                f"`signature` must be of {', '.join(sorted(self.signatures))}. Received: {signature}."
            )
        tensors = self._definition.signature_def[signature]
        if set(inputs) != set(tensors.inputs):
            raise ValueError(
                f"Inputs must be {', '.join(sorted(tensors.inputs))}. Received: {', '.join(sorted(inputs))}."
            )
        with self._lock:
            if signature not in self._functions:
                sources = [tensors.inputs[name].name for name in sorted(tensors.inputs)]
                results = [tensors.outputs[name].name for name in sorted(tensors.outputs)]
                self._functions[signature] = self._import(sources, results, [])
        arguments = [tf.constant(inputs[name], tf.string) for name in sorted(inputs)]
        outputs = self._functions[signature](*arguments)
        return {name: value.numpy() for name, value in zip(sorted(tensors.outputs), outputs, strict=True)}

    def _import(self, sources: Sequence[str], results: Sequence[str], operations: Sequence[str]) -> Any:
        """Returns a function of string tensors of the graph that returns others, after running operations."""
        part = _select_part(self._definition.graph_def, [*results, *operations])
        for function in part.library.function:
            _merge_constants(function)
        _rename_functions(part, f"served_{next(_NUMBERS)}_")
        present = {node.name for node in part.node}

        def compute(*values: tf.Tensor) -> list[tf.Tensor]:
            # Converted, so that the function captures the handles of the variables.
            known = {
                f"{name}:0": tf.convert_to_tensor(variable.handle)
                for name, variable in self._variables.items()
                if name in present
            }
            known.update(zip(sources, values, strict=True))
            elements = [*results, *operations]
            imported = tf.graph_util.import_graph_def(part, known, return_elements=elements, name="")
            with tf.control_dependencies(imported[len(results) :]):
                return [tf.identity(tensor) for tensor in imported[: len(results)]]

        shape = [] if operations else [None]
        specs = [tf.TensorSpec(shape, tf.string) for _ in sources]
        return tf.compat.v1.wrap_function(compute, specs)


def _shape_of(node: Any) -> list[int]:
    """Returns the shape of a variable's node."""
    return [dimension.size for dimension in node.attr["shape"].shape.dim]


def _select_part(graph: Any, tensors: Iterable[str]) -> Any:
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


def _reachable(elements: Mapping[str, Any], start: Iterable[str], find_next: Any) -> list[Any]:
    """Returns the elements that are reached from some of them; other names are ignored."""
    reached: dict[str, Any] = {}
    waiting = list(start)
    while waiting:
        name = waiting.pop()
        if name in elements and name not in reached:
            reached[name] = elements[name]
            waiting.extend(find_next(elements[name]))
    return list(reached.values())


def _rename_functions(part: Any, prefix: str) -> None:
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


def _merge_constants(function: Any) -> None:
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
        for key, name in results.items():
            results[key] = _rename(name, replaced)


def _rename(tensor: str, replaced: Mapping[str, str]) -> str:
    """Returns the name of an input such as `node:output:0` or `^node` with another node."""
    name = node_name(tensor)
    return tensor.replace(name, replaced[name], 1) if name in replaced else tensor
