"""What a stand-in for TensorFlow Serving answers with: an export that runs here, or numbers made of bytes."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import get_model_metadata_pb2

from lumbar_tf.labels import FINDINGS, Flag, Plane, Severity
from lumbar_tf.records.schema import SCHEMA_VERSION

Outputs = dict[str, np.ndarray]
Types = dict[str, Any]


@dataclass(frozen=True)
class Signature:
    """TensorFlow's types by name."""

    inputs: Types
    outputs: Types


class Model(Protocol):
    """A model with signatures; `run` takes strings [study] by name."""

    version: int
    signatures: Mapping[str, Signature]

    def run(self, signature: str, inputs: Mapping[str, Sequence[bytes]]) -> Outputs: ...


class SavedModel:
    """An export, loaded and run in this process."""

    def __init__(self, path: Path) -> None:
        self._loaded = tf.saved_model.load(str(path))
        self.version = int(path.name)
        self.signatures = {
            name: Signature(
                {key: spec.dtype for key, spec in function.structured_input_signature[1].items()},
                {key: spec.dtype for key, spec in function.structured_outputs.items()},
            )
            for name, function in self._loaded.signatures.items()
        }

    def run(self, signature: str, inputs: Mapping[str, Sequence[bytes]]) -> Outputs:
        tensors = {name: tf.constant(list(values), tf.string) for name, values in inputs.items()}
        return {name: value.numpy() for name, value in self._loaded.signatures[signature](**tensors).items()}


class FakeModel:
    """The ensemble's signatures, and answers that are as good as a digest of the question."""

    version = 7
    members = ("axial_t2/one", "sagittal_t2/two")

    def __init__(self, *, has_saliency: bool = False, **changes: Any) -> None:
        """Takes changes to its description, and whether it has the signature that explains."""
        self.signatures = {
            "serving_default": Signature(
                {plane.value: tf.string for plane in Plane},
                {
                    **dict.fromkeys(
                        ("probability", "competition", "interval", "members", "landmarks"), tf.float32
                    ),
                    "prediction_set": tf.bool,
                    "flags": tf.bool,
                },
            ),
            "describe": Signature({"study": tf.string}, {"description": tf.string}),
        }
        if has_saliency:
            grade = self.signatures["serving_default"]
            explained = {**grade.outputs, **dict.fromkeys(("saliency", "weight"), tf.float32)}
            self.signatures["saliency"] = Signature(grade.inputs, explained)
        self.description = {
            "members": list(self.members),
            "findings": [finding.name for finding in FINDINGS],
            "severities": [severity.column for severity in Severity],
            "flags": [flag.value for flag in Flag],
            "record_schema_version": SCHEMA_VERSION,
            "prediction_set_coverage": 0.9,
            **changes,
        }

    def run(self, signature: str, inputs: Mapping[str, Sequence[bytes]]) -> Outputs:
        if signature == "describe":
            text = json.dumps(self.description).encode()
            return {"description": np.array([text] * len(inputs["study"]), np.object_)}
        studies = zip(*(inputs[plane.value] for plane in Plane), strict=True)
        rows = [self.answer(*study) for study in studies]
        if signature == "saliency":
            rows = [{**row, **self.explain(row)} for row in rows]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def answer(self, *examples: bytes) -> Outputs:
        """Returns what one study is answered with; NaN and infinitesimal numbers among it."""
        seed = int.from_bytes(hashlib.sha256(b"|".join(examples)).digest()[:8], "big")
        rng = np.random.default_rng(seed)
        landmarks = rng.normal(0, 80, (25, 3)).astype(np.float32)
        landmarks[seed % 25] = np.nan
        probability = rng.dirichlet((0.05, 0.1, 0.1), 25).astype(np.float32)
        interval = np.stack([probability * 0.5, probability * 0.5 + 0.5], axis=-1)
        interval[seed % 24] = np.nan
        return {
            "probability": probability,
            "interval": interval,
            "prediction_set": probability >= np.array([0.5, 0.0, 0.3], np.float32),
            "competition": rng.dirichlet((1, 1, 1), 25).astype(np.float32),
            "members": rng.dirichlet((1, 1, 1), (len(self.members), 25)).astype(np.float32),
            "landmarks": landmarks,
            "flags": rng.random((25, len(Flag))) < 0.1,
        }

    def explain(self, row: Outputs) -> Outputs:
        """Returns maps that are made of the answer's own numbers, without some."""
        maps = np.repeat(row["members"][:, :, :1], 2 * 3 * 4 * 4, axis=-1).reshape(-1, 25, 2, 3, 4, 4).copy()
        maps[:, ::2, 1] = np.nan
        return {"saliency": maps, "weight": row["members"][..., 2]}


def signature_map(model: Model) -> get_model_metadata_pb2.SignatureDefMap:
    """Returns a model's signatures as the server's message."""

    def tensors(types: Types) -> dict[str, meta_graph_pb2.TensorInfo]:
        return {
            name: meta_graph_pb2.TensorInfo(name=f"{name}:0", dtype=dtype.as_datatype_enum)
            for name, dtype in types.items()
        }

    found = get_model_metadata_pb2.SignatureDefMap()
    for name, definition in model.signatures.items():
        found.signature_def[name].CopyFrom(
            meta_graph_pb2.SignatureDef(
                inputs=tensors(definition.inputs),
                outputs=tensors(definition.outputs),
                method_name="tensorflow/serving/predict",
            )
        )
    return found
