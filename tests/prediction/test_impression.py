"""Impressions: examples written by hand, texts that are parsed back, mirrored studies and the phrases."""

import re
from collections.abc import Mapping
from dataclasses import replace
from string import Formatter

import numpy as np
import pytest

from lumbar_tf.labels import FINDINGS, Condition, Family, Finding, Flag, Level, parse_condition, parse_level
from lumbar_tf.prediction.impression import make_impression
from lumbar_tf.prediction.impression_phrases import Language, Phrase, parse_language
from lumbar_tf.prediction.results import StudyFindings, result_to_json
from lumbar_tf.serving.training_data import TrainingData

DRAFT = "Draft of a research system; not a diagnosis."
UNDOCUMENTED = "The model's training data are not documented."
#: Condition and side by the words of an English impression.
WORDS = {
    "canal stenosis": ["spinal_canal_stenosis"],
    "left foraminal narrowing": ["left_neural_foraminal_narrowing"],
    "right foraminal narrowing": ["right_neural_foraminal_narrowing"],
    "bilateral foraminal narrowing": ["left_neural_foraminal_narrowing", "right_neural_foraminal_narrowing"],
    "left subarticular stenosis": ["left_subarticular_stenosis"],
    "right subarticular stenosis": ["right_subarticular_stenosis"],
    "bilateral subarticular stenosis": ["left_subarticular_stenosis", "right_subarticular_stenosis"],
}
#: Words for a set of grades (0 Normal/Mild, 1 Moderate, 2 Severe) and its most probable grade.
GRADES = {
    ((0,), 0): None,
    ((1,), 1): "moderate",
    ((2,), 2): "severe",
    ((1, 2), 1): "moderate to severe",
    ((1, 2), 2): "moderate to severe",
    ((0, 1), 0): None,
    ((0, 1), 1): "at most moderate",
    ((0, 1, 2), 0): None,
    ((0, 1, 2), 1): "probably moderate",
    ((0, 1, 2), 2): "probably severe",
}
WORST_FIRST = (
    "severe",
    "moderate to severe",
    "probably severe",
    "moderate",
    "probably moderate",
    "at most moderate",
)


def _study(
    grades: Mapping[str, int],
    sets: Mapping[str, tuple[int, ...]] | None = None,
    flags: Mapping[str, Flag] | None = None,
    training: TrainingData | None = None,
) -> StudyFindings:
    """Returns a study whose findings are Normal/Mild except for those named; sets only where named."""
    nothing = np.full((25, 3), np.nan, np.float32)
    probability = np.tile(np.array([0.9, 0.06, 0.04], np.float32), (25, 1))
    prediction_set = np.zeros((25, 3), np.bool_)
    is_set = np.zeros((25, len(Flag)), np.bool_)
    for row, finding in enumerate(FINDINGS):
        for pattern, grade in grades.items():
            if re.fullmatch(pattern, finding.name):
                probability[row] = np.roll([0.9, 0.05, 0.05], grade)
        for pattern, members in (sets or {}).items():
            if re.fullmatch(pattern, finding.name):
                prediction_set[row, list(members)] = True
        for pattern, flag in (flags or {}).items():
            if re.fullmatch(pattern, finding.name):
                is_set[row, list(Flag).index(flag)] = True
    return StudyFindings(
        "1.2.3",
        probability,
        probability,
        nothing[None],
        nothing,
        is_set,
        prediction_set=None if sets is None else prediction_set,
        training=training or TrainingData(),
    )


def _lines(result: StudyFindings, language: Language = Language.ENGLISH) -> list[str]:
    """Returns the lines between the mark as a draft and the note on the training data."""
    first, *lines, last = make_impression(result, language).split("\n")
    assert (first, last) == (DRAFT, UNDOCUMENTED) or language is not Language.ENGLISH
    return lines


def test_the_example_of_the_documentation() -> None:
    result = _study(
        {"spinal_canal_stenosis_l4_l5": 2, ".*_subarticular_stenosis_l5_s1": 1, "left_n.*_l4_l5": 1},
        sets={
            "spinal_canal_stenosis_l4_l5": (2,),
            "left_neural_foraminal_narrowing_l4_l5": (1, 2),
            ".*_subarticular_stenosis_l5_s1": (1,),
        },
    )
    assert _lines(result) == [
        "L4/L5: severe canal stenosis; moderate to severe left foraminal narrowing.",
        "L5/S1: moderate bilateral subarticular stenosis.",
        "L1/L2 to L3/L4: no more than mild.",
    ]
    assert _lines(result, Language.GERMAN) == [
        "L4/L5: hochgradige Spinalkanalstenose; mittel- bis hochgradige Neuroforamenstenose links.",
        "L5/S1: mittelgradige Rezessusstenose beidseits.",
        "L1/L2 bis L3/L4: allenfalls geringgradige Stenosen.",
    ]
    assert _lines(result, Language.FRENCH) == [
        "L4/L5\u00a0: sténose canalaire sévère\u00a0; sténose foraminale gauche modérée à sévère.",
        "L5/S1\u00a0: sténose modérée des récessus latéraux des deux côtés.",
        "L1/L2 à L3/L4\u00a0: sténoses tout au plus légères.",
    ]
    assert _lines(result, Language.SPANISH) == [
        "L4/L5: estenosis grave del canal; estenosis foraminal izquierda moderada a grave.",
        "L5/S1: estenosis moderada de ambos recesos laterales.",
        "L1/L2 a L3/L4: estenosis a lo sumo leve.",
    ]


@pytest.mark.parametrize(
    ("mild", "line"),
    [
        ("l1_l2|l2_l3|l3_l4|l4_l5|l5_s1", "L1/L2 to L5/S1: no more than mild."),
        ("l1_l2|l2_l3", "L1/L2, L2/L3: no more than mild."),
        ("l1_l2|l3_l4|l4_l5|l5_s1", "L1/L2, L3/L4 to L5/S1: no more than mild."),
        ("l5_s1", "L5/S1: no more than mild."),
    ],
)
def test_levels_without_a_finding_above_mild_are_merged_with_their_neighbours(mild: str, line: str) -> None:
    assert _lines(_study({f"spinal_canal_stenosis_(?!{mild}).*": 2}))[-1] == line


def test_a_set_that_does_not_exclude_moderate_makes_mild_probable() -> None:
    result = _study({}, sets={".*": (0,), "spinal_canal_stenosis_l2_l3": (0, 1)})
    assert _lines(result) == [
        "L2/L3: probably no more than mild.",
        "L1/L2, L3/L4 to L5/S1: no more than mild.",
    ]


def test_limitations_come_first_and_findings_without_an_image_have_no_grade() -> None:
    result = _study(
        {".*": 2},
        sets={".*": (0, 1, 2)},
        flags={
            ".*_subarticular_stenosis_.*": Flag.PRIOR_ONLY,
            ".*_l5_s1": Flag.PRIOR_ONLY,
            "spinal_canal_stenosis_.*": Flag.NO_AXIAL_T2,
            ".*_l1_l2": Flag.LEVEL_SHIFT,
            "left_neural_foraminal_narrowing_l[24].*": Flag.NO_LANDMARK,
        },
    )
    lines = _lines(result)
    assert lines[:4] == [
        "Level uncertain, may be the disc above or below: canal stenosis (L1/L2); "
        "bilateral foraminal narrowing (L1/L2).",
        "Not graded: all findings (L5/S1); bilateral subarticular stenosis (L1/L2 to L4/L5).",
        "Graded without axial T2: canal stenosis (L1/L2 to L4/L5).",
        "Position not found: left foraminal narrowing (L2/L3, L4/L5).",
    ]
    assert [line.partition(":")[0] for line in lines[4:]] == ["L1/L2", "L2/L3", "L3/L4", "L4/L5"]
    assert not any("subarticular" in line or "L5/S1" in line for line in lines[4:])


def test_a_study_without_a_usable_image_has_no_level() -> None:
    unknown = replace(_study({}), probability=np.full((25, 3), np.nan, np.float32))
    for result in (_study({".*": 2}, flags={".*": Flag.PRIOR_ONLY}), unknown):
        assert _lines(result) == ["Not graded: all findings (L1/L2 to L5/S1)."]


@pytest.mark.parametrize(
    "training",
    [TrainingData("SPIDER, 88 {studies}."), TrainingData(), TrainingData("x", is_synthetic=True)],
    ids=["documented", "undocumented", "synthetic"],
)
def test_every_impression_is_marked_and_has_the_training_note(training: TrainingData) -> None:
    result = _study({}, training=training)
    lines = make_impression(result).split("\n")
    assert (lines[0], lines[-1]) == (DRAFT, training.note)
    for language in Language:
        lines = make_impression(result, language).split("\n")
        assert lines[0] == Phrase.DRAFT.fill(language)
        if training.origin and not training.is_synthetic:
            assert "SPIDER, 88 {studies}." in lines[-1]
        assert (lines[-1] == training.note) == (language is Language.ENGLISH)
        assert result.study_id not in "".join(lines)


def _random_study(seed: int) -> StudyFindings:
    """Returns a study with sets of all kinds, ungraded findings, and equal and different sides."""
    rng = np.random.default_rng(seed)
    probability = rng.dirichlet([1.5, 0.6, 0.6], 25).astype(np.float32)
    kinds = [(0,), (0,), (0, 1), (1,), (1, 2), (2,), (0, 1, 2), ()]
    sets = np.zeros((25, 3), np.bool_)
    for row, kind in enumerate(rng.integers(0, len(kinds), 25)):
        sets[row, list(kinds[kind])] = True
    flags = rng.random((25, len(Flag))) < 0.08
    unused = np.zeros((25, 3), np.float32)
    return StudyFindings("1", probability, probability, unused[None], unused, flags, prediction_set=sets)


def _expected_grade(result: StudyFindings, row: int) -> str | None:
    probability = result.probability[row]
    members = np.flatnonzero(result.prediction_set[row]) if result.prediction_set is not None else []
    if len(members) == 0:
        members = np.array([probability.argmax()])
    likeliest = members[probability[members].argmax()]
    return GRADES[tuple(members.tolist()), int(likeliest)]


@pytest.mark.parametrize("seed", range(40))
def test_the_listed_findings_are_those_of_the_sets_with_their_sides(seed: int) -> None:
    result = _random_study(seed)
    is_prior = result.flags[:, list(Flag).index(Flag.PRIOR_ONLY)]
    expected = {
        finding: grade
        for row, finding in enumerate(FINDINGS)
        if not is_prior[row] and (grade := _expected_grade(result, row))
    }
    read: dict[Finding, str] = {}
    orders: list[list[int]] = []
    pattern = re.compile(rf"({'|'.join(sorted(WORST_FIRST, key=len, reverse=True))}) (.+)")
    for line in _lines(result):
        level, _, rest = line.partition(": ")
        if not re.fullmatch(r"L\d/[LS]\d", level) or "no more than mild" in rest:
            continue
        order = []
        for part in rest.removesuffix(".").split("; "):
            match = pattern.fullmatch(part)
            assert match is not None, line
            order.append(WORST_FIRST.index(match[1]))
            for name in WORDS[match[2]]:
                read[Finding(parse_condition(name), parse_level(level))] = match[1]
        assert order == sorted(order)
        orders.append(order)
    assert read == expected
    worst = [order[0] for order in orders]
    assert worst == sorted(worst)


@pytest.mark.parametrize("seed", range(40))
def test_a_mirrored_study_has_the_text_with_left_and_right_swapped(seed: int) -> None:
    result = _random_study(seed)
    # Side by side in the array: canal, left and right foramen, left and right recess, five levels each.
    rows = [*range(5), *range(10, 15), *range(5, 10), *range(20, 25), *range(15, 20)]
    assert result.prediction_set is not None
    mirrored = replace(
        result,
        probability=result.probability[rows],
        flags=result.flags[rows],
        prediction_set=result.prediction_set[rows],
    )
    sides = {
        Language.ENGLISH: [("left", "right")],
        Language.GERMAN: [("links", "rechts")],
        Language.FRENCH: [("foraminale gauche", "foraminale droite"), ("latéral gauche", "latéral droit")],
        Language.SPANISH: [("izquierda", "derecha"), ("izquierdo", "derecho")],
    }
    for language, pairs in sides.items():
        text, other = make_impression(result, language), make_impression(mirrored, language)
        swap = {**dict(pairs), **{right: left for left, right in pairs}}
        words = "|".join(rf"\b{word}\b" for word in swap)
        parts = re.split(f"({words})", text)
        assert "".join(swap.get(part, part) for part in parts) == other


def test_each_phrase_has_a_text_and_the_same_placeholders_in_every_language() -> None:
    for phrase in Phrase:
        texts = phrase.value
        assert len(texts) == len(Language) and all(texts), phrase
        fields = [sorted(name for _, name, _, _ in Formatter().parse(text) if name) for text in texts]
        assert all(names == fields[0] for names in fields), phrase
        # A sentence ends as one in every language.
        assert len({text.endswith(".") for text in texts}) == 1, phrase


def test_translations_differ_from_english_and_from_each_other() -> None:
    same = {Phrase.LEVEL, Phrase.SEPARATOR}
    for phrase in set(Phrase) - same:
        texts = set(phrase.value)
        assert len(texts) == len(Language), phrase


def test_every_condition_and_limitation_has_a_phrase() -> None:
    names = set(Phrase.__members__)
    assert {flag.name for flag in Flag} - {"PRIOR_ONLY"} <= names
    for family in Family:
        assert names >= (
            {f"{family.name}_{side}" for side in ("LEFT", "RIGHT", "BOTH")}
            if family.is_sided
            else {family.name}
        )
    assert len(Condition) == 5 and len(Level) == 5


def test_json_has_the_impression_and_its_language() -> None:
    result = _study({"spinal_canal_stenosis_l4_l5": 2})
    assert result_to_json(result)["impression"] == make_impression(result)
    german = result_to_json(result, Language.GERMAN)
    assert (german["impression_language"], german["training_note"]) == ("de", UNDOCUMENTED)
    assert "hochgradige Spinalkanalstenose" in german["impression"]


def test_a_language_without_phrases_is_refused() -> None:
    assert parse_language("fr") is Language.FRENCH
    with pytest.raises(ValueError, match=r"must be one of en, de, fr, es\. Received: 'it'"):
        parse_language("it")
