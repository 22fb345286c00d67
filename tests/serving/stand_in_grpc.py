"""A stand-in for TensorFlow Serving's gRPC side, built on tensorflow-serving-api's own service."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tests.serving.faults import Attempts, Fault, Plan, Proxy, no_faults
from tests.serving.stand_in_models import Model, signature_map

#: TF Serving's own: builder.SetMaxMessageSize(tensorflow::kint32max).
_MAX_BYTES = 2**31 - 1


@dataclass(eq=False)
class GrpcStandIn(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answers for one model.

    Attributes:
        model: it.
        plan: what goes wrong.
        stall_s: how long a TIMEOUT takes.
        oversize: bytes of an OVERSIZED answer.
        name: the model's name.
        labels: versions by label.
        attempts: what was asked.
        port: where it listens.
    """

    model: Model
    plan: Plan = no_faults
    stall_s: float = 2.0
    oversize: int = 1 << 20
    name: str = "lumbar"
    labels: dict[str, int] = field(default_factory=dict)
    attempts: Attempts = field(default_factory=Attempts)
    port: int = 0
    proxy: Proxy | None = None

    @property
    def client_port(self) -> int:
        """The proxy's, where connections may be cut."""
        return self.proxy.port if self.proxy else self.port

    def GetModelMetadata(self, request: Any, context: Any) -> Any:
        self._find(request.model_spec, context)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = self.name
        response.model_spec.version.value = self.model.version
        response.metadata["signature_def"].Pack(signature_map(self.model))
        return response

    def Predict(self, request: Any, context: Any) -> Any:
        spec = request.model_spec
        self._find(spec, context)
        inputs = {name: list(tensor.string_val) for name, tensor in request.inputs.items()}
        fault = Fault.NONE
        if spec.signature_name != "describe":
            study = b"|".join(values[0] for _, values in sorted(inputs.items()))
            fault = self.plan(study, self.attempts.next(study))
        self._fail(fault, context)
        response = predict_pb2.PredictResponse()
        for name, value in self.model.run(spec.signature_name, inputs).items():
            # As the server does with Tensor::AsProtoTensorContent or AsProtoField.
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        if fault is Fault.OVERSIZED:
            response.outputs["landmarks"].tensor_content += b"\0" * self.oversize
        if fault is Fault.TRUNCATED:
            tensor = response.outputs["probability"]
            tensor.tensor_content = tensor.tensor_content[: len(tensor.tensor_content) // 2]
        response.model_spec.name = self.name
        response.model_spec.version.value = self.model.version
        return response

    def _find(self, spec: Any, context: Any) -> None:
        version = self.labels.get(spec.version_label) if spec.version_label else self.model.version
        if spec.HasField("version"):
            version = spec.version.value
        if spec.name != self.name or version != self.model.version:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {spec.name}")

    def _fail(self, fault: Fault, context: Any) -> None:
        if fault is Fault.UNAVAILABLE:
            context.abort(grpc.StatusCode.UNAVAILABLE, "The batch scheduling queue is full")
        if fault is Fault.EXHAUSTED:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "OOM when allocating tensor")
        if fault is Fault.REFUSED:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Could not parse example input")
        if fault is Fault.TIMEOUT:
            time.sleep(self.stall_s)
        if fault is Fault.RESET and self.proxy:
            self.proxy.cut()


@contextmanager
def serve_grpc(
    stand_in: GrpcStandIn, *, credentials: Any = None, has_proxy: bool = False
) -> Iterator[GrpcStandIn]:
    """Listens on a port of this machine for as long as the block runs."""
    server = grpc.server(
        ThreadPoolExecutor(16),
        options=[
            ("grpc.max_receive_message_length", _MAX_BYTES),
            ("grpc.max_send_message_length", _MAX_BYTES),
        ],
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(stand_in, server)
    address = "127.0.0.1:0"
    stand_in.port = (
        server.add_insecure_port(address)
        if credentials is None
        else server.add_secure_port(address, credentials)
    )
    server.start()
    stand_in.proxy = Proxy(stand_in.port) if has_proxy else None
    try:
        yield stand_in
    finally:
        if stand_in.proxy:
            stand_in.proxy.close()
        server.stop(None).wait()
