"""The arithmetic of the plan, by hand."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def plan() -> ModuleType:
    """The script's module: benchmarks are no package."""
    spec = importlib.util.spec_from_file_location("full_size", Path(__file__).with_name("full_size.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["full_size"] = module
    spec.loader.exec_module(module)
    return module


def test_a_grids_hours_are_those_of_its_forward_passes(plan: ModuleType) -> None:
    member = plan.Member("m", 1e9, epochs=10, validate_every=1, fit_rate=2.0, pipeline_rate=8.0)
    # 5 folds x 80 of 100 studies x 10 epochs x 3, and each study looked at after every epoch and at the end.
    assert member.forward_passes(100, 5) == 12_000 + 1_100
    assert member.studies_read(100, 5) == 4_000 + 1_100
    # 13,100 GFLOPs at half of 1 TFLOP/s: 26.2 s. 5,100 studies at 8/s on 2 cores, so 16/s on 4: 318.75 s.
    device = plan.Device("d", peak_flops=1e12, utilisation=0.5, cores=4, dollars_per_hour=3600.0)
    found = plan.estimate([member], device, studies=100, folds=5, measured_cores=2)
    assert found.compute_hours * 3600 == pytest.approx(26.2)
    assert found.input_hours * 3600 == pytest.approx(318.75)
    assert found.dollars == pytest.approx(318.75)
    # Here: a training step is worth three forward passes, at 2 studies a second.
    assert plan.hours_here([member], studies=100, folds=5) * 3600 == pytest.approx(13_100 / 3 / 2)


def test_without_validation_the_held_out_fold_is_read_once(plan: ModuleType) -> None:
    member = plan.Member("m", 1e9, epochs=10, validate_every=0, fit_rate=1.0, pipeline_rate=1.0)
    assert member.studies_read(100, 5) == 4_000 + 100
