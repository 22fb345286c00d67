"""An exported ensemble, loaded and asked."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import tensorflow as tf

from lumbar_tf.bundle.graph import SIGNATURE
from lumbar_tf.labels import Plane
from lumbar_tf.serving.contract import EXPLAIN

#: TF Serving leaves this folder of a version alone, but for the warm-up requests.
EXTRA = "assets.extra"
DESCRIPTION_NAME = "ensemble.json"
#: TF Serving looks for this very name.
WARMUP_NAME = "tf_serving_warmup_requests"
PARITY_NAME = "parity_requests.tfrecord"
CARD_NAME = "model_card.md"
STACKER_NAME = "stacker.json"
MODEL_NAME = "saved_model.pb"


def next_version(models: Path) -> int:
    """Returns one more than the largest numbered version in a folder, at least 1."""
    versions = [int(path.name) for path in models.glob("*") if path.is_dir() and path.name.isdecimal()]
    return max(versions, default=0) + 1


def find_version(path: Path) -> Path:
    """Returns a version's folder: the path itself, or the newest version in it.

    Raises:
        ValueError: there is no SavedModel.
    """
    newest = path if (path / MODEL_NAME).is_file() else path / str(next_version(path) - 1)
    if not (newest / MODEL_NAME).is_file():
        raise ValueError(f"The model must be an exported version or a folder of versions. Received: {path}.")
    return newest


def read_ensemble_json(path: Path) -> dict[str, Any]:
    """Reads a version's `ensemble.json`.

    Raises:
        ValueError: there is none, or it is not JSON.
    """
    file = path / EXTRA / DESCRIPTION_NAME
    if not file.is_file():
        raise ValueError(f"A bundle must hold {EXTRA}/{DESCRIPTION_NAME}. Received: {path} without.")
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def model_inputs(studies: Sequence[Mapping[Plane, bytes]]) -> dict[str, list[bytes]]:
    """Returns the signature's inputs for studies: serialized Examples by plane, b"" for a missing plane."""
    return {plane.value: [study.get(plane, b"") for study in studies] for plane in Plane}


@contextmanager
def _without_gradients() -> Iterator[None]:
    """Loads a bundle without TensorFlow's warning, once a network, that it has no gradients to train with."""
    logger = logging.getLogger("absl")

    def is_wanted(record: logging.LogRecord) -> bool:
        return "unsaved custom gradients" not in record.getMessage()

    logger.addFilter(is_wanted)
    try:
        yield
    finally:
        logger.removeFilter(is_wanted)


class ServedEnsemble:
    """A SavedModel on disk, asked through its signatures.

    Attributes:
        path: the version's folder.
        version: its number.
    """

    def __init__(self, path: Path) -> None:
        """Loads a version's folder, or the newest version in a folder of versions.

        Nothing is checked here; `self_test.open_bundle` does.

        Raises:
            ValueError: there is no SavedModel.
        """
        self.path = find_version(path)
        self.version = self.path.name
        with _without_gradients():
            self._loaded = tf.saved_model.load(str(self.path))
        self._serve = self._loaded.signatures[SIGNATURE]
        self._explain = self._loaded.signatures.get(EXPLAIN)

    @cached_property
    def description(self) -> Mapping[str, Any]:
        """Its `ensemble.json`."""
        return read_ensemble_json(self.path)

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the members, the second axis of the output `members`."""
        return tuple(self.description["members"])

    @property
    def has_saliency(self) -> bool:
        """Whether it says where its answers came from."""
        return self._explain is not None

    def answer(
        self, studies: Sequence[Mapping[Plane, bytes]], *, explained: bool = False
    ) -> dict[str, tf.Tensor]:
        """Grades studies.

        Args:
            studies: each study's serialized Examples by plane; a plane left out is missing.
            explained: with saliency, where the bundle gives it.

        Returns:
            The signature's outputs; see `ServableEnsemble.serve` and `explain`.
        """
        return self.answer_inputs(model_inputs(studies), explained=explained)

    def answer_inputs(self, inputs: Mapping[str, Any], *, explained: bool = False) -> dict[str, tf.Tensor]:
        """Grades studies that are laid out as the signatures take them; see `model_inputs`."""
        # One or the other: TensorFlow plans a signature when it is first asked, which takes seconds.
        ask = self._explain if explained and self._explain is not None else self._serve
        outputs: dict[str, tf.Tensor] = ask(
            **{name: tf.constant(values, tf.string) for name, values in inputs.items()}
        )
        return outputs
