import json
import shutil
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from lumbar_tf.config import (
    CropConfig,
    GraderConfig,
    LocalizerConfig,
    PlaneConfig,
    TrainingConfig,
    dump_config,
)
from lumbar_tf.files import file_sha256
from lumbar_tf.inputs.crop_layout import CropLayout
from lumbar_tf.labels import Family, Plane
from lumbar_tf.models.fold_ensemble import assign_weights
from lumbar_tf.models.grader import build_grader
from lumbar_tf.models.localizer import build_localizer
from lumbar_tf.training.checkpoints import WEIGHTS_NAME
from lumbar_tf.training.metadata import write_member_metadata
from lumbar_tf.training.pretrained_weights import read_pretrained_plane
from lumbar_tf.training.runs import LOCALIZER, PlaneRun
from lumbar_tf.training.warm_start import initial_weights

MEMBER = "csp_darknet_narrow"
VARIABLES = ("variables/variables.data-00000-of-00001", "variables/variables.index")
FOLDS = {"a": 0, "b": 1, "c": 2}
TRAINING = TrainingConfig(epochs=1, batch_studies=1, learning_rate=1e-3)


def _config(init_from: Path | None = None, **changes: object) -> PlaneConfig:
    start = None if init_from is None else str(init_from)
    grader = {
        "backbones": (MEMBER,),
        "targets": (Family.CANAL,),
        "crop": CropConfig(side_mm=40.0, side_px=32, num_slices=3),
        "training": TRAINING,
        "init_from": start,
    }
    return PlaneConfig(
        plane=Plane.SAGITTAL_T2,
        localizer=LocalizerConfig(backbone=MEMBER, training=TRAINING, init_from=start),
        grader=GraderConfig(**{**grader, **changes}),
    )


def _finish(run: PlaneRun, *folds: int, member: str = MEMBER) -> list[Path]:
    paths = [run.fold_directory(member, fold) / WEIGHTS_NAME for fold in folds]
    for path in paths:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"weights")
    return paths


Start = Callable[..., PlaneRun]


@pytest.mark.parametrize("member", [MEMBER, LOCALIZER])
def test_same_folds_give_the_weights_of_the_same_fold(start: Start, member: str) -> None:
    first = start("first", FOLDS, _config())
    paths = _finish(first, 0, 1, 2, member=member)
    for named in (first.runs, first.directory):
        second = start(f"second_{named.name}", FOLDS, _config(named))
        assert [initial_weights(second, member, fold) for fold in range(3)] == paths


def test_no_init_from_gives_no_initial_weights(start: Start) -> None:
    run = start("first", FOLDS, _config())
    assert initial_weights(run, MEMBER, 0) is None
    assert initial_weights(run, LOCALIZER, 0) is None


def test_unfinished_fold_is_refused(start: Start) -> None:
    first = start("first", FOLDS, _config())
    _finish(first, 0)
    second = start("second", FOLDS, _config(first.runs))
    with pytest.raises(ValueError, match=r"finished weights of csp_darknet_narrow.*fold1"):
        initial_weights(second, MEMBER, 1)


def test_file_of_a_run_with_the_same_folds_is_for_its_fold_only(start: Start) -> None:
    first = start("first", FOLDS, _config())
    path = _finish(first, 0, 1)[1]
    second = start("second", FOLDS, _config(path))
    assert initial_weights(second, MEMBER, 1) == path
    with pytest.raises(ValueError, match=r"same fold, 0; others were trained"):
        initial_weights(second, MEMBER, 0)


def test_file_of_a_first_step_belongs_to_its_fold(start: Start) -> None:
    """Two-step training leaves weights one folder deeper, and each member's folder has a run.json."""
    first = start("first", FOLDS, _config(two_step_epochs=1))
    paths = [path.parent / "features" / WEIGHTS_NAME for path in _finish(first, 0, 1)]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(b"weights")
    write_member_metadata(first, MEMBER)
    assert (first.member_directory(MEMBER) / "run.json").is_file()
    second = start("second", FOLDS, _config(paths[1]))
    assert initial_weights(second, MEMBER, 1) == paths[1]
    with pytest.raises(ValueError, match=r"same fold, 0; others were trained"):
        initial_weights(second, MEMBER, 0)
    third = start("third", {"c": 0, "d": 1, "e": 2}, _config(paths[1]))
    with pytest.raises(ValueError, match=r"shares 1 of 3 studies, such as c\."):
        initial_weights(third, MEMBER, 0)


@pytest.mark.parametrize("place", ["mine.weights.h5", f"{MEMBER}/mine.weights.h5"])
def test_file_outside_the_fold_folders_is_refused(start: Start, place: str) -> None:
    first = start("first", FOLDS, _config())
    _finish(first, 0)
    path = first.directory / place
    path.write_bytes(b"weights")
    second = start("second", FOLDS, _config(path))
    with pytest.raises(ValueError, match=r"must be those of the same fold, 0"):
        initial_weights(second, MEMBER, 0)


def test_other_folds_of_the_same_studies_are_refused(start: Start) -> None:
    first = start("first", FOLDS, _config())
    path = _finish(first, 0)[0]
    for name, named in (("folder", first.runs), ("file", path)):
        second = start(name, {"c": 0, "d": 1, "e": 2}, _config(named))
        with pytest.raises(ValueError, match=r"shares 1 of 3 studies, such as c\."):
            initial_weights(second, MEMBER, 0)


def test_run_with_other_studies_gives_any_fold(start: Start) -> None:
    first = start("first", FOLDS, _config())
    paths = _finish(first, 0, 1)
    second = start("second", {"x": 0, "y": 1, "z": 2}, _config(first.runs))
    chosen = [initial_weights(second, MEMBER, fold) for fold in range(3)]
    assert chosen == [paths[0], paths[1], paths[0]]


def test_initial_weights_of_the_other_run_are_checked(start: Start) -> None:
    oldest = start("oldest", {"x": 0, "p": 1}, _config())
    _finish(oldest, 0, 1)
    first = start("first", FOLDS, _config(oldest.runs))
    _finish(first, 0, 1, 2)
    second = start("second", {"x": 0, "y": 1}, _config(first.runs))
    with pytest.raises(ValueError, match=r"oldest.*shares 1 of 2 studies, such as x\."):
        initial_weights(second, MEMBER, 0)


def test_run_without_list_of_studies_is_refused(start: Start) -> None:
    first = start("first", FOLDS, _config())
    _finish(first, 0)
    path = first.directory / "run.json"
    origin = json.loads(path.read_text())
    del origin["studies"]
    path.write_text(json.dumps(origin))
    second = start("second", {"x": 0, "y": 1}, _config(first.runs))
    with pytest.raises(ValueError, match="does not list its studies"):
        initial_weights(second, MEMBER, 0)


def test_file_outside_of_any_run_is_used(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "mine.weights.h5"
    path.write_bytes(b"weights")
    run = start("first", FOLDS, _config(path))
    assert initial_weights(run, MEMBER, 0) == initial_weights(run, MEMBER, 2) == path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pooling": "mean"}, r"has pooling attention\. Received: mean"),
        ({"targets": (Family.FORAMINAL,)}, r"has targets \['canal'\]\. Received: \['foraminal'\]"),
        ({"level_context": True}, r"has level_context False\. Received: True"),
        ({"auxiliary": (Family.FORAMINAL,)}, r"has auxiliary \[\]\. Received: \['foraminal'\]"),
        ({"channels": 1}, r"has channels 3\. Received: 1"),
        (
            {"crop": CropConfig(side_mm=40.0, side_px=32, num_slices=1)},
            "more than one slice True. Received: False",
        ),
        (
            {"crop": CropConfig(side_mm=40.0, side_px=32, num_slices=3, mirror_right=False)},
            "has mirror_right True. Received: False",
        ),
    ],
)
def test_weights_of_another_network_are_refused(
    start: Start, change: dict[str, object], message: str
) -> None:
    first = start("first", FOLDS, _config(**change))
    _finish(first, 0)
    second = start("second", FOLDS, _config(first.runs))
    with pytest.raises(ValueError, match=message):
        initial_weights(second, MEMBER, 0)


def test_head_of_another_family_is_refused(start: Start) -> None:
    """Both heads have the same shapes, so Keras would load one into the other."""
    first = start("first", FOLDS, _config(auxiliary=(Family.FORAMINAL, Family.SUBARTICULAR)))
    paths = _finish(first, 0)
    turned = start("turned", FOLDS, _config(first.runs, auxiliary=(Family.SUBARTICULAR, Family.FORAMINAL)))
    assert initial_weights(turned, MEMBER, 0) == paths[0]
    foraminal = start("foraminal", FOLDS, _config(auxiliary=(Family.FORAMINAL,)))
    _finish(foraminal, 0)
    second = start("second", FOLDS, _config(foraminal.runs, auxiliary=(Family.SUBARTICULAR,)))
    with pytest.raises(ValueError, match=r"auxiliary \['subarticular'\]\. Received: \['foraminal'\]"):
        initial_weights(second, MEMBER, 0)


def test_missing_run_and_the_same_run_are_refused(start: Start, tmp_path: Path) -> None:
    run = start("first", FOLDS, _config(tmp_path / "absent"))
    with pytest.raises(ValueError, match=r"a run's folder or a file of weights.*absent"):
        initial_weights(run, MEMBER, 0)
    run = start("second", FOLDS, _config(tmp_path))
    with pytest.raises(ValueError, match=r"must contain a run of sagittal_t2"):
        initial_weights(run, MEMBER, 0)
    run = start("third", FOLDS, _config(tmp_path / "third" / "runs"))
    with pytest.raises(ValueError, match="another run than the one that starts"):
        initial_weights(run, MEMBER, 0)


def test_a_run_of_another_plane_is_refused(start: Start) -> None:
    first = start("first", FOLDS, _config())
    config = _config(first.directory).model_copy(update={"plane": Plane.SAGITTAL_T1})
    second = start("second", FOLDS, config)
    with pytest.raises(ValueError, match=r"has plane sagittal_t1\. Received: sagittal_t2"):
        initial_weights(second, MEMBER, 0)
    assert "init_from" in dump_config(config)


VECTORS = [np.arange(4, dtype=np.float32) + 10 * number for number in range(6)]


def _write_bundle(
    folder: Path, config: PlaneConfig, *, is_synthetic: bool = True, folds: str = "others"
) -> Path:
    """Writes what a start from a bundle reads: variables and description of sagittal T1 and T2."""
    version = folder / "3"
    module = tf.Module()
    # Two folds of a grader of T1, of the localizer and of a grader of T2.
    module.parameters = [[tf.Variable(VECTORS[2 * i + fold]) for fold in range(2)] for i in range(3)]
    tf.saved_model.save(module, str(version))
    origin = {"num_folds": 2, "digests": {"folds_sha256": folds}, "graders": [MEMBER]}
    plane = {**origin, "config": dump_config(config), "has_localizer": True}
    files = {name: file_sha256(version / name) for name in VARIABLES}
    description = {
        "members": [],
        "training": {"data": "", "is_synthetic": is_synthetic},
        "planes": {"sagittal_t1": {**origin, "has_localizer": False}, "sagittal_t2": plane},
        "files": files,
    }
    (version / "assets.extra").mkdir()
    (version / "assets.extra" / "ensemble.json").write_text(json.dumps(description))
    return version


@pytest.fixture
def pretrained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The version's folder of a pretrained ensemble."""
    monkeypatch.setenv("LUMBAR_TF_PRETRAINED", str(tmp_path / "pretrained"))
    return _write_bundle(tmp_path / "pretrained", _config())


@pytest.mark.parametrize(("member", "vectors"), [(LOCALIZER, VECTORS[2:4]), (MEMBER, VECTORS[4:])])
@pytest.mark.usefixtures("pretrained")
def test_folds_start_from_those_of_the_pretrained_ensemble_in_turn(
    start: Start, member: str, vectors: list[NDArray[np.float32]]
) -> None:
    run = start("second", {"x": 0, "y": 1, "z": 2}, _config(Path("pretrained")))
    for fold, expected in enumerate([*vectors, vectors[0]]):
        np.testing.assert_array_equal(initial_weights(run, member, fold), expected)


@pytest.mark.usefixtures("pretrained")
def test_a_backbone_without_pretrained_weights_is_refused(start: Start) -> None:
    config = _config(Path("pretrained"), backbones=("mobilenet_v2",))
    assert config.localizer is not None
    config = config.model_copy(
        update={"localizer": config.localizer.model_copy(update={"backbone": "mit_b0"})}
    )
    run = start("second", {"x": 0, "y": 1}, config)
    known = f"graders: {MEMBER}; localizer: {MEMBER}"
    with pytest.raises(ValueError, match=rf"{known}\. Received: mobilenet_v2 for a grader\."):
        initial_weights(run, "mobilenet_v2", 0)
    with pytest.raises(ValueError, match=rf"{known}\. Received: mit_b0 for the localizer\."):
        initial_weights(run, LOCALIZER, 0)


@pytest.mark.usefixtures("pretrained")
def test_pretrained_weights_of_another_network_or_plane_are_refused(start: Start) -> None:
    other = start("second", {"x": 0, "y": 1}, _config(Path("pretrained"), pooling="mean"))
    with pytest.raises(ValueError, match=r"has pooling mean\. Received: attention"):
        initial_weights(other, MEMBER, 0)
    axial = _config(Path("pretrained")).model_copy(update={"plane": Plane.AXIAL_T2, "localizer": None})
    run = start("third", {"x": 0, "y": 1}, axial)
    with pytest.raises(ValueError, match=r"the plane axial_t2\. Received: sagittal_t1, sagittal_t2"):
        initial_weights(run, MEMBER, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"is_synthetic": False}, "trained on synthetic studies.*Pass the folder of its runs instead"),
        ({"folds": "same"}, "was trained on the same folds"),
    ],
)
def test_an_ensemble_of_studies_that_may_be_held_out_is_refused(
    start: Start, pretrained: Path, change: dict[str, object], message: str
) -> None:
    run = start("second", {"x": 0, "y": 1}, _config(Path("pretrained")))
    if change.get("folds"):
        change = {"folds": json.loads((run.directory / "run.json").read_text())["folds_sha256"]}
    shutil.rmtree(pretrained)
    _write_bundle(pretrained.parent, _config(), **change)
    with pytest.raises(ValueError, match=message):
        initial_weights(run, MEMBER, 0)


def test_pretrained_weights_that_are_changed_or_absent_are_refused(start: Start, pretrained: Path) -> None:
    run = start("second", {"x": 0, "y": 1}, _config(Path("pretrained")))
    (pretrained / VARIABLES[0]).write_bytes(b"other")
    with pytest.raises(ValueError, match=f"another {VARIABLES[0]}"):
        initial_weights(run, MEMBER, 0)
    shutil.rmtree(pretrained)
    with pytest.raises(ValueError, match=r"needs weights.*run `make pretrained`"):
        initial_weights(run, MEMBER, 0)


@pytest.mark.parametrize("plane", [Plane.SAGITTAL_T2, Plane.SAGITTAL_T1, Plane.AXIAL_T2])
def test_weights_of_the_package_fit_their_networks(plane: Plane) -> None:
    """All weights of the package's own ensemble; those of batch normalisation are not the initial ones."""
    pretrained = read_pretrained_plane(plane)
    models = {
        name: build_grader(name, pretrained.config.grader, CropLayout.of(pretrained.config))
        for name in pretrained.config.grader.backbones
    }
    if pretrained.config.localizer is not None:
        models[LOCALIZER] = build_localizer(pretrained.config.localizer, plane)
    assert set(models) == set(pretrained.networks)
    for name, model in models.items():
        vector = pretrained.read_weights(name, 0)
        assign_weights(model, vector)
        np.testing.assert_array_equal(np.concatenate([np.ravel(w) for w in model.get_weights()]), vector)
        moving = [weight for weight in model.weights if weight.name == "moving_variance"]
        assert moving
        assert all(np.all(weight.numpy() > 0) and np.any(weight.numpy() != 1) for weight in moving)


def test_weights_of_another_size_are_refused() -> None:
    model = keras.Sequential([keras.layers.Dense(2)], name="dense")
    model.build((None, 3))
    assign_weights(model, np.arange(8, dtype=np.float32))
    np.testing.assert_array_equal(model.get_weights()[0], [[0, 1], [2, 3], [4, 5]])
    with pytest.raises(ValueError, match=r"dense must have 9 weights\. Received: 8"):
        assign_weights(model, np.zeros(9, np.float32))
