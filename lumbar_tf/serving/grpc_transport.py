"""Client of TensorFlow Serving's PredictionService over gRPC."""

from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    model_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from lumbar_tf.serving.connection import ConnectionOptions
from lumbar_tf.serving.tensors import read_tensor
from lumbar_tf.serving.transport import (
    DTYPES,
    ModelChoice,
    ModelMetadata,
    ServingError,
    ServingFailure,
    Signature,
    check_request_size,
)

_FAILURES = {
    grpc.StatusCode.UNAVAILABLE: ServingFailure.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: ServingFailure.DEADLINE,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ServingFailure.OVERLOADED,
}
#: The model rejected the input, or the computation failed.
_INPUT_STATUSES = frozenset(
    {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}
)
#: Message texts of grpcio (observed with 1.85) where the status alone is ambiguous.
_MESSAGES = (
    # A certificate stays as bad as it is.
    (grpc.StatusCode.UNAVAILABLE, "CERTIFICATE_VERIFY_FAILED", ServingFailure.REFUSED),
    (grpc.StatusCode.UNAVAILABLE, "Hostname Verification Check failed", ServingFailure.REFUSED),
    (grpc.StatusCode.UNAVAILABLE, "is not in peer certificate", ServingFailure.REFUSED),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "message larger than max", ServingFailure.TOO_LARGE),
    (grpc.StatusCode.INTERNAL, "Exception deserializing response", ServingFailure.MALFORMED),
    # The connection broke during a request.
    (grpc.StatusCode.INTERNAL, "RST_STREAM", ServingFailure.UNAVAILABLE),
    (grpc.StatusCode.UNKNOWN, "Stream removed", ServingFailure.UNAVAILABLE),
)
_METADATA_FIELD = "signature_def"


class GrpcTransport:
    """A channel to a server; implements `transport.Transport`."""

    def __init__(self, options: ConnectionOptions) -> None:
        """Creates the channel, which connects on the first request."""
        self._options = options
        arguments = [
            # The default limit of responses is 4 MiB.
            ("grpc.max_send_message_length", options.max_request_bytes),
            ("grpc.max_receive_message_length", options.max_response_bytes),
            # Retries are made by `lumbar_tf.retry`; two layers of them would multiply.
            ("grpc.enable_retries", 0),
            # Reconnects quickly, so that a restarted server is found before the attempts are used up.
            # `min_reconnect_backoff_ms` must not be set: it also limits the time of connecting, and a distant
            # server would never be reached.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2000),
        ]
        compression = grpc.Compression.Gzip if options.has_gzip else grpc.Compression.NoCompression
        target = options.address.target
        if options.address.is_secure:
            credentials = _credentials(options)
            self._channel = grpc.secure_channel(target, credentials, arguments, compression)
        else:
            self._channel = grpc.insecure_channel(target, arguments, compression)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def read_model(self, choice: ModelChoice) -> ModelMetadata:
        """See `transport.Transport.read_model`."""
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=_model_spec(choice), metadata_field=[_METADATA_FIELD]
        )
        response = self._call(self._stub.GetModelMetadata, request)
        found = get_model_metadata_pb2.SignatureDefMap()
        try:
            if not response.metadata[_METADATA_FIELD].Unpack(found):
                raise ValueError("it holds no signatures")
            return ModelMetadata(
                version=response.model_spec.version.value,
                signatures={
                    name: Signature(_types(definition.inputs), _types(definition.outputs))
                    for name, definition in found.signature_def.items()
                },
            )
        except (DecodeError, ValueError) as error:
            raise self._malformed(f"The metadata cannot be read: {error}") from error

    def predict(
        self, choice: ModelChoice, name: str, signature: Signature, inputs: Mapping[str, Sequence[bytes]]
    ) -> dict[str, NDArray[np.generic]]:
        """See `transport.Transport.predict`."""
        request = predict_pb2.PredictRequest(model_spec=_model_spec(choice, signature=name))
        check_request_size(self._options, sum(len(value) for values in inputs.values() for value in values))
        for key, values in inputs.items():
            tensor = request.inputs[key]
            tensor.dtype = types_pb2.DT_STRING
            tensor.tensor_shape.dim.add().size = len(values)
            tensor.string_val.extend(values)
        response = self._call(self._stub.Predict, request)
        try:
            return {
                key: _read_output(tensor, signature.outputs[key])
                for key, tensor in response.outputs.items()
                if key in signature.outputs
            }
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise self._malformed(f"An output cannot be read: {error}") from error

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()

    def _call(self, method: Any, request: Any) -> Any:
        try:
            return method(request, timeout=self._options.deadline_s)
        except grpc.RpcError as error:
            code, message = error.code(), error.details() or ""
            raise ServingError(
                _classify(code, message),
                f"{code.name}: {message}",
                address=str(self._options.address),
                may_be_companions=code in _INPUT_STATUSES,
            ) from error

    def _malformed(self, details: str) -> ServingError:
        return ServingError(ServingFailure.MALFORMED, details, address=str(self._options.address))


def _read_output(tensor: Any, dtype: str) -> NDArray[np.generic]:
    received = types_pb2.DataType.Name(tensor.dtype)
    if received != dtype:
        raise ValueError(f"its type must be {dtype}. Received: {received}.")
    return np.asarray(read_tensor(tensor), DTYPES[dtype])


def _classify(code: Any, message: str) -> ServingFailure:
    for status, text, failure in _MESSAGES:
        if code is status and text in message:
            return failure
    return _FAILURES.get(code, ServingFailure.REFUSED)


def _credentials(options: ConnectionOptions) -> Any:
    tls = options.tls
    files = [path.read_bytes() if path else None for path in (tls.ca, tls.key, tls.cert)]
    return grpc.ssl_channel_credentials(*files)


def _model_spec(choice: ModelChoice, *, signature: str = "") -> Any:
    spec = model_pb2.ModelSpec(name=choice.name, signature_name=signature)
    if choice.version is not None:
        spec.version.value = choice.version
    elif choice.label is not None:
        spec.version_label = choice.label
    return spec


def _types(tensors: Mapping[str, Any]) -> dict[str, str]:
    return {name: types_pb2.DataType.Name(info.dtype) for name, info in tensors.items()}
