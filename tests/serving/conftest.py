"""Stand-ins for TensorFlow Serving, over both protocols."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from lumbar_tf.retry import RetryPolicy
from lumbar_tf.serving.connection import ConnectionOptions, ServerProtocol, parse_address
from lumbar_tf.serving.remote import RemoteEnsemble, connect
from lumbar_tf.serving.transport import ModelChoice
from tests.serving.stand_in_grpc import GrpcStandIn, serve_grpc
from tests.serving.stand_in_rest import RestStandIn, serve_rest

StandIn = GrpcStandIn | RestStandIn
#: Short waits: nobody else asks these servers.
POLICY = RetryPolicy(attempts=8, first_wait_s=0.01, max_wait_s=0.1)


@pytest.fixture(params=list(ServerProtocol), ids=lambda wire: wire.name.lower())
def wire(request: pytest.FixtureRequest) -> ServerProtocol:
    """Each protocol in turn."""
    return request.param


@pytest.fixture
def start(wire: ServerProtocol) -> Iterator[Callable[..., StandIn]]:
    """Starts a stand-in: `start(model, plan=..., stall_s=...)`."""
    with ExitStack() as stack:

        def begin(model: Any, **options: Any) -> StandIn:
            if wire is ServerProtocol.GRPC:
                return stack.enter_context(serve_grpc(GrpcStandIn(model, **options), has_proxy=True))
            return stack.enter_context(serve_rest(RestStandIn(model, **options)))

        yield begin


@pytest.fixture
def reach(wire: ServerProtocol) -> Iterator[Callable[..., RemoteEnsemble]]:
    """Connects to a stand-in: `reach(stand_in, deadline_s=...)`."""
    with ExitStack() as stack:

        def open_remote(
            stand_in: StandIn,
            *,
            choice: ModelChoice | None = None,
            policy: RetryPolicy = POLICY,
            path: str = "",
            **options: Any,
        ) -> RemoteEnsemble:
            scheme = "http" if wire is ServerProtocol.REST else "grpc"
            address = parse_address(f"{scheme}://127.0.0.1:{stand_in.client_port}{path}")
            remote = connect(ConnectionOptions(address, **options), choice or ModelChoice("lumbar"), policy)
            stack.callback(remote.close)
            return remote

        yield open_remote
