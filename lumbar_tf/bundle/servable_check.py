"""Check of a SavedModel's graph, before it is exported and before it is loaded.

Loading a SavedModel can run what is in it, so the check reads the protocol buffers only: it creates no graph
and calls no function. It finds operations that are not on a list of allowed ones, in the graph and in every
function of its library, and the other places of a SavedModel through which something could run or be read on
loading. Everything that passes can also be served by a plain TensorFlow Serving binary.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import tensorflow as tf

from lumbar_tf.bundle.allowed_operations import (
    ALLOWED_OPERATIONS,
    RESTORING_OPERATIONS,
    SAVING_OPERATIONS,
)
from lumbar_tf.bundle.graph_definition import called_functions, node_name, read_model
from lumbar_tf.models.bundle_folder import MODEL_NAME

#: Other forms of the graph, which some loaders prefer.
_OTHER_FORMS = ("saved_model.cpb", "saved_model.pbtxt")
#: Run Python in the exporting process; a server has no Python.
_PYTHON_OPS = ("EagerPyFunc", "PyFunc", "PyFuncStateless")
#: Read or write files, or text streams that can be files.
_FILE_OPS = (
    "MatchingFiles",
    "Print",
    "PrintV2",
    "ReadFile",
    "WholeFileReader",
    "WholeFileReaderV2",
    "WriteFile",
)
#: Operations of the just-in-time compiler, which a server's binary may lack.
_COMPILED_PREFIX = "Xla"
#: Larger constants, in bytes, are weights that should have been variables.
MAX_CONSTANT_BYTES = 1 << 18
#: A constant of equal elements is stored once, and takes memory for each when it is read.
_MAX_CONSTANT_ELEMENTS = 1 << 24
_CONSTANT_TYPES = frozenset(
    tensor_type.as_datatype_enum
    for tensor_type in (
        *(tf.bool, tf.string, tf.float16, tf.bfloat16, tf.float32, tf.float64),
        *(tf.int8, tf.int16, tf.int32, tf.int64, tf.uint8, tf.uint16, tf.uint32, tf.uint64),
    )
)
#: Objects that loading creates without running a function of the graph.
_OBJECT_KINDS = ("bare_concrete_function", "constant", "function", "user_object", "variable")
_USER_OBJECTS = (
    "_generic_user_object",
    "signature_map",
    "trackable_dict_wrapper",
    "trackable_list_wrapper",
    "trackable_tuple_wrapper",
)
_INIT_SIGNATURE = "__saved_model_init_op"
_INIT_COLLECTION = "saved_model_main_op"


def find_faults(path: Path) -> list[str]:
    """Returns the reasons why a SavedModel must not be loaded or served, one sentence each; empty if it may.

    Faults are operations that are not on the list of `allowed_operations`; files that are written or read
    outside the functions that save and restore the variables, or these functions called by others; objects
    with an initializer of their own, assets, and other forms of the graph; weights that are constants; and
    inputs or outputs whose dimension 0 is not the study's, which server-side batching would mix up.

    Args:
        path: the folder of `saved_model.pb`.
    """
    faults = [f"{name} is another form of the graph" for name in _OTHER_FORMS if (path / name).exists()]
    try:
        model = read_model(path)
    except ValueError as error:
        return [*faults, str(error)]
    if len(model.meta_graphs) != 1 or not model.meta_graphs[0].HasField("object_graph_def"):
        return [
            *faults,
            f"{MODEL_NAME} must hold one graph with its objects, not {len(model.meta_graphs)} graphs",
        ]
    (graph,) = model.meta_graphs
    # Collected once: most of the check's time.
    functions = graph.graph_def.library.function
    calls = {function.signature.name: called_functions(function.node_def) for function in functions}
    faults += _operation_faults(graph.graph_def)
    faults += _function_faults(graph.graph_def, calls)
    faults += _file_access_faults(graph, calls)
    faults += _restoring_faults(graph.graph_def, calls)
    faults += _constant_faults(graph.graph_def)
    faults += _object_faults(graph.object_graph_def)
    faults += _start_faults(graph)
    for name, signature in sorted(graph.signature_def.items()):
        # This signature is not served; `_start_faults` covers it.
        if name != _INIT_SIGNATURE:
            faults += _signature_faults(name, signature)
    return faults


def _nodes(graph: Any) -> Iterator[Any]:
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def


def _operation_faults(graph: Any) -> list[str]:
    functions = {function.signature.name for function in graph.library.function}
    known = ALLOWED_OPERATIONS | SAVING_OPERATIONS | RESTORING_OPERATIONS
    counts = Counter(node.op for node in _nodes(graph) if node.op not in functions and node.op not in known)
    return [f"operation {name} ({counts[name]} times) {_rule_against(name)}" for name in sorted(counts)]


def _rule_against(name: str) -> str:
    if name in _PYTHON_OPS:
        return "runs Python, which a server does not have"
    if not hasattr(tf.raw_ops, name):
        # Generated when TensorFlow is built, so operations of loaded libraries are not in it.
        return "is not part of TensorFlow"
    if name in _FILE_OPS:
        return "accesses files outside the bundle"
    if name.startswith(_COMPILED_PREFIX):
        return "needs XLA, which a server may lack"
    return "is not on the list of allowed operations"


def _function_faults(graph: Any, calls: Mapping[str, set[str]]) -> list[str]:
    """Returns functions that are named like an operation, and calls of functions that are not there."""
    functions = {function.signature.name for function in graph.library.function}
    faults = [
        f"function {name} has the name of an operation"
        for name in sorted(functions)
        if hasattr(tf.raw_ops, name)
    ]
    absent = sorted(called_functions(graph.node).union(*calls.values()) - functions)
    return faults + [f"function {name} is called and is not in the graph" for name in absent]


def _file_operations(graph: Any, calls: Mapping[str, set[str]]) -> dict[str, frozenset[str]]:
    """Returns the operations on files of each function and of the functions that it calls."""
    watched = SAVING_OPERATIONS | RESTORING_OPERATIONS
    names = {function.signature.name for function in graph.library.function}
    found: dict[str, frozenset[str]] = {}
    reachable: dict[str, set[str]] = {}
    for function in graph.library.function:
        name, operations = function.signature.name, {node.op for node in function.node_def}
        found[name] = frozenset(operations & watched)
        reachable[name] = (calls[name] | operations) & names
    changed = True
    while changed:
        changed = False
        for name, called in reachable.items():
            reached = found[name].union(*(found[other] for other in called))
            changed |= reached != found[name]
            found[name] = reached
    return found


def _file_access_faults(graph: Any, calls: Mapping[str, set[str]]) -> list[str]:
    """Returns accesses to files other than those of the saver, whose file name the caller provides."""
    reached = _file_operations(graph.graph_def, calls)
    saver = graph.saver_def
    file_name = node_name(saver.filename_tensor_name)
    allowed: Mapping[str, frozenset[str]] = {
        node_name(saver.save_tensor_name): SAVING_OPERATIONS,
        node_name(saver.restore_op_name): RESTORING_OPERATIONS,
    }
    placeholders = {node.name for node in graph.graph_def.node if node.op == "Placeholder"}
    faults = []
    for node in graph.graph_def.node:
        called = called_functions([node]) | {node.op}
        own = {node.op} & (SAVING_OPERATIONS | RESTORING_OPERATIONS)
        operations = own.union(*(reached.get(name, frozenset()) for name in called))
        is_saver = (
            node.name in allowed
            and operations <= allowed[node.name]
            and node.input[:1] == [file_name]
            and file_name in placeholders
        )
        if operations and not is_saver:
            faults.append(
                f"node {node.name} accesses files outside the bundle ({', '.join(sorted(operations))})"
            )
        if any(node_name(name) in allowed for name in node.input):
            faults.append(f"node {node.name} uses the result of saving or restoring")
    exposed = {node_name(tensor) for tensor in _signature_tensors(graph)} & {*allowed, file_name}
    faults += [f"node {name} of the saver is an input or output of a signature" for name in sorted(exposed)]
    public = _public_functions(graph.object_graph_def)
    faults += [
        f"function {name} accesses files outside the bundle ({', '.join(sorted(reached[name]))})"
        for name in sorted(public)
        if reached.get(name)
    ]
    return faults


def _restoring_faults(graph: Any, calls: Mapping[str, set[str]]) -> list[str]:
    """Returns functions that could restore the variables from a file that the caller does not provide.

    Such a function is called by the saver's node alone, whose first input is the name of the file.
    """
    faults = []
    called = set().union(
        *calls.values(), *({node.op for node in each.node_def} for each in graph.library.function)
    )
    for function in graph.library.function:
        nodes = [node for node in function.node_def if node.op in RESTORING_OPERATIONS]
        name, file_name = function.signature.name, [arg.name for arg in function.signature.input_arg[:1]]
        if nodes and (name in called or any(node.input[:1] != file_name for node in nodes)):
            faults.append(f"function {name} may restore variables from files outside the bundle")
    return faults


def _signature_tensors(graph: Any) -> Iterator[str]:
    for signature in graph.signature_def.values():
        for tensors in (signature.inputs, signature.outputs):
            yield from (info.name for info in tensors.values())


def _public_functions(objects: Any) -> set[str]:
    """Returns the functions that the loaded object offers."""
    names = set(objects.concrete_functions)
    for node in objects.nodes:
        names.update(node.function.concrete_functions)
        names.add(node.bare_concrete_function.concrete_function_name)
    return names


def _constant_faults(graph: Any) -> list[str]:
    faults = []
    for node in _nodes(graph):
        if node.op != "Const":
            continue
        value = node.attr["value"]
        if value.ByteSize() > MAX_CONSTANT_BYTES:
            faults.append(f"constant {node.name} has {value.ByteSize()} bytes: weights must be variables")
        elements = prod(dimension.size for dimension in value.tensor.tensor_shape.dim)
        if not 0 <= elements <= _MAX_CONSTANT_ELEMENTS:
            faults.append(f"constant {node.name} has {elements} elements: weights must be variables")
        if value.tensor.dtype not in _CONSTANT_TYPES:
            faults.append(f"constant {node.name} must hold numbers, booleans or strings")
    return faults


def _object_faults(objects: Any) -> list[str]:
    """Returns objects that loading would create by calling something."""
    faults = []
    for place, node in enumerate(objects.nodes):
        kind = node.WhichOneof("kind")
        identifier = node.user_object.identifier
        if kind not in _OBJECT_KINDS:
            faults.append(f"object {place} is of the kind {kind}, which loading initializes")
        elif kind == "user_object" and identifier not in _USER_OBJECTS:
            faults.append(f"object {place} has the class {identifier[:80]!r}, which loading would create")
        if node.registered_name or node.registered_saver or node.saveable_objects:
            faults.append(f"object {place} has functions of its own for saving or restoring")
    return faults


def _start_faults(graph: Any) -> list[str]:
    """Returns operations and files for the start of a server: a bundle needs none."""
    faults = [f"asset {asset.filename[:80]!r}: a bundle has no assets" for asset in graph.asset_file_def]
    idle = {node.name for node in graph.graph_def.node if node.op == "NoOp"}
    started: set[str] = set()
    for name, collection in graph.collection_def.items():
        if name != _INIT_COLLECTION:
            faults.append(f"collection {name[:80]!r}: a bundle has none but {_INIT_COLLECTION}")
        started.update(node_name(node) for node in collection.node_list.value)
    if _INIT_SIGNATURE in graph.signature_def:
        signature = graph.signature_def[_INIT_SIGNATURE]
        started.update(node_name(info.name) for info in signature.outputs.values())
    return faults + [f"node {name[:80]!r} would run at the start" for name in sorted(started - idle)]


def _signature_faults(name: str, signature: Any) -> list[str]:
    tensors = {**signature.inputs, **signature.outputs}
    return [
        f"{tensor} of the signature {name} must have the study as dimension 0, of any size"
        for tensor, info in sorted(tensors.items())
        if info.tensor_shape.unknown_rank or not info.tensor_shape.dim or info.tensor_shape.dim[0].size != -1
    ]
