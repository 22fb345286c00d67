"""A bundle from elsewhere runs nothing: what it must not have is refused before any of it is loaded."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from lumbar_tf.bundle.exporting import seal_description
from lumbar_tf.bundle.self_test import load_bundle
from lumbar_tf.files import file_sha256

MANIFEST = "assets.extra/ensemble.json"


def _twice(study: tf.Tensor) -> dict[str, tf.Tensor]:
    return {"twice": tf.strings.join([study, study])}


def _seal(folder: Path) -> Path:
    """Writes a manifest of all files, as someone can who makes or changes a bundle."""
    (folder / "assets.extra").mkdir(exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    files = {
        path.relative_to(folder).as_posix(): file_sha256(path)
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    manifest = seal_description({"members": []}, files)
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def _save(
    folder: Path, answer: Callable[[tf.Tensor], dict[str, tf.Tensor]] = _twice, **attributes: Any
) -> Path:
    module = tf.Module()
    module.scale = tf.Variable(1.0)
    for name, value in attributes.items():
        setattr(module, name, value)
    specs = [tf.TensorSpec([None], tf.string, name="study")]
    signature = tf.function(answer, input_signature=specs, autograph=False)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": signature})
    return _seal(folder)


def _edit(folder: Path, change: Callable[[Any], None]) -> Path:
    model = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    change(model.meta_graphs[0])
    (folder / "saved_model.pb").write_bytes(model.SerializeToString())
    return _seal(folder)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Path, str], None]:
    """Asserts that a bundle is refused with some words, unloaded, and that nothing wrote `victim`."""

    def load(*_: object, **__: object) -> None:
        pytest.fail("The bundle was loaded.")

    def check(folder: Path, words: str) -> None:
        (tmp_path / "victim").unlink(missing_ok=True)
        monkeypatch.setattr(tf.compat.v1, "wrap_function", load)
        with pytest.raises(ValueError, match=words):
            load_bundle(folder)
        monkeypatch.undo()
        assert not list(tmp_path.glob("victim*"))

    return check


def test_a_note_on_the_training_data_that_is_no_line_of_text_is_refused(
    tmp_path: Path, refused: Callable[[Path, str], None]
) -> None:
    folder = _save(tmp_path / "1")
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    training = {"data": "Validated.\n\x1b[2J" * 1000, "is_synthetic": False}
    sealed = seal_description({"members": [], "training": training}, manifest["files"])
    (folder / MANIFEST).write_text(json.dumps(sealed), encoding="utf-8")
    refused(folder, "its training must have data, at most 150 printable characters")


def test_a_bundle_without_a_fault_is_loaded(tmp_path: Path) -> None:
    """The others are refused for what they have: this one gets as far as its requests."""
    with pytest.raises(ValueError, match="file of requests must exist"):
        load_bundle(_save(tmp_path / "1"))


def test_writing_a_file_is_refused(tmp_path: Path, refused: Callable[[Path, str], None]) -> None:
    def answer(study: tf.Tensor) -> dict[str, tf.Tensor]:
        tf.io.write_file(str(tmp_path / "victim"), "run")
        return _twice(study)

    refused(_save(tmp_path / "1", answer), r"operation WriteFile .* accesses files")


def test_printing_to_a_file_is_refused(tmp_path: Path, refused: Callable[[Path, str], None]) -> None:
    def answer(study: tf.Tensor) -> dict[str, tf.Tensor]:
        tf.print(study, output_stream=f"file://{tmp_path / 'victim'}")
        return _twice(study)

    refused(_save(tmp_path / "1", answer), r"operation PrintV2 .* accesses files")


def test_writing_in_the_body_of_a_loop_is_refused(
    tmp_path: Path, refused: Callable[[Path, str], None]
) -> None:
    def write(value: tf.Tensor) -> tf.Tensor:
        tf.io.write_file(str(tmp_path / "victim"), value)
        return value

    refused(
        _save(tmp_path / "1", lambda study: {"same": tf.map_fn(write, study)}),
        r"operation WriteFile .* accesses files",
    )


def test_saving_variables_to_another_place_is_refused(
    tmp_path: Path, refused: Callable[[Path, str], None]
) -> None:
    """The operation itself is in every SavedModel."""

    def answer(study: tf.Tensor) -> dict[str, tf.Tensor]:
        tf.raw_ops.SaveV2(
            prefix=str(tmp_path / "victim"), tensor_names=["a"], shape_and_slices=[""], tensors=[study]
        )
        return _twice(study)

    refused(_save(tmp_path / "1", answer), r"accesses files outside the bundle \(SaveV2\)")


def test_a_server_that_would_write_when_it_restores_is_refused(
    tmp_path: Path, refused: Callable[[Path, str], None]
) -> None:
    def swap(graph: Any) -> None:
        # TensorFlow Serving calls this node on loading.
        graph.saver_def.restore_op_name = graph.saver_def.save_tensor_name.partition(":")[0]

    refused(_edit(_save(tmp_path / "1"), swap), "SaveV2")


def test_restoring_from_another_place_is_refused(
    tmp_path: Path, refused: Callable[[Path, str], None]
) -> None:
    def aim(graph: Any) -> None:
        (restore,) = (each for each in graph.graph_def.library.function if "restore" in each.signature.name)
        (node,) = (each for each in restore.node_def if each.op == "RestoreV2")
        other = restore.node_def.add(name="other", op="Const")
        other.attr["dtype"].type = tf.string.as_datatype_enum
        other.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(str(tmp_path / "secret")))
        node.input[0] = "other:output:0"

    refused(_edit(_save(tmp_path / "1"), aim), "may restore variables from files outside the bundle")


def test_restoring_through_another_function_is_refused(
    tmp_path: Path, refused: Callable[[Path, str], None]
) -> None:
    """The inner function restores from its own argument, but the outer one chooses that."""

    def wrap(graph: Any) -> None:
        functions = graph.graph_def.library.function
        (inner,) = (each for each in functions if "restore" in each.signature.name)
        (call,) = (each for each in graph.graph_def.node if each.name == graph.saver_def.restore_op_name)
        outer = functions.add()
        outer.CopyFrom(inner)
        outer.signature.name = call.attr["f"].func.name = "outer"
        del outer.node_def[:]
        outer.node_def.add().CopyFrom(call)
        outer.node_def[0].attr["f"].func.name = inner.signature.name

    refused(_edit(_save(tmp_path / "1"), wrap), "may restore variables from files outside the bundle")


def test_the_save_function_as_a_signature_is_refused(
    tmp_path: Path, refused: Callable[[Path, str], None]
) -> None:
    def expose(graph: Any) -> None:
        signature = graph.signature_def["serving_default"]
        signature.inputs["study"].name = graph.saver_def.filename_tensor_name
        signature.outputs["twice"].name = graph.saver_def.save_tensor_name

    refused(_edit(_save(tmp_path / "1"), expose), "of the saver is an input or output of a signature")


def test_a_table_that_reads_a_file_on_loading_is_refused(
    tmp_path: Path, refused: Callable[[Path, str], None]
) -> None:
    (tmp_path / "lines.txt").write_text("a\nb\n", encoding="utf-8")
    lines = tf.lookup.TextFileInitializer(
        str(tmp_path / "lines.txt"),
        tf.string,
        tf.lookup.TextFileIndex.WHOLE_LINE,
        tf.int64,
        tf.lookup.TextFileIndex.LINE_NUMBER,
    )
    table = tf.lookup.StaticHashTable(lines, -1)
    folder = _save(
        tmp_path / "1",
        lambda study: {"place": tf.strings.as_string(table.lookup(study))},
        table=table,
    )
    (folder / "assets" / "lines.txt").unlink()
    refused(_seal(folder), "is of the kind resource, which loading initializes")


def test_a_class_that_loading_would_create_is_refused(
    tmp_path: Path, refused: Callable[[Path, str], None]
) -> None:
    def change(graph: Any) -> None:
        graph.object_graph_def.nodes[0].user_object.identifier = "_tf_keras_model"

    refused(_edit(_save(tmp_path / "1"), change), "class '_tf_keras_model'")


def test_a_program_for_the_start_of_a_server_is_refused(
    tmp_path: Path, refused: Callable[[Path, str], None]
) -> None:
    def change(graph: Any) -> None:
        called = next(node.name for node in graph.graph_def.node if node.op.endswith("PartitionedCall"))
        graph.collection_def["saved_model_main_op"].node_list.value[:] = [called]

    refused(_edit(_save(tmp_path / "1"), change), "would run at the start")


def test_a_function_in_the_place_of_an_operation_is_refused(
    tmp_path: Path, refused: Callable[[Path, str], None]
) -> None:
    def change(graph: Any) -> None:
        graph.graph_def.library.function.add().signature.name = "WriteFile"
        graph.graph_def.node.add(name="write", op="WriteFile")

    refused(_edit(_save(tmp_path / "1"), change), "function WriteFile has the name of an operation")


def test_an_operation_that_is_called_like_a_function_is_refused(
    tmp_path: Path, refused: Callable[[Path, str], None]
) -> None:
    def change(graph: Any) -> None:
        node = graph.graph_def.node.add(name="write", op="PartitionedCall")
        node.attr["f"].func.name = "WriteFile"

    refused(_edit(_save(tmp_path / "1"), change), "function WriteFile is called and is not in the graph")


def test_a_constant_of_a_few_bytes_that_fills_the_memory_is_refused(
    tmp_path: Path, refused: Callable[[Path, str], None]
) -> None:
    def change(graph: Any) -> None:
        node = graph.graph_def.node.add(name="zeros", op="Const")
        tensor = node.attr["value"].tensor
        tensor.dtype = tf.float32.as_datatype_enum
        tensor.float_val.append(0.0)
        tensor.tensor_shape.dim.add().size = 1 << 40

    refused(_edit(_save(tmp_path / "1"), change), "constant zeros has 1099511627776 elements")


def test_another_form_of_the_graph_is_refused(tmp_path: Path, refused: Callable[[Path, str], None]) -> None:
    folder = _save(tmp_path / "1")
    (folder / "saved_model.cpb").write_bytes(b"")
    refused(_seal(folder), r"saved_model\.cpb")


def test_a_graph_of_before_objects_is_refused(tmp_path: Path, refused: Callable[[Path, str], None]) -> None:
    """TensorFlow loads one by running its start in a session."""
    folder = _edit(_save(tmp_path / "1"), lambda graph: graph.ClearField("object_graph_def"))
    refused(folder, "must hold one graph with its objects")


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"\x0a\xff\xff\xff\xff\x0f"])
def test_a_graph_that_is_none_is_refused(
    tmp_path: Path, refused: Callable[[Path, str], None], content: bytes
) -> None:
    folder = _save(tmp_path / "1")
    (folder / "saved_model.pb").write_bytes(content)
    refused(_seal(folder), r"saved_model\.pb must hold")
