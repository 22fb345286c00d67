"""Self-test of a bundle, on export and on the first load by each environment.

The bundle grades the cases of the reference study (`reference_study.py`). All probabilities must be finite,
intervals must contain their probabilities, prediction sets must be those that NumPy finds, missing planes
must be flagged, left and right must swap in the mirror image, saliency must exist exactly where a member has
a prediction; and a loaded bundle must return the outputs that it returned at export. The test does not
measure how well the bundle grades.

A load repeats the test only where `self_test_record` does not have it as passed in the same environment.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.bundle.file_check import find_file_faults
from lumbar_tf.bundle.loading import ServedEnsemble, model_inputs, raise_faults
from lumbar_tf.bundle.prediction_log import LoggedRequest, read_requests
from lumbar_tf.bundle.reference_study import MIRRORED, NOTHING, PLAIN, case_without, reference_cases
from lumbar_tf.bundle.self_test_record import (
    describe_conditions,
    discard_record,
    has_passed,
    record_passed,
)
from lumbar_tf.bundle.signing import find_signature_faults, read_verification_key
from lumbar_tf.ensemble.features import patterns_of
from lumbar_tf.ensemble.prediction_sets import grade_sets
from lumbar_tf.ensemble.stacker import StackerCoefficients, family_findings
from lumbar_tf.ensemble.stacker_json import stacker_from_json
from lumbar_tf.labels import PLANE_FLAGS, Flag, Plane, mirror_indices, parse_plane
from lumbar_tf.models.bundle_folder import EXTRA, PARITY_NAME, STACKER_NAME, find_version
from lumbar_tf.serving.contract import GRADE, SALIENCY, is_valid_interval, is_valid_saliency, is_valid_set

#: Outputs for one study by the signature's names, without the leading study axis.
CaseOutputs = Mapping[str, NDArray[Any]]

HEADS = ("probability", "competition")
#: Rounding error of the sum of three float32 probabilities.
_SUM_TOLERANCE = 1e-4
#: Between a study and its mirror image, and between the exporting and the loading machine: far above the
#: effect of the order of summation in float32, far below that of a finding on the wrong side.
PROBABILITY_TOLERANCE = 5e-3
LANDMARK_TOLERANCE_MM = 0.5
#: A probability that is nearer to its threshold, relative to it, may fall on either side.
SET_TOLERANCE = 1e-4
_SETS = "prediction_set"


def load_bundle(
    path: Path,
    *,
    with_saliency: bool = False,
    require_signature: Path | None = None,
    force_self_test: bool = False,
) -> ServedEnsemble:
    """Loads a bundle that passes its self-test, or has passed it before in the same environment.

    Signature, files and graph are checked before anything of the bundle is loaded.

    Args:
        path: a version's folder, or a folder of versions, of which the newest is taken.
        with_saliency: test the signature with saliency, if the bundle has it, for callers that will use it.
            Its outputs include those of the other signature, so only one of the two is optimized by
            TensorFlow.
        require_signature: PEM file of a public key; the bundle must be signed with its private key.
        force_self_test: run the self-test even if it is recorded as passed.

    Raises:
        ValueError: there is no bundle, or it fails its self-test; the message lists the faults.
    """
    version = find_version(path)
    if require_signature is not None:
        raise_faults(version, find_signature_faults(version, read_verification_key(require_signature)))
    raise_faults(version, find_file_faults(version))
    served = ServedEnsemble(version)
    conditions = describe_conditions(version, with_saliency=with_saliency and served.has_saliency)
    if has_passed(conditions) and not force_self_test:
        return served
    # A test that fails now leaves no record of an earlier one.
    discard_record(conditions)
    requests = read_requests(version / EXTRA / PARITY_NAME)
    raise_faults(version, find_output_faults(served, requests, with_saliency=with_saliency))
    record_passed(conditions)
    return served


def find_output_faults(
    served: ServedEnsemble, requests: Sequence[LoggedRequest], *, with_saliency: bool = False
) -> list[str]:
    """Replays the requests of a bundle's parity file in one batch and returns the faults, one sentence each.

    Args:
        served: the bundle.
        requests: those of the grading signatures hold one study each, with the case of
            `reference_study.reference_cases` as `model`; their outputs, if any, are the expected ones.
        with_saliency: call the signature with saliency, if the bundle has it.
    """
    # The signature with the description has no outputs to test.
    signatures = (GRADE, SALIENCY) if with_saliency and served.has_saliency else (GRADE,)
    expected = [request for request in requests if request.signature in signatures]
    requests = [request for request in requests if request.signature == GRADE]
    studies = _recorded_studies(requests)
    inputs = {name: [value for study in studies for value in study[name]] for name in studies[0]}
    batch = served.predict_inputs(inputs, with_saliency=with_saliency)
    outputs = {
        request.model: {name: value[place] for name, value in batch.items()}
        for place, request in enumerate(requests)
    }
    stacker = None
    if _SETS in batch:
        try:
            text = (served.path / EXTRA / STACKER_NAME).read_text(encoding="utf-8")
            stacker = stacker_from_json(text)
        except (OSError, RecursionError, ValueError) as error:
            return [f"{STACKER_NAME}, which has the thresholds of {_SETS}, cannot be read: {error}"]
    faults = find_case_faults(outputs, served.members, stacker)
    for request in expected:
        exported = {name: value[0] for name, value in request.outputs.items()}
        faults += _differences(request.model, outputs[request.model], exported, reference="the export")
    return faults


def _recorded_studies(requests: Sequence[LoggedRequest]) -> list[Mapping[str, list[bytes]]]:
    """Returns the inputs of requests; those that a compact bundle leaves out are made again.

    Raises:
        ValueError: a request has neither inputs nor the name of a case.
    """
    cases = {} if all(request.inputs for request in requests) else reference_cases()
    studies: list[Mapping[str, list[bytes]]] = []
    for request in requests:
        if request.inputs:
            studies.append({name: values.tolist() for name, values in request.inputs.items()})
        elif request.model in cases:
            studies.append(model_inputs([cases[request.model]]))
        else:
            raise ValueError(
                f"A recorded request must have inputs, or be of {', '.join(cases)}. "
                f"Received: {request.model!r}."
            )
    return studies


def find_case_faults(
    outputs: Mapping[str, CaseOutputs], members: Sequence[str], stacker: StackerCoefficients | None = None
) -> list[str]:
    """Returns the faults of the outputs for the cases of the reference study, one sentence each.

    Args:
        outputs: by the name of the case.
        members: names of the members, in the order of the output `members`.
        stacker: the stacker of these members, whose prediction sets are compared with the output; None
            compares none.
    """
    faults = [fault for case, values in outputs.items() for fault in _value_faults(case, values)]
    if len(outputs[PLAIN]["members"]) != len(members):
        return [*faults, f"members has {len(outputs[PLAIN]['members'])} rows for {len(members)} members"]
    if stacker is not None and stacker.members != tuple(members):
        return [*faults, f"{STACKER_NAME} is of other members: {', '.join(stacker.members)}"]
    for case, values in outputs.items():
        faults += _set_faults(case, values, stacker) if stacker is not None and _SETS in values else []
    for plane in Plane:
        faults += _plane_faults(plane, outputs[case_without(plane)], outputs[PLAIN], members)
    if not _flag(outputs[NOTHING], Flag.PRIOR_ONLY).all():
        faults.append(f"{NOTHING}: not every finding is flagged {Flag.PRIOR_ONLY.value}")
    mirrored = _mirror(outputs[MIRRORED], members)
    return faults + _differences(MIRRORED, mirrored, outputs[PLAIN], reference="the plain study")


def _value_faults(case: str, outputs: CaseOutputs) -> list[str]:
    faults = []
    for head in HEADS:
        values = outputs[head].astype(np.float64)
        if not np.isfinite(values).all():
            faults.append(f"{case}: {head} is not finite")
        elif (values < 0).any() or np.abs(values.sum(axis=-1) - 1).max() > _SUM_TOLERANCE:
            faults.append(f"{case}: {head} does not sum to 1")
    # Old bundles have no intervals, and only one of the signatures has saliency.
    faults += _interval_faults(case, outputs) if "interval" in outputs else []
    if _SETS in outputs and not is_valid_set(outputs[_SETS]).all():
        faults.append(f"{case}: {_SETS} has a gap between grades")
    return faults + (_saliency_faults(case, outputs) if "saliency" in outputs else [])


def _interval_faults(case: str, outputs: CaseOutputs) -> list[str]:
    bounds, probability = outputs["interval"].astype(np.float64), outputs["probability"].astype(np.float64)
    is_finite = np.isfinite(bounds).all(axis=(-2, -1))
    is_supported = np.isfinite(outputs["members"]).all(axis=-1).sum(axis=0) > 1
    faults = []
    if (is_finite & ~is_supported).any() or not (is_finite | np.isnan(bounds).all(axis=(-2, -1))).all():
        faults.append(f"{case}: interval is present for fewer than two member predictions, or incomplete")
    if (is_supported & ~is_finite).any():
        faults.append(f"{case}: interval is missing where two members have a prediction")
    is_valid = np.asarray(is_valid_interval(bounds, probability).all(axis=-1))
    if not is_valid[is_finite].all():
        faults.append(f"{case}: interval does not contain the probability")
    return faults


def _set_faults(case: str, outputs: CaseOutputs, stacker: StackerCoefficients) -> list[str]:
    """Compares the prediction sets with those of the same probabilities in NumPy."""
    probability, sets = outputs["probability"].astype(np.float64), outputs[_SETS].astype(np.bool_)
    faults = []
    for part in stacker.families:
        rows, _ = family_findings(part.family)
        own = outputs["members"][stacker.member_indices(part.family)][:, rows]
        if part.set_thresholds is None:
            is_equal = ~sets[rows].any(axis=-1)
        else:
            thresholds = part.set_thresholds.thresholds[patterns_of(own, part.member_sources)]
            is_equal = np.zeros(len(rows), np.bool_)
            for steps in product((-SET_TOLERANCE, 0.0, SET_TOLERANCE), repeat=thresholds.shape[-1]):
                expected = grade_sets(probability[rows], thresholds * (1 + np.array(steps)))
                is_equal |= (expected == sets[rows]).all(axis=-1)
        if not is_equal.all():
            faults.append(f"{case}: {_SETS} of {part.family.value} differs from the sets of {STACKER_NAME}")
    return faults


def _saliency_faults(case: str, outputs: CaseOutputs) -> list[str]:
    maps, is_predicted = outputs["saliency"].astype(np.float64), np.isfinite(outputs["members"]).all(axis=-1)
    faults = []
    if not is_valid_saliency(maps):
        faults.append(f"{case}: saliency is negative or infinite")
    is_there = np.isfinite(maps)
    if not (is_there.any(axis=(-1, -2)) == is_there.all(axis=(-1, -2))).all():
        faults.append(f"{case}: saliency covers only a part of an image")
    rule = "missing for a member's prediction, or present without one"
    if not (is_there.any(axis=tuple(range(2, maps.ndim))) == is_predicted).all():
        faults.append(f"{case}: saliency is {rule}")
    if not (np.isfinite(outputs["weight"]) == is_predicted).all():
        faults.append(f"{case}: weight is {rule}")
    return faults


def _flag(outputs: CaseOutputs, flag: Flag) -> NDArray[np.bool_]:
    return np.asarray(outputs["flags"][:, list(Flag).index(flag)], np.bool_)


def _plane_faults(
    plane: Plane, without: CaseOutputs, plain: CaseOutputs, members: Sequence[str]
) -> list[str]:
    """Compares the outputs for the study without a plane with those for the plain study."""
    of_plane = [place for place, name in enumerate(members) if name.startswith(f"{plane.value}/")]
    depends = np.isfinite(plain["members"][of_plane]).all(axis=-1).any(axis=0)
    flag, case = PLANE_FLAGS[plane], case_without(plane)
    faults = []
    if np.isfinite(without["members"][of_plane]).any():
        faults.append(f"{case}: a member of the missing plane has a prediction")
    if not _flag(without, flag)[depends].all():
        faults.append(f"{case}: a finding that depends on the plane is not flagged {flag.value}")
    if _flag(plain, flag)[depends].any():
        faults.append(f"{PLAIN}: a finding that depends on the plane is flagged {flag.value}")
    return faults


def _mirror(outputs: CaseOutputs, members: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Returns the outputs with left and right exchanged."""
    swapped = list(mirror_indices())
    by_member = [name for name in ("members", "weight", "saliency") if name in outputs]
    mirrored = {name: value[swapped] for name, value in outputs.items() if name not in by_member}
    mirrored.update({name: outputs[name][:, swapped] for name in by_member})
    mirrored["landmarks"] = mirrored["landmarks"] * np.array([-1.0, 1.0, 1.0], np.float32)
    if "saliency" in outputs:
        mirrored["saliency"] = _mirror_maps(mirrored["saliency"], members)
    return mirrored


def _mirror_maps(maps: NDArray[Any], members: Sequence[str]) -> NDArray[Any]:
    """Mirrors maps [member, 25, view, slice, row, column] whose findings are exchanged already.

    Mirroring reverses the order of sagittal slices and the columns of axial slices, and exchanges the views
    of findings that have one on each side.
    """
    planes = [parse_plane(name.partition("/")[0]) for name in members]
    mirrored = np.stack(
        [
            member[:, :, ::-1] if plane.is_sagittal else member[..., ::-1]
            for plane, member in zip(planes, maps, strict=True)
        ]
    )
    is_seen = np.isfinite(mirrored).any(axis=(-3, -2, -1))
    # The view of a finding with a single one stays first.
    has_both = is_seen.all(axis=-1)
    mirrored[has_both] = mirrored[has_both][:, ::-1]
    return mirrored


def _differences(case: str, outputs: CaseOutputs, expected: CaseOutputs, *, reference: str) -> list[str]:
    """Returns the differences from the expected outputs, one sentence each; `reference` is their origin."""
    faults = []
    # Sets are compared with NumPy's: a probability near its threshold may fall on the other side here.
    for name in sorted(set(expected) - {_SETS}):
        values, wanted = outputs[name].astype(np.float64), expected[name].astype(np.float64)
        is_nan = np.isnan(values)
        if values.shape != wanted.shape or (is_nan != np.isnan(wanted)).any():
            faults.append(f"{case}: {name} has a different shape or different NaNs than {reference}")
            continue
        difference = float(np.abs(values - wanted)[~is_nan].max(initial=0.0))
        tolerance = LANDMARK_TOLERANCE_MM if name == "landmarks" else PROBABILITY_TOLERANCE
        if name == "saliency":
            # Log-odds scaled by the number of cells: relative to the strongest cell.
            tolerance *= max(1.0, float(np.nanmax(wanted, initial=0.0)))
        if difference > tolerance:
            faults.append(f"{case}: {name} differs by {difference:.3g} from {reference}")
    return faults
