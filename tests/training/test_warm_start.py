import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lumbar_tf.config import (
    CropConfig,
    GraderConfig,
    LocalizerConfig,
    PlaneConfig,
    TrainingConfig,
    dump_config,
)
from lumbar_tf.labels import Family, Plane
from lumbar_tf.training.checkpoints import WEIGHTS_NAME
from lumbar_tf.training.metadata import write_member_metadata
from lumbar_tf.training.pretrained_weights import copy_weights
from lumbar_tf.training.runs import LOCALIZER, PlaneRun
from lumbar_tf.training.warm_start import initial_weights

MEMBER = "csp_darknet_narrow"
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


@pytest.fixture
def pretrained(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The initial weights of a pretrained ensemble, of a run with other studies."""
    first = start("first", FOLDS, _config())
    _finish(first, 0, 1)
    _finish(first, 0, 1, member=LOCALIZER)
    folder = tmp_path / "pretrained"
    copy_weights(first.runs, folder / "weights")
    monkeypatch.setenv("LUMBAR_TF_PRETRAINED", str(folder))
    return folder / "weights"


@pytest.mark.parametrize("member", [MEMBER, LOCALIZER])
def test_pretrained_names_the_weights_of_the_package(start: Start, pretrained: Path, member: str) -> None:
    run = start("second", {"x": 0, "y": 1}, _config(Path("pretrained")))
    path = pretrained / "sagittal_t2" / member / "fold0" / WEIGHTS_NAME
    assert [initial_weights(run, member, fold) for fold in range(2)] == [path, path]


def test_a_backbone_without_pretrained_weights_is_refused(start: Start, pretrained: Path) -> None:
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


def test_pretrained_weights_of_another_network_or_of_the_same_studies_are_refused(
    start: Start, pretrained: Path
) -> None:
    other = start("second", {"x": 0, "y": 1}, _config(Path("pretrained"), pooling="mean"))
    with pytest.raises(ValueError, match=r"has pooling mean\. Received: attention"):
        initial_weights(other, MEMBER, 0)
    same = start("third", {"a": 1, "y": 0}, _config(Path("pretrained")))
    with pytest.raises(ValueError, match="shares 1 of 2 studies, such as a"):
        initial_weights(same, MEMBER, 0)


def test_pretrained_weights_that_are_changed_or_absent_are_refused(start: Start, pretrained: Path) -> None:
    run = start("second", {"x": 0, "y": 1}, _config(Path("pretrained")))
    (pretrained / "sagittal_t2" / MEMBER / "fold0" / WEIGHTS_NAME).write_bytes(b"other")
    with pytest.raises(ValueError, match=f"another sagittal_t2/{MEMBER}/fold0/{WEIGHTS_NAME}"):
        initial_weights(run, MEMBER, 0)
    shutil.rmtree(pretrained)
    with pytest.raises(ValueError, match="python -m lumbar_tf.pretrain --install=DIR"):
        initial_weights(run, MEMBER, 0)
