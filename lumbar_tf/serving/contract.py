"""Interface of an exported ensemble: signatures, shapes of their arrays, and description."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.labels import FINDINGS, NUM_FINDINGS, NUM_SEVERITIES, Flag, Plane, Severity
from lumbar_tf.records.schema import SCHEMA_VERSION
from lumbar_tf.serving.training_data import parse_training
from lumbar_tf.serving.transport import ModelMetadata, Signature

#: Grades studies.
GRADE = "serving_default"
#: Returns the ensemble's description, as in `assets.extra/ensemble.json`: a server provides no files.
DESCRIBE = "describe"
#: Grades studies and maps the image regions behind the grades; optional at export.
SALIENCY = "saliency"

#: Key of the description: probability that a prediction set contains the reader's grade; null without sets.
COVERAGE_KEY = "prediction_set_coverage"

_MAX_MEMBERS = 1000
_MAX_NAME_CHARACTERS = 200
_ANY = -1
#: The number of members.
_MEMBERS = -2
_REQUIRED: dict[str, tuple[str, tuple[int, ...]]] = {
    "probability": ("DT_FLOAT", (NUM_FINDINGS, NUM_SEVERITIES)),
    "competition": ("DT_FLOAT", (NUM_FINDINGS, NUM_SEVERITIES)),
    "members": ("DT_FLOAT", (_MEMBERS, NUM_FINDINGS, NUM_SEVERITIES)),
    "landmarks": ("DT_FLOAT", (NUM_FINDINGS, 3)),
    "flags": ("DT_BOOL", (NUM_FINDINGS, len(Flag))),
}
#: Absent from old bundles; checked where present.
_OPTIONAL: dict[str, tuple[str, tuple[int, ...]]] = {
    "interval": ("DT_FLOAT", (NUM_FINDINGS, NUM_SEVERITIES, 2)),
    "prediction_set": ("DT_BOOL", (NUM_FINDINGS, NUM_SEVERITIES)),
}
#: Outputs of `SALIENCY` only; the numbers of views, slices and cells depend on the export.
_SALIENCY_OUTPUTS: dict[str, tuple[str, tuple[int, ...]]] = {
    "saliency": ("DT_FLOAT", (_MEMBERS, NUM_FINDINGS, _ANY, _ANY, _ANY, _ANY)),
    "weight": ("DT_FLOAT", (_MEMBERS, NUM_FINDINGS)),
}
_HEADS = ("probability", "competition")
#: No scanner's coordinates are larger, mm.
_FARTHEST_MM = 1.0e5
#: Rounding error of the sum of three float32 probabilities.
_SUM_TOLERANCE = 1e-4
#: Rounding error of bounds that are computed from log-odds in float32.
BOUND_TOLERANCE = 1e-5


def find_grading_signature(model: ModelMetadata) -> Signature:
    """Returns the signature that grades studies.

    Raises:
        ValueError: the model has no such signature, or one with other inputs or outputs.
    """
    signature = model.signatures.get(GRADE)
    if signature is None:
        raise ValueError(f"the model must have the signature {GRADE}. Received: {sorted(model.signatures)}.")
    _check_signature(GRADE, signature, _REQUIRED)
    return signature


def find_saliency_signature(model: ModelMetadata) -> Signature | None:
    """Returns the signature that grades studies with saliency; None if the export has none.

    Raises:
        ValueError: the signature has other inputs or outputs.
    """
    signature = model.signatures.get(SALIENCY)
    if signature is not None:
        _check_signature(SALIENCY, signature, {**_REQUIRED, **_SALIENCY_OUTPUTS})
    return signature


def _check_signature(
    title: str, signature: Signature, required: Mapping[str, tuple[str, tuple[int, ...]]]
) -> None:
    inputs = {plane.value: "DT_STRING" for plane in Plane}
    if dict(signature.inputs) != inputs:
        raise ValueError(f"{title} must have the inputs {inputs}. Received: {dict(signature.inputs)}.")
    outputs = {name: signature.outputs.get(name) for name in required}
    expected = {name: dtype for name, (dtype, _) in required.items()}
    if outputs != expected:
        raise ValueError(f"{title} must have the outputs {expected}. Received: {dict(signature.outputs)}.")
    for name, (dtype, _) in _OPTIONAL.items():
        if signature.outputs.get(name, dtype) != dtype:
            raise ValueError(f"{title} must return {name} as {dtype}. Received: {signature.outputs[name]}.")


def check_outputs(
    outputs: Mapping[str, NDArray[np.generic]], *, num_studies: int, num_members: int | None = None
) -> None:
    """Checks the outputs of a grading signature before they become findings.

    Args:
        outputs: by name; unknown ones only need a row per study.
        num_studies: number of studies in the request.
        num_members: number of members of the ensemble; None where it is unknown.

    Raises:
        ValueError: an output is missing, has a wrong shape, or does not hold valid values.
    """
    _check_shapes(outputs, num_studies, num_members)
    for name in _HEADS:
        numbers: NDArray[np.float64] = outputs[name].astype(np.float64)
        # NaN fails both comparisons.
        if not (np.all(numbers >= 0) and np.all(np.abs(numbers.sum(axis=-1) - 1) < _SUM_TOLERANCE)):
            raise ValueError(f"the output {name} must hold probabilities that sum to 1.")
    _check_numbers(outputs)
    if "interval" in outputs:
        bounds = outputs["interval"].astype(np.float64)
        is_valid = is_valid_interval(bounds, outputs["probability"].astype(np.float64))
        if not np.all(np.isnan(bounds).all(axis=-1) | is_valid):
            raise ValueError("the output interval must hold bounds around the output probability, or NaN.")
    if "prediction_set" in outputs and not is_valid_set(outputs["prediction_set"]).all():
        raise ValueError("the output prediction_set must hold sets of grades without a gap.")
    if "saliency" in outputs and not is_valid_saliency(outputs["saliency"].astype(np.float64)):
        raise ValueError("the output saliency must hold finite numbers of at least 0, or NaN.")


def _check_numbers(outputs: Mapping[str, NDArray[np.generic]]) -> None:
    """Checks points, members' probabilities and doubts, which are NaN where there is none."""
    for name, lowest, highest in (
        ("landmarks", -_FARTHEST_MM, _FARTHEST_MM),
        ("members", 0.0, 1.0 + _SUM_TOLERANCE),
    ):
        values: NDArray[np.float64] = outputs[name].astype(np.float64)
        is_valid = np.all((values >= lowest) & (values <= highest), axis=-1)
        if not np.all(is_valid | np.isnan(values).all(axis=-1)):
            raise ValueError(
                f"the output {name} must hold numbers from {lowest:g} to {highest:g}, or only NaN."
            )
    doubt = outputs.get("doubt")
    if doubt is not None and np.issubdtype(doubt.dtype, np.floating):
        numbers: NDArray[np.float64] = doubt.astype(np.float64)
        if not np.all(np.isnan(numbers) | ((numbers >= 0) & (numbers <= 1 + _SUM_TOLERANCE))):
            raise ValueError("the output doubt must hold probabilities, or NaN.")


def _check_shapes(
    outputs: Mapping[str, NDArray[np.generic]], num_studies: int, num_members: int | None
) -> None:
    optional = {**_OPTIONAL, **_SALIENCY_OUTPUTS}
    expected = {**_REQUIRED, **{name: rule for name, rule in optional.items() if name in outputs}}
    for name, (_, sizes) in expected.items():
        if name not in outputs:
            raise ValueError(f"the output {name} is missing. Received: {sorted(outputs)}.")
        shape = (num_studies, *((num_members or _ANY) if size == _MEMBERS else size for size in sizes))
        received = outputs[name].shape
        if len(received) != len(shape) or any(
            wanted not in (size, _ANY) for size, wanted in zip(received, shape, strict=True)
        ):
            raise ValueError(f"the output {name} must be of shape {list(shape)}. Received: {list(received)}.")
    for name, values in outputs.items():
        if values.shape[:1] != (num_studies,):
            raise ValueError(
                f"the output {name} must have {num_studies} rows. Received the shape {list(values.shape)}."
            )


def is_valid_interval(bounds: NDArray[np.float64], probability: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Returns whether bounds [..., 2] lie in [0, 1] and on either side of their probability [...]."""
    low, high = np.moveaxis(bounds, -1, 0)
    is_bounded = (low >= 0) & (high <= 1)
    is_inside = (low <= probability + BOUND_TOLERANCE) & (probability <= high + BOUND_TOLERANCE)
    return np.asarray(is_bounded & is_inside, np.bool_)


def is_valid_set(sets: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Returns whether sets of grades [..., 3] have no gap; a finding without a set has no grade in it."""
    inside = sets.astype(np.bool_)
    is_split = (
        inside[..., Severity.NORMAL_MILD] & inside[..., Severity.SEVERE] & ~inside[..., Severity.MODERATE]
    )
    return np.asarray(~is_split, np.bool_)


def is_valid_saliency(values: NDArray[np.float64]) -> bool:
    """Returns whether all numbers are finite and at least 0, or NaN."""
    return bool(np.all(np.isnan(values) | ((values >= 0) & np.isfinite(values))))


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and 0 < len(value) <= _MAX_NAME_CHARACTERS


def parse_coverage(description: Mapping[str, Any]) -> float | None:
    """Returns the coverage of the prediction sets; None without sets, and for old bundles.

    Raises:
        ValueError: it is not a number between 0 and 1.
    """
    value = description.get(COVERAGE_KEY)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise ValueError(f"its {COVERAGE_KEY} must be a number between 0 and 1. Received: {value!r}.")
    return float(value)


def parse_description(text: str) -> dict[str, Any]:
    """Parses the output of `DESCRIBE` and checks that the arrays have the layout of this package.

    Raises:
        ValueError: the text is not JSON, or describes another layout.
    """
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError("the description is nested too deeply.") from None
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
    # A new major version changes the meaning of a record's bytes.
    if served.partition(".")[0] != SCHEMA_VERSION.partition(".")[0]:
        raise ValueError(f"it must read records of schema {SCHEMA_VERSION}. Received: {served}.")
    parse_training(content)
    parse_coverage(content)
    members = content.get("members")
    if not isinstance(members, list) or not all(map(_is_name, members)) or len(members) > _MAX_MEMBERS:
        raise ValueError(f"its members must be a list of names. Received: {members!r}.")
    return content
