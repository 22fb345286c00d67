"""The bundle in C++: what TF Serving does when it loads a version and is asked, without its binary."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from lumbar_tf.bundle.prediction_log import LoggedRequest, read_requests, write_requests
from tests.serving.loader import FILES, TOLERANCE, Line, build_loader, replay
from tests.trained_pipeline import TrainedPipeline

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ to build tests/serving/loader.cc with"),
]


@pytest.fixture(scope="module")
def bundle(trained_pipeline: TrainedPipeline) -> Path:
    """The bundle of a tiny ensemble."""
    return trained_pipeline.model


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled loader."""
    return build_loader(tmp_path_factory.mktemp("loader"))


@pytest.fixture(scope="module")
def answers(bundle: Path, program: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the program says of the bundle's own files and of a parity file that expects something else."""
    parity = bundle / "assets.extra" / FILES[1]
    request = read_requests(parity)[0]
    wrong = {**request.outputs, "probability": request.outputs["probability"] + 0.25}
    spoiled = tmp_path_factory.mktemp("spoiled") / "spoiled"
    write_requests(spoiled, [LoggedRequest(request.signature, request.inputs, wrong)])
    version, lines = replay(program, bundle, [*(bundle / "assets.extra" / name for name in FILES), spoiled])
    return {"version": version, "lines": lines}


def _of(answers: dict[str, Any], file: str) -> dict[tuple[str, str], Line]:
    return {(line.signature, line.output): line for line in answers["lines"] if line.file == file}


def test_the_bundle_answers_in_c_plus_plus_as_in_python(answers: dict[str, Any], bundle: Path) -> None:
    assert answers["version"] == f"TensorFlow {tf.__version__}"
    warmup, parity = (_of(answers, name) for name in FILES)
    outputs = {"probability", "competition", "interval", "members", "landmarks", "doubt", "flags"}
    outputs |= {"prediction_set"}
    expected = {("serving_default", output) for output in outputs} | {("describe", "description")}
    expected |= {("saliency", output) for output in (*outputs, "saliency", "weight")}
    assert set(warmup) == set(parity) == expected
    requests = read_requests(bundle / "assets.extra" / FILES[1])
    for (signature, _), line in parity.items():
        assert line.requests == sum(request.signature == signature for request in requests)
    assert max(line.largest for line in parity.values()) <= TOLERANCE


def test_an_answer_that_is_not_the_expected_one_is_seen(answers: dict[str, Any]) -> None:
    spoiled = _of(answers, "spoiled")
    assert spoiled["serving_default", "probability"].largest == pytest.approx(0.25, abs=1e-3)
    assert spoiled["serving_default", "competition"].largest <= TOLERANCE


def test_a_signature_that_no_request_asks_is_an_error(program: Path, bundle: Path, tmp_path: Path) -> None:
    module = tf.Module()
    module.twice = tf.function(lambda study: {"twice": study * 2}, input_signature=[tf.TensorSpec([None])])
    path = tmp_path / "other"
    tf.saved_model.save(module, str(path), signatures={"asked": module.twice, "other": module.twice})
    requests = tmp_path / "requests"
    (name,) = tf.saved_model.load(str(path)).signatures["asked"].structured_input_signature[1]
    values = tf.constant([1.0, 2.0]).numpy()
    write_requests(requests, [LoggedRequest("asked", {name: values}, {"twice": values * 2})])
    with pytest.raises(RuntimeError, match="no request asks other"):
        replay(program, path, [requests])
