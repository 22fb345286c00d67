"""What a bundle must do before anyone is graded with it: on export, and each time that it is loaded.

It answers the known study (`known_study.py`) in all its cases. Left and right must swap in the mirror, a
missing plane must be said, all must be finite, intervals must lie around their probabilities, saliency must
be where a member answers and on the other side in the mirror; and once exported, it must answer as it did
then. None of this says how well it grades.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.bundle.graph import SIGNATURE
from lumbar_tf.bundle.prediction_log import LoggedRequest, read_requests
from lumbar_tf.bundle.reference_study import MIRRORED, NOTHING, PLAIN, case_without
from lumbar_tf.bundle.served_ensemble import (
    EXTRA,
    PARITY_NAME,
    ServedEnsemble,
    find_version,
    read_ensemble_json,
)
from lumbar_tf.files import file_sha256
from lumbar_tf.labels import PLANE_FLAGS, Flag, Plane, mirror_indices, parse_plane
from lumbar_tf.serving.contract import EXPLAIN, are_around, is_map

#: The answers to one study by the signature's output names, without the leading axis.
Answer = Mapping[str, NDArray[Any]]

HEADS = ("probability", "competition")
#: Sums of three float32 probabilities.
_SUM_TOLERANCE = 1e-4
#: Between a study and its mirror image, and between the exporting and the loading machine: far above what the
#: order of a sum makes of float32, far below what a finding on the wrong side would be.
PROBABILITY_TOLERANCE = 5e-3
LANDMARK_TOLERANCE_MM = 0.5


def load_bundle(path: Path, *, explained: bool = False) -> ServedEnsemble:
    """Loads a bundle that passes its self-test.

    Args:
        path: a version's folder, or the folder of versions: the newest is taken.
        explained: test the signature with saliency, where there is one: for who will ask that one. It answers
            all that the other does, so one of the two is planned, and not both.

    Raises:
        ValueError: there is no bundle, or it fails; the message says in what.
    """
    version = find_version(path)
    # First: a damaged file need not even load.
    refuse(version, find_file_faults(version))
    served = ServedEnsemble(version)
    refuse(
        version, find_answer_faults(served, read_requests(version / EXTRA / PARITY_NAME), explained=explained)
    )
    return served


def refuse(path: Path, faults: Sequence[str]) -> None:
    """Raises where there are faults.

    Raises:
        ValueError: names each fault.
    """
    if faults:
        raise ValueError(f"A bundle must pass its self-test. Received: {path}: {'; '.join(faults)}.")


def find_file_faults(path: Path) -> list[str]:
    """Returns which files of a bundle are not those that were exported, a sentence each."""
    faults = []
    for name, digest in read_ensemble_json(path).get("files", {}).items():
        file = path / name
        if not file.is_file():
            faults.append(f"{name} is absent")
        elif file_sha256(file) != digest:
            faults.append(f"{name} is not the file that was exported (its SHA-256 differs)")
    return faults


def find_answer_faults(
    served: ServedEnsemble, requests: Sequence[LoggedRequest], *, explained: bool = False
) -> list[str]:
    """Asks a bundle what its parity file holds, all in one batch, and returns what is wrong, a sentence each.

    Args:
        served: the bundle.
        requests: of the grading signatures they are of one study each, named by `model` as
            `known_study.known_cases` names them; where they hold outputs, answers must be equal to them.
        explained: ask the signature with saliency.
    """
    # What the bundle says of itself is read, not tested.
    asked = (SIGNATURE, EXPLAIN) if explained and served.has_saliency else (SIGNATURE,)
    expected = [each for each in requests if each.signature in asked]
    requests = [each for each in requests if each.signature == SIGNATURE]
    cases = [each.model for each in requests]
    inputs = {
        name: [value for each in requests for value in each.inputs[name].tolist()]
        for name in requests[0].inputs
    }
    outputs = {
        name: value.numpy() for name, value in served.answer_inputs(inputs, explained=explained).items()
    }
    answers = {
        case: {name: value[place] for name, value in outputs.items()} for place, case in enumerate(cases)
    }
    faults = check_answers(answers, served.members)
    for each in expected:
        wanted = {name: value[0] for name, value in each.outputs.items()}
        faults += [f"{fault} at export" for fault in _differences(each.model, answers[each.model], wanted)]
    return faults


def check_answers(answers: Mapping[str, Answer], members: Sequence[str]) -> list[str]:
    """Returns what is wrong with the answers to the known study's cases, a sentence each.

    Args:
        answers: by the case's name.
        members: names of the members, in the order of the output `members`.
    """
    faults = [fault for case, answer in answers.items() for fault in _value_faults(case, answer)]
    if len(answers[PLAIN]["members"]) != len(members):
        return [*faults, f"members has {len(answers[PLAIN]['members'])} answers of {len(members)} members"]
    for plane in Plane:
        faults += _plane_faults(plane, answers[case_without(plane)], answers[PLAIN], members)
    if not _flag(answers[NOTHING], Flag.PRIOR_ONLY).all():
        faults.append(f"{NOTHING}: not every finding is flagged {Flag.PRIOR_ONLY.value}")
    return faults + _differences(MIRRORED, _turned(answers[MIRRORED], members), answers[PLAIN])


def _value_faults(case: str, answer: Answer) -> list[str]:
    faults = []
    for head in HEADS:
        values = answer[head].astype(np.float64)
        if not np.isfinite(values).all():
            faults.append(f"{case}: {head} is not finite")
        elif (values < 0).any() or np.abs(values.sum(axis=-1) - 1).max() > _SUM_TOLERANCE:
            faults.append(f"{case}: {head} does not sum to 1")
    # Bundles had no intervals at first, and not every answer is explained.
    faults += _interval_faults(case, answer) if "interval" in answer else []
    return faults + (_saliency_faults(case, answer) if "saliency" in answer else [])


def _interval_faults(case: str, answer: Answer) -> list[str]:
    bounds, probability = answer["interval"].astype(np.float64), answer["probability"].astype(np.float64)
    is_finite = np.isfinite(bounds).all(axis=(-2, -1))
    is_supported = np.isfinite(answer["members"]).all(axis=-1).sum(axis=0) > 1
    faults = []
    if (is_finite & ~is_supported).any() or not (is_finite | np.isnan(bounds).all(axis=(-2, -1))).all():
        faults.append(f"{case}: interval is there where fewer than two members answer, or only in part")
    if (is_supported & ~is_finite).any():
        faults.append(f"{case}: interval is absent where two members answer")
    is_around = np.asarray(are_around(bounds, probability).all(axis=-1))
    if not is_around[is_finite].all():
        faults.append(f"{case}: interval does not hold the probability")
    return faults


def _saliency_faults(case: str, answer: Answer) -> list[str]:
    maps, is_said = answer["saliency"].astype(np.float64), np.isfinite(answer["members"]).all(axis=-1)
    faults = []
    if not is_map(maps):
        faults.append(f"{case}: saliency is negative or infinite")
    is_there = np.isfinite(maps)
    if not (is_there.any(axis=(-1, -2)) == is_there.all(axis=(-1, -2))).all():
        faults.append(f"{case}: saliency is there for a part of a picture")
    if not (is_there.any(axis=tuple(range(2, maps.ndim))) == is_said).all():
        faults.append(f"{case}: saliency is absent where a member answers, or there where it does not")
    if not (np.isfinite(answer["weight"]) == is_said).all():
        faults.append(f"{case}: weight is absent where a member answers, or there where it does not")
    return faults


def _flag(answer: Answer, flag: Flag) -> NDArray[np.bool_]:
    return np.asarray(answer["flags"][:, list(Flag).index(flag)], np.bool_)


def _plane_faults(plane: Plane, without: Answer, plain: Answer, members: Sequence[str]) -> list[str]:
    """Compares the case that misses a plane with the plain one."""
    mine = [place for place, name in enumerate(members) if name.startswith(f"{plane.value}/")]
    said = np.isfinite(plain["members"][mine]).all(axis=-1).any(axis=0)
    flag, case = PLANE_FLAGS[plane], case_without(plane)
    faults = []
    if np.isfinite(without["members"][mine]).any():
        faults.append(f"{case}: a member that reads the plane answers")
    if not _flag(without, flag)[said].all():
        faults.append(f"{case}: a finding that the plane has a part in is not flagged {flag.value}")
    if _flag(plain, flag)[said].any():
        faults.append(f"{PLAIN}: a finding that the plane has a part in is flagged {flag.value}")
    return faults


def _turned(answer: Answer, members: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Returns the answer with left and right exchanged."""
    swapped = list(mirror_indices())
    by_member = [name for name in ("members", "weight", "saliency") if name in answer]
    turned = {name: value[swapped] for name, value in answer.items() if name not in by_member}
    turned.update({name: answer[name][:, swapped] for name in by_member})
    turned["landmarks"] = turned["landmarks"] * np.array([-1.0, 1.0, 1.0], np.float32)
    if "saliency" in answer:
        turned["saliency"] = _turned_maps(turned["saliency"], members)
    return turned


def _turned_maps(maps: NDArray[Any], members: Sequence[str]) -> NDArray[Any]:
    """Mirrors maps, [member, 25, look, slice, row, column], of findings that are exchanged already.

    In the mirror sagittal slices come in the other order, axial ones have their columns in the other order,
    and where a finding is looked at from both sides, the sides are exchanged.
    """
    planes = [parse_plane(name.partition("/")[0]) for name in members]
    turned = [
        each[:, :, ::-1] if plane.is_sagittal else each[..., ::-1]
        for plane, each in zip(planes, maps, strict=True)
    ]
    mirrored = np.stack(turned)
    is_seen = np.isfinite(mirrored).any(axis=(-3, -2, -1))
    # A finding of one look keeps it in the first place.
    both = is_seen.all(axis=-1)
    mirrored[both] = mirrored[both][:, ::-1]
    return mirrored


def _differences(case: str, answer: Answer, expected: Answer) -> list[str]:
    """Returns which of the expected outputs are not as expected."""
    faults = []
    for name in sorted(expected):
        got, wanted = answer[name].astype(np.float64), expected[name].astype(np.float64)
        is_nan = np.isnan(got)
        if got.shape != wanted.shape or (is_nan != np.isnan(wanted)).any():
            faults.append(f"{case}: {name} has other gaps than expected")
            continue
        difference = float(np.abs(got - wanted)[~is_nan].max(initial=0.0))
        tolerance = LANDMARK_TOLERANCE_MM if name == "landmarks" else PROBABILITY_TOLERANCE
        if name == "saliency":
            # In log-odds, and in parts of the whole crop: what counts is the share of the strongest place.
            tolerance *= max(1.0, float(np.nanmax(wanted, initial=0.0)))
        if difference > tolerance:
            faults.append(f"{case}: {name} differs by {difference:.3g} from what is expected")
    return faults
