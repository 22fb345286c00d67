"""An ensemble to ask: loaded here, or behind a server."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lumbar_tf.serving.retry import RetryPolicy
from lumbar_tf.serving.transport import ConnectionOptions, ModelChoice

if TYPE_CHECKING:
    from lumbar_tf.bundle.served_ensemble import ServedEnsemble
    from lumbar_tf.serving.remote import RemoteEnsemble


@dataclass(frozen=True)
class ServerTarget:
    """A model behind a server.

    Attributes:
        connection: the server.
        choice: which of its models.
        policy: how often it is asked.
    """

    connection: ConnectionOptions
    choice: ModelChoice
    policy: RetryPolicy


@contextmanager
def connect_ensemble(
    source: Path | ServerTarget, *, explained: bool = False
) -> Iterator[tuple["ServedEnsemble | RemoteEnsemble", Any]]:
    """Loads a model or connects to a server; yields it and what it is called.

    Args:
        source: an exported version or the folder of versions, or a server of one.
        explained: whether saliency will be asked for, see `self_test.open_bundle`.

    Raises:
        ValueError: the model fails its self-test, or the server does not answer.
    """
    if isinstance(source, Path):
        # Loads TensorFlow, which a client of a REST server does without.
        from lumbar_tf.bundle.self_test import load_bundle

        loaded = load_bundle(source, explained=explained)
        yield loaded, loaded.path
        return
    from lumbar_tf.serving.remote import connect

    remote = connect(source.connection, source.choice, source.policy)
    try:
        yield remote, remote.source
    finally:
        remote.close()
