"""What a client may rely on: an exported ensemble's signatures, their arrays, and its description."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.labels import FINDINGS, NUM_FINDINGS, NUM_SEVERITIES, Flag, Plane, Severity
from lumbar_tf.records.schema import SCHEMA_VERSION
from lumbar_tf.serving.transport import ModelMetadata, Signature

#: Grades studies.
GRADE = "serving_default"
#: Tells what the ensemble is made of, as `assets.extra/ensemble.json` does: a server hands out no files.
DESCRIBE = "describe"
#: Grades studies and says where in their pictures the answers came from; not every export has it.
EXPLAIN = "saliency"

_ANY = -1
#: As many as there are members.
_MEMBERS = -2
_REQUIRED: dict[str, tuple[str, tuple[int, ...]]] = {
    "probability": ("DT_FLOAT", (NUM_FINDINGS, NUM_SEVERITIES)),
    "competition": ("DT_FLOAT", (NUM_FINDINGS, NUM_SEVERITIES)),
    "members": ("DT_FLOAT", (_MEMBERS, NUM_FINDINGS, NUM_SEVERITIES)),
    "landmarks": ("DT_FLOAT", (NUM_FINDINGS, 3)),
    "flags": ("DT_BOOL", (NUM_FINDINGS, len(Flag))),
}
#: Bundles had none of these at first: checked where they are there.
_OPTIONAL: dict[str, tuple[str, tuple[int, ...]]] = {
    "interval": ("DT_FLOAT", (NUM_FINDINGS, NUM_SEVERITIES, 2)),
}
#: Only of `EXPLAIN`: looks, slices and cells are the export's own.
_EXPLAINED: dict[str, tuple[str, tuple[int, ...]]] = {
    "saliency": ("DT_FLOAT", (_MEMBERS, NUM_FINDINGS, _ANY, _ANY, _ANY, _ANY)),
    "weight": ("DT_FLOAT", (_MEMBERS, NUM_FINDINGS)),
}
_HEADS = ("probability", "competition")
#: float32 sums of three numbers are closer to 1 than this.
_SUM_TOLERANCE = 1e-4
#: Bounds come back from log-odds: in float32 they may lie this far on the wrong side of the probability.
BOUND_TOLERANCE = 1e-5


def find_signature(model: ModelMetadata) -> Signature:
    """Returns the signature that grades studies.

    Raises:
        ValueError: the model has no such signature, or one that takes or gives something else.
    """
    signature = model.signatures.get(GRADE)
    if signature is None:
        raise ValueError(f"the model must have the signature {GRADE}. Received: {sorted(model.signatures)}.")
    _check_signature(GRADE, signature, _REQUIRED)
    return signature


def find_explaining(model: ModelMetadata) -> Signature | None:
    """Returns the signature that grades and explains; None of an export that has none.

    Raises:
        ValueError: it takes or gives something else.
    """
    signature = model.signatures.get(EXPLAIN)
    if signature is not None:
        _check_signature(EXPLAIN, signature, {**_REQUIRED, **_EXPLAINED})
    return signature


def _check_signature(
    title: str, signature: Signature, required: Mapping[str, tuple[str, tuple[int, ...]]]
) -> None:
    inputs = {plane.value: "DT_STRING" for plane in Plane}
    if dict(signature.inputs) != inputs:
        raise ValueError(f"{title} must take {inputs}. Received: {dict(signature.inputs)}.")
    outputs = {name: signature.outputs.get(name) for name in required}
    expected = {name: dtype for name, (dtype, _) in required.items()}
    if outputs != expected:
        raise ValueError(f"{title} must give {expected}. Received: {dict(signature.outputs)}.")
    for name, (dtype, _) in _OPTIONAL.items():
        if signature.outputs.get(name, dtype) != dtype:
            raise ValueError(f"{title} must give {name} as {dtype}. Received: {signature.outputs[name]}.")


def check_answer(
    outputs: Mapping[str, NDArray[np.generic]], *, num_studies: int, num_members: int | None = None
) -> None:
    """Refuses what is no answer to a question, before it becomes a finding.

    Args:
        outputs: by name; those that are not known here must only have a row for each study.
        num_studies: how many were asked for.
        num_members: how many the ensemble has; None where it does not tell.

    Raises:
        ValueError: an output is missing, of another shape, or no probability.
    """
    present = {name: each for name, each in {**_OPTIONAL, **_EXPLAINED}.items() if name in outputs}
    for name, (_, sizes) in {**_REQUIRED, **present}.items():
        shape = tuple((num_members or _ANY) if each == _MEMBERS else each for each in sizes)
        if name not in outputs:
            raise ValueError(f"the output {name} is missing. Received: {sorted(outputs)}.")
        wanted, given = (num_studies, *shape), outputs[name].shape
        if len(given) != len(wanted) or any(
            each not in (size, _ANY) for size, each in zip(given, wanted, strict=True)
        ):
            raise ValueError(f"the output {name} must be of shape {list(wanted)}. Received: {list(given)}.")
    for name, values in outputs.items():
        if values.shape[:1] != (num_studies,):
            raise ValueError(
                f"the output {name} must have {num_studies} rows. Received the shape {list(values.shape)}."
            )
    for name in _HEADS:
        numbers: NDArray[np.float64] = outputs[name].astype(np.float64)
        # Written so that NaN fails it.
        if not (np.all(numbers >= 0) and np.all(np.abs(numbers.sum(axis=-1) - 1) < _SUM_TOLERANCE)):
            raise ValueError(f"the output {name} must hold probabilities that sum to 1.")
    if "interval" in outputs:
        bounds = outputs["interval"].astype(np.float64)
        is_around = are_around(bounds, outputs["probability"].astype(np.float64))
        if not np.all(np.isnan(bounds).all(axis=-1) | is_around):
            raise ValueError(
                "the output interval must hold bounds around the output probability, or none (NaN)."
            )
    if "saliency" in outputs and not is_map(outputs["saliency"].astype(np.float64)):
        raise ValueError("the output saliency must hold finite numbers of at least 0, or none (NaN).")


def are_around(bounds: NDArray[np.float64], probability: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tells which bounds, [..., 2], lie around their probability, [...], and are probabilities themselves."""
    low, high = np.moveaxis(bounds, -1, 0)
    is_bounded = (low >= 0) & (high <= 1)
    is_inside = (low <= probability + BOUND_TOLERANCE) & (probability <= high + BOUND_TOLERANCE)
    return np.asarray(is_bounded & is_inside, np.bool_)


def is_map(values: NDArray[np.float64]) -> bool:
    """Tells whether numbers may be saliency: finite and at least 0, but for NaN."""
    return bool(np.all(np.isnan(values) | ((values >= 0) & np.isfinite(values))))


def parse_description(text: str) -> dict[str, Any]:
    """Reads what `DESCRIBE` answers and checks that its arrays are laid out as here.

    Raises:
        ValueError: it is not JSON, or another version's layout.
    """
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError("the description must be a JSON object.")
    layout = {
        "findings": [finding.name for finding in FINDINGS],
        "severities": [severity.column for severity in Severity],
        "flags": [flag.value for flag in Flag],
    }
    for name, expected in layout.items():
        if content.get(name) != expected:
            raise ValueError(f"its {name} must be {expected}. Received: {content.get(name)}.")
    served = str(content.get("record_schema_version"))
    # A new major version changes what a record's bytes mean.
    if served.partition(".")[0] != SCHEMA_VERSION.partition(".")[0]:
        raise ValueError(f"it must read records of schema {SCHEMA_VERSION}. Received: {served}.")
    members = content.get("members")
    if not isinstance(members, list) or not all(isinstance(each, str) for each in members):
        raise ValueError(f"its members must be a list of names. Received: {members!r}.")
    return content
