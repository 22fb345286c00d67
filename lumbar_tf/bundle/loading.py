"""Exported ensembles ready for prediction, loaded here or behind a server."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lumbar_tf.labels import Plane
from lumbar_tf.models.bundle_folder import find_version, read_ensemble_json
from lumbar_tf.retry import RetryPolicy
from lumbar_tf.serving.connection import ConnectionOptions
from lumbar_tf.serving.contract import GRADE, SALIENCY
from lumbar_tf.serving.training_data import TrainingData, parse_training
from lumbar_tf.serving.transport import ModelChoice

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lumbar_tf.serving.remote import RemoteEnsemble


def raise_faults(path: Path, faults: Sequence[str]) -> None:
    """Raises `ValueError` with all faults of a bundle, if there are any."""
    if faults:
        raise ValueError(f"A bundle must pass its self-test. Received: {path}: {'; '.join(faults)}.")


def model_inputs(studies: Sequence[Mapping[Plane, bytes]]) -> dict[str, list[bytes]]:
    """Returns the inputs of the signatures for studies: serialized Examples by plane, b"" where missing."""
    return {plane.value: [study.get(plane, b"") for study in studies] for plane in Plane}


class ServedEnsemble:
    """A SavedModel on disk, called through its signatures; safe to call from several threads.

    Attributes:
        path: the version's folder.
        version: its number.
    """

    def __init__(self, path: Path) -> None:
        """Loads a version's folder, or the newest version in a folder of versions, without the self-test.

        Use `self_test.load_bundle` to load a bundle for predictions.

        Raises:
            ValueError: there is no SavedModel, or its graph holds something that a bundle must not have.
        """
        # Imported here because clients of a REST server do without TensorFlow.
        from lumbar_tf.bundle.servable_check import find_faults
        from lumbar_tf.bundle.served_graph import ServedGraph

        self.path = find_version(path)
        self.version = self.path.name
        # Loading runs the function that restores the variables.
        raise_faults(self.path, find_faults(self.path))
        self._graph = ServedGraph(self.path)

    @cached_property
    def description(self) -> Mapping[str, Any]:
        """Its `ensemble.json`."""
        return read_ensemble_json(self.path)

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the members, the second axis of the output `members`."""
        return tuple(self.description["members"])

    @property
    def training(self) -> TrainingData:
        """The studies that it was trained on; undocumented for old bundles."""
        return parse_training(self.description)

    @property
    def has_saliency(self) -> bool:
        """Whether the export has the signature with saliency."""
        return SALIENCY in self._graph.signatures

    def predict(
        self, studies: Sequence[Mapping[Plane, bytes]], *, with_saliency: bool = False
    ) -> "dict[str, NDArray[Any]]":
        """Grades studies.

        Args:
            studies: serialized Examples of each study by plane; a plane that is left out is missing.
            with_saliency: return saliency as well, if the export has it.

        Returns:
            The outputs of the signature; see `ServableEnsemble.serve` and `serve_with_saliency`.
        """
        return self.predict_inputs(model_inputs(studies), with_saliency=with_saliency)

    def predict_inputs(
        self, inputs: Mapping[str, Any], *, with_saliency: bool = False
    ) -> "dict[str, NDArray[Any]]":
        """Grades studies that have the layout of the signatures' inputs; see `model_inputs`."""
        # Never both: TensorFlow optimizes a signature on its first call, which takes seconds.
        signature = SALIENCY if with_saliency and self.has_saliency else GRADE
        return self._graph.run(signature, inputs)


@dataclass(frozen=True)
class ServerTarget:
    """A model on a server.

    Attributes:
        connection: address and options of the server.
        choice: model and version.
        policy: retries of failed requests.
    """

    connection: ConnectionOptions
    choice: ModelChoice
    policy: RetryPolicy


@contextmanager
def connect_ensemble(
    source: Path | ServerTarget,
    *,
    with_saliency: bool = False,
    require_signature: Path | None = None,
    force_self_test: bool = False,
) -> "Iterator[tuple[ServedEnsemble | RemoteEnsemble, Any]]":
    """Loads a bundle or connects to a server; yields the ensemble and its path or address for messages.

    Args:
        source: an exported version, a folder of versions, or a model on a server.
        with_saliency: whether predictions will request saliency; see `self_test.load_bundle`.
        require_signature: public key of a bundle, likewise.
        force_self_test: likewise; ignored for a model on a server.

    Raises:
        ValueError: the bundle fails its self-test, the server does not respond, or a signature is required of
            a model on a server.
    """
    if isinstance(source, Path):
        from lumbar_tf.bundle.tensorflow_import import import_tensorflow

        # First, because the next import would import TensorFlow with Keras.
        import_tensorflow()
        from lumbar_tf.bundle.self_test import load_bundle

        loaded = load_bundle(
            source,
            with_saliency=with_saliency,
            require_signature=require_signature,
            force_self_test=force_self_test,
        )
        yield loaded, loaded.path
        return
    if require_signature is not None:
        raise ValueError(
            "`require_signature` must come with a bundle: the files of a model on a server cannot be read. "
            f"Received: {source.connection.address}."
        )
    from lumbar_tf.serving.remote import connect

    remote = connect(source.connection, source.choice, source.policy)
    try:
        yield remote, remote.source
    finally:
        remote.close()
