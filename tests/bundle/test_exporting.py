"""The bundle on disk: what it holds, and that it is refused where it is not what was exported."""

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

import lumbar_tf
from lumbar_tf.bundle import exporting
from lumbar_tf.bundle.exporting import export_ensemble
from lumbar_tf.bundle.file_check import find_file_faults
from lumbar_tf.bundle.self_test import load_bundle
from lumbar_tf.bundle.servable_check import find_faults
from lumbar_tf.bundle.trained_ensemble import TrainedEnsemble
from lumbar_tf.ensemble.stacker import StackerCoefficients
from lumbar_tf.files import file_sha256
from lumbar_tf.labels import Plane
from lumbar_tf.models.bundle_folder import read_ensemble_json
from lumbar_tf.models.fold_ensemble import FoldEnsemble
from tests.trained_pipeline import TrainedPipeline

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bare(trained_pipeline: TrainedPipeline) -> TrainedEnsemble:
    """The ensemble without weights, for exports that have no network in them."""

    def pass_over(self: FoldEnsemble, model: keras.Model, weights: list[Path]) -> None:
        self.parameters, self.model = [], model

    with pytest.MonkeyPatch.context() as patch:
        # Reading them takes longer than the tests.
        patch.setattr(FoldEnsemble, "__init__", pass_over)
        return trained_pipeline.load_ensemble()


@pytest.fixture(scope="module")
def without_saliency(
    trained_pipeline: TrainedPipeline, tmp_path_factory: pytest.TempPathFactory
) -> lumbar_tf.ExportedBundle:
    """The ensemble exported again, as if of patients and without the signature `saliency`."""
    folder = tmp_path_factory.mktemp("without_saliency")
    return lumbar_tf.export(
        trained_pipeline.out / "runs",
        folder / "models",
        data="Patients.\nMany.",
        saliency=False,
        records=folder / "absent",
    )


def _weights_bytes(path: Path) -> int:
    """Bytes of the arrays in a file of weights, read without the package."""
    sizes: list[int] = []
    with h5py.File(path) as file:
        # What the optimizer keeps beside each weight is no part of the member.
        for name in set(file) - {"optimizer"}:
            file[name].visititems(lambda _, each: sizes.append(getattr(each, "nbytes", 0)))
    return sum(sizes)


def test_variables_on_disk_are_the_members_weights_once(trained_pipeline: TrainedPipeline) -> None:
    weights = sum(_weights_bytes(path) for path in (trained_pipeline.out / "runs").rglob("*.weights.h5"))
    on_disk = sum(path.stat().st_size for path in (trained_pipeline.model / "variables").iterdir())
    assert 0.95 * weights <= on_disk <= 1.05 * weights
    # None of them is in the graph, too.
    assert find_faults(trained_pipeline.model) == []


def test_a_network_is_in_the_graph_once_whatever_its_folds(trained_pipeline: TrainedPipeline) -> None:
    model = saved_model_pb2.SavedModel.FromString((trained_pipeline.model / "saved_model.pb").read_bytes())
    library = model.meta_graphs[0].graph_def.library
    folds = list((trained_pipeline.out / "runs").rglob("*.weights.h5"))
    networks = {path.parent.parent for path in folds}
    graders = {path for path in networks if path.name != "localizer"}
    plain, with_maps = (
        [function for function in library.function if name in function.signature.name]
        for name in ("_logits_of_fold", "_saliency_of_fold")
    )
    assert len(plain) == len(networks) < len(folds) and len(with_maps) == len(graders) < len(networks)
    assert all(function.attr["_noinline"].b for function in (*plain, *with_maps))
    calls = Counter(
        node.attr["f"].func.name
        for function in library.function
        for node in function.node_def
        if node.op.endswith("PartitionedCall") and "_fold" in node.attr["f"].func.name
    )
    # Each of the two signatures calls every network for every fold; both call the same localizers.
    assert sum(calls.values()) == 2 * len(folds)
    assert set(calls) == {function.signature.name for function in (*plain, *with_maps)}
    # What only training needs would be most of the functions.
    assert not [function for function in library.function if "grad" in function.signature.name]


def test_nothing_of_saliency_is_in_a_graph_that_is_exported_without_it(
    trained_pipeline: TrainedPipeline, without_saliency: lumbar_tf.ExportedBundle
) -> None:
    with_it, without = (
        saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes()).meta_graphs[0]
        for path in (trained_pipeline.model, without_saliency.path)
    )
    named = [
        [function.signature.name for function in graph.graph_def.library.function]
        for graph in (with_it, without)
    ]
    assert [sum("saliency" in name for name in names) > 0 for names in named] == [True, False]
    assert len(named[1]) < 0.6 * len(named[0])


def test_the_signature_is_named_and_has_the_study_in_front(trained_pipeline: TrainedPipeline) -> None:
    model = saved_model_pb2.SavedModel.FromString((trained_pipeline.model / "saved_model.pb").read_bytes())
    signature = model.meta_graphs[0].signature_def["serving_default"]
    assert signature.method_name == "tensorflow/serving/predict"
    inputs, outputs = (
        {name: [axis.size for axis in tensor.tensor_shape.dim] for name, tensor in tensors.items()}
        for tensors in (signature.inputs, signature.outputs)
    )
    assert inputs == {plane.value: [-1] for plane in Plane}
    assert {spec.dtype for spec in signature.inputs.values()} == {tf.string.as_datatype_enum}
    assert outputs["probability"] == outputs["competition"] == [-1, 25, 3]
    assert outputs["interval"] == [-1, 25, 3, 2]
    assert all(shape[0] == -1 for shape in outputs.values())
    saliency = model.meta_graphs[0].signature_def["saliency"]
    shapes = {
        name: [axis.size for axis in output.tensor_shape.dim] for name, output in saliency.outputs.items()
    }
    assert set(saliency.inputs) == set(inputs)
    assert {name: shapes[name] for name in outputs} == outputs
    # Three members, the canal's axial one from both sides, three slices; 32 px at stride 4.
    assert shapes["saliency"] == [-1, 3, 25, 2, 3, 8, 8] and shapes["weight"] == [-1, 3, 25]


def test_the_manifest_has_the_digests_of_all_files_and_names_no_study(
    trained_pipeline: TrainedPipeline,
) -> None:
    extra = trained_pipeline.model / "assets.extra"
    text = (extra / "ensemble.json").read_text(encoding="utf-8")
    description = json.loads(text)
    files = {
        path.relative_to(trained_pipeline.model).as_posix()
        for path in trained_pipeline.model.rglob("*")
        if path.is_file()
    }
    assert set(description["files"]) == files - {"assets.extra/ensemble.json"}
    for plane in Plane:
        described = description["planes"][plane.value]
        for name, digest in described["weights_sha256"].items():
            assert file_sha256(trained_pipeline.out / "runs" / plane.value / name) == digest
        manifest = file_sha256(trained_pipeline.out / "tfrecords" / "manifest.json")
        assert described["digests"]["manifest_sha256"] == manifest
    trained = [path.name for path in (trained_pipeline.out / "training" / "train_images").iterdir()]
    written = text + (extra / "model_card.md").read_text(encoding="utf-8")
    assert trained and not [study for study in trained if study in written]


def test_a_forgotten_flag_does_not_hide_that_the_studies_were_synthetic(
    trained_pipeline: TrainedPipeline, without_saliency: lumbar_tf.ExportedBundle
) -> None:
    bundle = without_saliency
    served = load_bundle(bundle.path)
    assert served.description["training"] == {"data": "Patients. Many.", "is_synthetic": True}
    # The demo gives its origin, and the flag.
    assert read_ensemble_json(trained_pipeline.model)["training"]["is_synthetic"]
    assert served.training.note.startswith("The model was trained on synthetic studies.")
    assert bundle.model_card.read_text(encoding="utf-8").index("SYNTHETIC") < 500


def test_the_model_card_says_what_it_must(trained_pipeline: TrainedPipeline) -> None:
    card = (trained_pipeline.model / "assets.extra" / "model_card.md").read_text(encoding="utf-8")
    for words in (
        "Not a medical device",
        "SYNTHETIC",
        "Out of fold",
        "class-wise ECE",
        "untested conditions",
    ):
        assert words in card
    score = json.loads((trained_pipeline.out / "runs" / "stack" / "scores.json").read_text(encoding="utf-8"))
    (nested,) = (row for row in score if row["name"] == "stacked, competition head")
    # The very score that the stacker was chosen by, with an interval around it.
    assert f"| {nested['score']['score']:.4f} [" in card


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("variables/variables.data-00000-of-00001", "SHA-256 differs"),
        ("assets.extra/parity_requests.tfrecord", "is absent"),
    ],
)
def test_a_damaged_bundle_is_refused_by_the_file(
    trained_pipeline: TrainedPipeline, tmp_path: Path, name: str, words: str
) -> None:
    copy = tmp_path / "1"
    shutil.copytree(trained_pipeline.model, copy)
    assert find_file_faults(copy) == []
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    if "absent" in words:
        (copy / name).unlink()
    else:
        (copy / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} .*{words}"):
        load_bundle(copy)


def _smuggled(value: tf.Tensor) -> Any:
    return tf.ensure_shape(tf.py_function(lambda each: each, [value], value.dtype), value.shape)


def test_a_py_function_that_is_smuggled_in_is_not_exported(
    trained_pipeline: TrainedPipeline, bare: TrainedEnsemble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Smuggler(tf.Module):
        def __init__(self, networks: object, stacker: object) -> None:
            super().__init__()
            self.parameters = [tf.Variable(1.0)]
            self.serve = tf.function(
                lambda study: {"probability": _smuggled(study) * self.parameters[0]},
                input_signature=[tf.TensorSpec([None], tf.float32, name="study")],
            )

    monkeypatch.setattr(exporting, "ServableEnsemble", Smuggler)
    with pytest.raises(ValueError, match=r"EagerPyFunc .* runs Python"):
        export_ensemble(bare, trained_pipeline.out / "runs", tmp_path / "models", has_saliency=False)
    assert list((tmp_path / "models").iterdir()) == []


def test_a_bundle_that_swaps_no_sides_is_not_exported(
    trained_pipeline: TrainedPipeline, bare: TrainedEnsemble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole export, of a graph that says the same of every study."""

    class Parrot(tf.Module):
        def __init__(self, networks: object, stacker: StackerCoefficients) -> None:
            super().__init__()
            said = np.random.default_rng(0).dirichlet(np.ones(3), 25).astype(np.float32)
            self.parameters = [tf.Variable(said)]

            def serve(**planes: tf.Tensor) -> Mapping[str, tf.Tensor]:
                studies = tf.shape(planes["axial_t2"])[0]

                def each(value: tf.Tensor) -> tf.Tensor:
                    return tf.tile(value[tf.newaxis], tf.stack([studies, *([1] * value.shape.rank)]))

                head = each(self.parameters[0].read_value())
                return {
                    "probability": head,
                    "competition": head,
                    "members": each(tf.fill([len(stacker.members), 25, 3], float("nan"))),
                    "landmarks": each(tf.fill([25, 3], float("nan"))),
                    "flags": each(tf.fill([25, 6], True)),
                }

            self.serve = tf.function(serve, autograph=False).get_concrete_function(
                **{plane.value: tf.TensorSpec([None], tf.string, name=plane.value) for plane in Plane}
            )

    monkeypatch.setattr(exporting, "ServableEnsemble", Parrot)
    with pytest.raises(ValueError, match=r"mirrored: (probability|competition) differs"):
        export_ensemble(bare, trained_pipeline.out / "runs", tmp_path / "models", has_saliency=False)
    assert list((tmp_path / "models").iterdir()) == []
