"""Check that a plain TensorFlow Serving binary can serve a SavedModel."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

#: Run Python in the exporting process; a server has no Python.
_PYTHON_OPS = ("EagerPyFunc", "PyFunc", "PyFuncStateless")
#: Read or write files outside the bundle.
_FILE_OPS = ("MatchingFiles", "ReadFile", "WholeFileReader", "WholeFileReaderV2", "WriteFile")
#: Operations of the just-in-time compiler, which a server's binary may lack.
_COMPILED_PREFIX = "Xla"
#: Larger constants, in bytes, are weights that should have been variables.
MAX_CONSTANT_BYTES = 1 << 18


def find_faults(path: Path) -> list[str]:
    """Returns the reasons why a SavedModel cannot be served, one sentence each; empty if it can.

    Faults are operations that run Python, are not part of TensorFlow itself, access files or need XLA;
    weights that are constants of the graph; and inputs or outputs whose dimension 0 is not the study's, which
    server-side batching would mix up.

    Args:
        path: the folder of `saved_model.pb`.
    """
    model = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    faults: list[str] = []
    for graph in model.meta_graphs:
        faults += _operation_faults(graph.graph_def)
        faults += _constant_faults(graph.graph_def)
        for name, signature in sorted(graph.signature_def.items()):
            # Signatures such as `__saved_model_init_op` are not served.
            if not name.startswith("__"):
                faults += _signature_faults(name, signature)
    return faults


def _nodes(graph: Any) -> Iterator[Any]:
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def


def _operation_faults(graph: Any) -> list[str]:
    functions = {function.signature.name for function in graph.library.function}
    counts = Counter(node.op for node in _nodes(graph) if node.op not in functions)
    faults = []
    for name in sorted(counts):
        if name in _PYTHON_OPS:
            rule = "runs Python, which a server does not have"
        elif not hasattr(tf.raw_ops, name):
            # Generated when TensorFlow is built, so operations of loaded libraries are not in it.
            rule = "is not part of TensorFlow"
        elif name in _FILE_OPS:
            rule = "accesses files outside the bundle"
        elif name.startswith(_COMPILED_PREFIX):
            rule = "needs XLA, which a server may lack"
        else:
            continue
        faults.append(f"operation {name} ({counts[name]} times) {rule}")
    return faults


def _constant_faults(graph: Any) -> list[str]:
    return [
        f"constant {node.name} has {node.attr['value'].ByteSize()} bytes: weights must be variables"
        for node in _nodes(graph)
        if node.op == "Const" and node.attr["value"].ByteSize() > MAX_CONSTANT_BYTES
    ]


def _signature_faults(name: str, signature: Any) -> list[str]:
    tensors = {**signature.inputs, **signature.outputs}
    return [
        f"{tensor} of the signature {name} must have the study as dimension 0, of any size"
        for tensor, info in sorted(tensors.items())
        if info.tensor_shape.unknown_rank or not info.tensor_shape.dim or info.tensor_shape.dim[0].size != -1
    ]
