"""The self-test names what is wrong with answers, and passes answers that are right."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lumbar_tf.bundle.loading import model_inputs
from lumbar_tf.bundle.prediction_log import LoggedRequest
from lumbar_tf.bundle.reference_study import MIRRORED, NOTHING, PLAIN, case_without, reference_cases
from lumbar_tf.bundle.self_test import find_case_faults, find_output_faults
from lumbar_tf.ensemble.prediction_sets import SetThresholds
from lumbar_tf.ensemble.stacker import Coefficients, FamilyStacker, Head, StackerCoefficients
from lumbar_tf.ensemble.stacker_json import stacker_to_json
from lumbar_tf.labels import FINDINGS, Family, Finding, Flag, Plane, Side
from lumbar_tf.models.bundle_folder import EXTRA, STACKER_NAME
from lumbar_tf.serving.contract import GRADE

MEMBERS = ("axial_t2/net", "sagittal_t1/net", "sagittal_t2/net")
FAMILIES = {
    "axial_t2/net": (Family.SUBARTICULAR,),
    # The canal has two members, and so intervals.
    "sagittal_t1/net": (Family.FORAMINAL, Family.CANAL),
    "sagittal_t2/net": (Family.CANAL,),
}
Answers = dict[str, dict[str, Any]]
CANAL_ROW = [finding.name for finding in FINDINGS].index("spinal_canal_stenosis_l3_l4")


def _mirrored_row(finding: Finding) -> int:
    """The row of the finding on the other side, from the names alone."""
    name = finding.name
    other = name.replace("left_", "right_") if name.startswith("left_") else name.replace("right_", "left_")
    return [finding.name for finding in FINDINGS].index(other)


def _interval(answer: dict[str, Any]) -> np.ndarray:
    """Bounds where two members answer."""
    bounds = np.stack([answer["probability"] * 0.5, answer["probability"] * 0.5 + 0.5], axis=-1)
    counts = np.isfinite(answer["members"]).all(axis=-1).sum(axis=0)
    return np.where((counts > 1)[:, None, None], bounds, np.nan)


def _stacker() -> StackerCoefficients:
    """A stacker of the members whose coefficients are not used, with thresholds for every pattern."""
    rng = np.random.default_rng(9)
    parts = []
    for family in Family:
        names = tuple(name for name in MEMBERS if family in FAMILIES[name])
        sources = tuple(name.partition("/")[0] for name in names)
        size = 1 << len(sources)
        head = Coefficients(
            np.zeros((size, len(names), 3, 3)),
            np.zeros((size, 5, 3, 3)),
            np.zeros((size, 5, 3)),
            ("",) * size,
        )
        sets = SetThresholds(0.9, rng.uniform(0.1, 0.6, (size, 3)), np.full((size, 3), 40))
        sets.thresholds[0] = 0.0
        heads = dict.fromkeys(Head, head)
        order = tuple(range(len(sources)))
        parts.append(FamilyStacker(family, names, sources, order, 9, heads, set_thresholds=sets))
    sources = tuple(name.partition("/")[0] for name in MEMBERS)
    return StackerCoefficients(MEMBERS, sources, np.zeros((25, 3)), tuple(parts))


STACKER = _stacker()


def _sets(answer: dict[str, Any]) -> np.ndarray:
    """Sets by the formula, finding by finding, with the thresholds of the members that are present."""
    sets = np.zeros((25, 3), bool)
    for row, finding in enumerate(FINDINGS):
        part = STACKER.family(finding.condition.family)
        present = [np.isfinite(answer["members"][MEMBERS.index(name), row]).all() for name in part.members]
        thresholds = part.set_thresholds.thresholds[
            sum(1 << bit for bit, is_in in enumerate(present) if is_in)
        ]
        inside = answer["probability"][row] >= thresholds
        if not inside.any():
            inside[np.argmax(answer["probability"][row] / thresholds)] = True
        sets[row] = inside
        sets[row, 1] |= inside[0] and inside[2]
    return sets


def _right_answers() -> Answers:
    rng = np.random.default_rng(3)
    heads = {
        head: rng.dirichlet(np.ones(3), 25).astype(np.float32) for head in ("probability", "competition")
    }
    members = np.full((3, 25, 3), np.nan, np.float32)
    for place, name in enumerate(MEMBERS):
        for row, finding in enumerate(FINDINGS):
            if finding.condition.family in FAMILIES[name]:
                members[place, row] = heads["probability"][row]
    sign = [{Side.LEFT: 1, Side.RIGHT: -1, None: 0}[finding.condition.side] for finding in FINDINGS]
    landmarks = rng.normal(size=(25, 3)).astype(np.float32) + np.array([15, 0, 0]) * np.array(sign)[:, None]
    plain = {**heads, "members": members, "landmarks": landmarks, "flags": np.zeros((25, len(Flag)), bool)}
    plain["interval"] = _interval(plain)
    plain["prediction_set"] = _sets(plain)
    is_said = np.isfinite(members).all(axis=-1)
    plain["weight"] = np.where(is_said, rng.random(is_said.shape), np.nan)
    maps = rng.random((3, 25, 1, 3, 4, 4))
    # At the right end of a stack there is no third slice.
    maps[:, 0, :, 2] = np.nan
    plain["saliency"] = np.where(is_said[..., None, None, None, None], maps, np.nan)
    answers: Answers = {PLAIN: plain}
    turned = [_mirrored_row(finding) for finding in FINDINGS]
    of_members = ("members", "weight", "saliency")
    answers[MIRRORED] = {name: plain[name][turned] for name in plain if name not in of_members}
    answers[MIRRORED].update({name: plain[name][:, turned] for name in of_members})
    # Axial columns from the other side, sagittal slices from the other end.
    axial, *sagittal = plain["saliency"][:, turned]
    answers[MIRRORED]["saliency"] = np.stack([axial[..., ::-1], *(member[:, :, ::-1] for member in sagittal)])
    answers[MIRRORED]["landmarks"] = answers[MIRRORED]["landmarks"] * [-1, 1, 1]
    for plane in Plane:
        without = {name: value.copy() for name, value in plain.items()}
        place = MEMBERS.index(f"{plane.value}/net")
        rows = np.isfinite(members[place]).all(axis=-1)
        without["members"][place] = np.nan
        without["weight"][place] = without["saliency"][place] = np.nan
        without["interval"] = _interval(without)
        without["prediction_set"] = _sets(without)
        without["flags"][rows, list(Flag).index(Flag[f"NO_{plane.name}"])] = True
        answers[case_without(plane)] = without
    nothing = {name: value.copy() for name, value in plain.items()}
    nothing["flags"][:, list(Flag).index(Flag.PRIOR_ONLY)] = True
    nothing["members"][:] = nothing["weight"][:] = nothing["saliency"][:] = np.nan
    nothing["interval"] = _interval(nothing)
    nothing["prediction_set"] = _sets(nothing)
    answers[NOTHING] = nothing
    return answers


def test_right_answers_pass() -> None:
    assert find_case_faults(_right_answers(), MEMBERS, STACKER) == []


def test_a_set_may_differ_where_a_probability_is_at_its_threshold() -> None:
    answers = _right_answers()
    part = STACKER.family(Family.CANAL)
    thresholds = part.set_thresholds.thresholds[3]
    at = np.array([1 - thresholds[1:].sum(), thresholds[1], thresholds[2]])
    for answer in answers.values():
        answer["probability"][CANAL_ROW] = at
        answer["interval"] = _interval(answer)
        answer["prediction_set"] = _sets(answer)
    for other in ([True, True, True], [True, True, False]):
        answers[PLAIN]["prediction_set"][CANAL_ROW] = other
        assert find_case_faults(answers, MEMBERS, STACKER) == []
    answers[PLAIN]["prediction_set"][CANAL_ROW] = [False, True, True]
    assert find_case_faults(answers, MEMBERS, STACKER) != []


@pytest.mark.parametrize(
    "absent",
    [
        ("interval", "prediction_set", "weight", "saliency"),
        ("prediction_set", "weight", "saliency"),
        ("prediction_set",),
        ("weight", "saliency"),
    ],
)
def test_a_bundle_from_before_there_were_intervals_sets_or_saliency_passes(absent: tuple[str, ...]) -> None:
    answers = {
        case: {name: value for name, value in answer.items() if name not in absent}
        for case, answer in _right_answers().items()
    }
    assert find_case_faults(answers, MEMBERS, STACKER) == []


def _not_finite(answers: Answers) -> None:
    answers[case_without(Plane.AXIAL_T2)]["competition"][3, 1] = np.nan


def _no_sum(answers: Answers) -> None:
    answers[NOTHING]["probability"][0] *= 1.01


def _sides_kept(answers: Answers) -> None:
    answers[MIRRORED]["probability"] = answers[PLAIN]["probability"]


def _one_finding_on_the_wrong_side(answers: Answers) -> None:
    row = [finding.name for finding in FINDINGS].index("left_neural_foraminal_narrowing_l4_l5")
    answers[MIRRORED]["members"][1, row] = answers[PLAIN]["members"][1, row]


def _points_not_mirrored(answers: Answers) -> None:
    answers[MIRRORED]["landmarks"] = answers[MIRRORED]["landmarks"] * [-1, 1, 1]


def _plane_not_flagged(answers: Answers) -> None:
    answers[case_without(Plane.SAGITTAL_T1)]["flags"][:] = False


def _plane_flagged_though_there(answers: Answers) -> None:
    answers[PLAIN]["flags"][:, list(Flag).index(Flag.NO_SAGITTAL_T2)] = True


def _answers_without_its_plane(answers: Answers) -> None:
    answers[case_without(Plane.SAGITTAL_T2)]["members"] = answers[PLAIN]["members"]


def _nothing_not_flagged(answers: Answers) -> None:
    answers[NOTHING]["flags"][4] = False


def _interval_of_one_member(answers: Answers) -> None:
    answers[case_without(Plane.SAGITTAL_T1)]["interval"][CANAL_ROW] = [0.0, 1.0]


def _interval_absent(answers: Answers) -> None:
    answers[PLAIN]["interval"][CANAL_ROW] = np.nan


def _interval_beside_the_probability(answers: Answers) -> None:
    answers[PLAIN]["interval"][CANAL_ROW, 2] = answers[PLAIN]["probability"][CANAL_ROW, 2] + [0.01, 0.02]


def _interval_of_the_other_side(answers: Answers) -> None:
    answers[MIRRORED]["interval"] = answers[MIRRORED]["interval"][::-1]


def _set_of_other_thresholds(answers: Answers) -> None:
    answers[case_without(Plane.SAGITTAL_T2)]["prediction_set"] = answers[PLAIN]["prediction_set"]


def _set_empty(answers: Answers) -> None:
    answers[PLAIN]["prediction_set"][CANAL_ROW] = False


def _set_with_a_gap(answers: Answers) -> None:
    answers[PLAIN]["prediction_set"][CANAL_ROW] = [True, False, True]


def _saliency_negative(answers: Answers) -> None:
    answers[PLAIN]["saliency"][2, CANAL_ROW, 0, 1, 0, 0] = -0.1


def _saliency_in_part(answers: Answers) -> None:
    answers[PLAIN]["saliency"][2, CANAL_ROW, 0, 1, 0, 0] = np.nan


def _saliency_without_an_answer(answers: Answers) -> None:
    answers[case_without(Plane.SAGITTAL_T2)]["saliency"] = answers[PLAIN]["saliency"]


def _weight_absent(answers: Answers) -> None:
    answers[PLAIN]["weight"][2, CANAL_ROW] = np.nan


def _columns_not_mirrored(answers: Answers) -> None:
    answers[MIRRORED]["saliency"][0] = answers[MIRRORED]["saliency"][0, ..., ::-1]


def _slices_not_mirrored(answers: Answers) -> None:
    answers[MIRRORED]["saliency"][1] = answers[MIRRORED]["saliency"][1, :, :, ::-1]


def _maps_on_the_wrong_side(answers: Answers) -> None:
    turned = [_mirrored_row(finding) for finding in FINDINGS]
    answers[MIRRORED]["saliency"] = answers[MIRRORED]["saliency"][:, turned]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_not_finite, "without axial_t2: competition is not finite"),
        (_no_sum, "no plane: probability does not sum to 1"),
        (_sides_kept, "mirrored: probability differs"),
        (_one_finding_on_the_wrong_side, "mirrored: members differs"),
        (_points_not_mirrored, "mirrored: landmarks differs"),
        (_plane_not_flagged, "without sagittal_t1: a finding that depends on the plane is not flagged"),
        (_plane_flagged_though_there, "plain: a finding that depends on the plane is flagged"),
        (_answers_without_its_plane, "without sagittal_t2: a member of the missing plane has a prediction"),
        (_nothing_not_flagged, "no plane: not every finding is flagged prior_only"),
        (_interval_of_one_member, "without sagittal_t1: interval is present for fewer than two member"),
        (_interval_absent, "plain: interval is missing where two members have a prediction"),
        (_interval_beside_the_probability, "plain: interval does not contain the probability"),
        (_interval_of_the_other_side, "mirrored: interval"),
        (_set_of_other_thresholds, "without sagittal_t2: prediction_set of canal differs from the sets of"),
        (_set_empty, "plain: prediction_set of canal differs from the sets of stacker.json"),
        (_set_with_a_gap, "plain: prediction_set has a gap"),
        (_saliency_negative, "plain: saliency is negative or infinite"),
        (_saliency_in_part, "plain: saliency covers only a part of an image"),
        (
            _saliency_without_an_answer,
            "without sagittal_t2: saliency is missing for a member's prediction, or present",
        ),
        (_weight_absent, "plain: weight is missing for a member's prediction"),
        (_columns_not_mirrored, "mirrored: saliency differs"),
        (_slices_not_mirrored, "mirrored: saliency"),
        (_maps_on_the_wrong_side, "mirrored: saliency differs"),
    ],
)
def test_each_fault_is_named(spoil: Callable[[Answers], None], words: str) -> None:
    answers = _right_answers()
    spoil(answers)
    assert any(words in fault for fault in find_case_faults(answers, MEMBERS, STACKER))


def test_a_stacker_of_other_members_is_named() -> None:
    changed = replace(STACKER, members=("a/net", *MEMBERS[1:]))
    (fault,) = find_case_faults(_right_answers(), MEMBERS, changed)
    assert "stacker.json is of other members: a/net" in fault


class _Served:
    """Returns known outputs and keeps the inputs."""

    members = MEMBERS
    has_saliency = False

    def __init__(self, answers: Answers, path: Path) -> None:
        self._answers = answers
        self.path = path
        self.inputs: dict[str, list[bytes]] = {}

    def predict_inputs(
        self, inputs: dict[str, list[bytes]], *, with_saliency: bool = False
    ) -> dict[str, np.ndarray]:
        self.inputs = inputs
        names = self._answers[PLAIN]
        return {name: np.stack([self._answers[case][name] for case in reference_cases()]) for name in names}


def test_inputs_that_a_compact_bundle_leaves_out_are_made_again(tmp_path: Path) -> None:
    answers, cases = _right_answers(), reference_cases()
    (tmp_path / EXTRA).mkdir()
    (tmp_path / EXTRA / STACKER_NAME).write_text(stacker_to_json(STACKER))
    served = _Served(answers, tmp_path)
    requests = [
        LoggedRequest(GRADE, {}, {name: value[None] for name, value in answers[case].items()}, model=case)
        for case in cases
    ]
    assert find_output_faults(served, requests) == []  # type: ignore[arg-type]
    assert served.inputs == model_inputs(list(cases.values()))
    with pytest.raises(ValueError, match="must have inputs, or be of plain"):
        find_output_faults(served, [LoggedRequest(GRADE, {}, {}, model="another")])  # type: ignore[arg-type]
