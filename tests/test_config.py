"""Configurations are read whole or refused with the field's name."""

from pathlib import Path

import pytest

from lumbar_tf.config import (
    PlaneConfig,
    default_config_path,
    dump_config,
    load_demo_config,
    load_plane_config,
)
from lumbar_tf.labels import Plane

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


@pytest.mark.parametrize("plane", Plane)
def test_each_plane_has_a_configuration_of_two_backbones_at_least(plane: Plane) -> None:
    config = load_plane_config(default_config_path(plane))
    assert config.plane is plane
    assert len(set(config.grader.backbones)) >= 2


def test_a_dumped_configuration_reads_back_the_same(tmp_path: Path) -> None:
    config = load_plane_config(CONFIGS / "sagittal_t2.yaml", overrides=["grader.training.epochs=3"])
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    assert load_plane_config(path) == config
    assert config.grader.training.epochs == 3


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("grader.training.epochz=3", "grader.training.epochz"),
        ("grader.training.epochs=many", "grader.training.epochs"),
        ("grader.crop.num_slices=4", "num_slices must be odd"),
        ("grader.training.augmentation.spike=1.5", "grader.training.augmentation.spike"),
        ("grader.training.augmentation.blur_px=-1", "grader.training.augmentation.blur_px"),
        ("grader.training.augmentation.mixup_alpha=0", "grader.training.augmentation.mixup_alpha"),
        ("grader.training.augmentation={mixup: 0.6, cutmix: 0.6}", "must not exceed 1 together"),
        ("grader.auxiliary=[canal]", "auxiliary must name other families"),
        ("grader.auxiliary=[foraminal, foraminal]", "each once"),
        ("localizer=null", "localizer is required"),
        ("grader.anchor=subarticular", "needs the plane axial_t2"),
        ("grader.training.epochs", "key=value"),
        ("seed.deeper=1", "seed"),
    ],
)
def test_a_bad_field_is_refused_by_name(override: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        load_plane_config(CONFIGS / "sagittal_t2.yaml", overrides=[override])


def _axial(*overrides: str) -> PlaneConfig:
    return load_plane_config(CONFIGS / "axial_t2.yaml", overrides=overrides)


def test_the_axial_plane_can_have_a_localizer_and_needs_none() -> None:
    localizer = (
        "localizer={backbone: mobilenet_v2, side_mm: 64, side_px: 96, num_slices: 5, "
        "training: {epochs: 1, batch_studies: 1, learning_rate: 0.001}}"
    )
    assert _axial().localizer is None and _axial().grader.anchor == "level"
    assert _axial(localizer).grader.anchor == "level"
    assert _axial(localizer, "grader.anchor=subarticular").localizer is not None
    with pytest.raises(ValueError, match="axial_t2 without one"):
        _axial("grader.anchor=subarticular")
    for fault in ("num_slices=4", "covers_image=true", "supersample=4"):
        with pytest.raises(ValueError, match="The localizer of axial_t2 takes"):
            _axial(localizer, "localizer.side_px=160", f"localizer.{fault}")


def test_an_override_reaches_into_a_list() -> None:
    config = load_demo_config(CONFIGS / "demo.yaml", overrides=["planes.1.grader.crop.side_px=32"])
    assert config.planes[1].grader.crop.side_px == 32
    assert config.planes[0].grader.crop.side_px != 32


def test_yaml_cannot_build_objects(tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text("plane: !!python/object/apply:os.system ['true']\n", encoding="utf-8")
    with pytest.raises(ValueError, match="YAML"):
        load_plane_config(path)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.yaml"):
        load_plane_config(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("duplicate", r"duplicate\.yaml must be YAML\. Received: the key 'seed' more than once"),
        (
            "umlaut_latin1",
            r"umlaut_latin1\.yaml must be YAML in UTF-8\. Received: another encoding in line 1",
        ),
    ],
)
def test_faulty_files_are_named(shared_data: Path, name: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        load_plane_config(shared_data.parent / "cases" / "yaml" / f"{name}.yaml")


def test_a_repeated_key_is_an_error_at_any_depth(tmp_path: Path) -> None:
    text = (CONFIGS / "axial_t2.yaml").read_text()
    assert "grader:" in text
    for added in ("\nseed: 1\nseed: 2\n", "\nlocalizer: {side_mm: 1, side_mm: 2}\n", "\ngrader: {}\n"):
        (tmp_path / "a.yaml").write_text(text + added)
        with pytest.raises(ValueError, match="more than once"):
            load_plane_config(tmp_path / "a.yaml")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_understood_or_refused(tmp_path: Path, encoding: str) -> None:
    text = (CONFIGS / "axial_t2.yaml").read_text()
    (tmp_path / "a.yaml").write_bytes(text.encode(encoding))
    if encoding == "utf-8-sig":
        assert load_plane_config(tmp_path / "a.yaml") == load_plane_config(
            default_config_path(Plane.AXIAL_T2)
        )
        return
    with pytest.raises(ValueError, match=r"a\.yaml must be YAML in UTF-8\. Received: UTF-16"):
        load_plane_config(tmp_path / "a.yaml")
