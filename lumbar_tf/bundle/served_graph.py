"""Graph of a SavedModel, called through its signatures.

`tf.saved_model.load` makes a Python object of every operation, used or not, which takes longer than anything
else for a graph of tens of thousands. Here TensorFlow imports the graph in C++: the part that a signature
needs, when the signature is first called, with each constant of a function once. Variables are restored by
the function that TensorFlow Serving calls for this purpose.
"""

import itertools
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from numpy.typing import NDArray

from lumbar_tf.bundle.graph_definition import merge_constants, read_model, rename_functions, select_part

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
        part = select_part(self._definition.graph_def, [*results, *operations])
        for function in part.library.function:
            merge_constants(function)
        rename_functions(part, f"served_{next(_NUMBERS)}_")
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
