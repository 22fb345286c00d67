"""Impression of a study: its findings in a few sentences of a radiologist, worst first.

`docs/report.md` has the rules. The words of a finding come from its prediction set, or from its most probable
grade if it has no set. The text contains no patient data.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lumbar_tf.labels import FINDINGS, Condition, Family, Flag, Level, Severity, Side
from lumbar_tf.prediction.impression_phrases import Language, Phrase

if TYPE_CHECKING:
    from lumbar_tf.prediction.results import StudyFindings
    from lumbar_tf.serving.training_data import TrainingData

#: Words for grades that are listed, the worst first.
_LISTED = (
    Phrase.SEVERE,
    Phrase.MODERATE_TO_SEVERE,
    Phrase.PROBABLY_SEVERE,
    Phrase.MODERATE,
    Phrase.PROBABLY_MODERATE,
    Phrase.AT_MOST_MODERATE,
)
#: Sentences on flags of graded findings, after those on level shifts and on findings that were not graded.
_FURTHER_FLAGS = (Flag.NO_SAGITTAL_T1, Flag.NO_SAGITTAL_T2, Flag.NO_AXIAL_T2, Flag.NO_LANDMARK)
#: A run of neighbouring levels of this length is written as a range.
_MIN_RANGE = 3


@dataclass(frozen=True)
class _ListedFinding:
    """Findings of one family and grade at one level: of one side, of both sides, or of the midline."""

    grade: Phrase
    conditions: tuple[Condition, ...]

    @property
    def rank(self) -> int:
        """Place in `_LISTED`; the worst is 0."""
        return _LISTED.index(self.grade)


def make_impression(result: "StudyFindings", language: Language = Language.ENGLISH) -> str:
    r"""Returns the impression, lines separated by `\n`.

    The first line marks the text as a draft of a research system. Limitations follow, then the levels with
    findings above mild, then the other levels, and the note on the model's training data.

    Args:
        result: findings of the study.
        language: language of the text.
    """
    grades = [_grade_words(result, row) for row in range(len(FINDINGS))]
    lines = [
        Phrase.DRAFT.fill(language),
        *_limitations(result, grades, language),
        *_findings_by_level(grades, language),
        _training_note(result.training, language),
    ]
    return "\n".join(lines)


def _grade_words(result: "StudyFindings", row: int) -> Phrase | None:
    """Returns the words for a finding's grade; None if it was not graded.

    A set without Normal/Mild is named as it is. For a set with it, the most probable grade of the set decides
    whether the finding is listed.
    """
    likeliest = result.grade_of(row)
    if likeliest is None:
        return None
    grades = result.set_of(row) or (likeliest,)
    if Severity.NORMAL_MILD not in grades:
        if Severity.MODERATE not in grades:
            return Phrase.SEVERE
        return Phrase.MODERATE_TO_SEVERE if Severity.SEVERE in grades else Phrase.MODERATE
    likeliest = max(grades, key=lambda grade: float(result.probability[row, grade]))
    if likeliest is Severity.NORMAL_MILD:
        return Phrase.MILD if len(grades) == 1 else Phrase.PROBABLY_MILD
    if Severity.SEVERE not in grades:
        return Phrase.AT_MOST_MODERATE
    return Phrase.PROBABLY_SEVERE if likeliest is Severity.SEVERE else Phrase.PROBABLY_MODERATE


def _limitations(result: "StudyFindings", grades: Sequence[Phrase | None], language: Language) -> list[str]:
    """Returns sentences on level shifts, findings without a grade, missing planes and missing points."""

    def flagged(flag: Flag) -> list[int]:
        return [row for row, grade in enumerate(grades) if grade and flag in result.flags_of(row)]

    rows = {
        Phrase.LEVEL_SHIFT: flagged(Flag.LEVEL_SHIFT),
        Phrase.NOT_GRADED: [row for row, grade in enumerate(grades) if grade is None],
        **{Phrase[flag.name]: flagged(flag) for flag in _FURTHER_FLAGS},
    }
    return [
        phrase.fill(language, findings=_located_findings(found, language))
        for phrase, found in rows.items()
        if found
    ]


def _located_findings(rows: Collection[int], language: Language) -> str:
    """Returns findings with their levels: `all findings (L5/S1); left foraminal narrowing (L1/L2, L4/L5)`.

    The order of the groups depends on levels and families, not on sides.
    """
    at_level: dict[Level, list[Condition]] = {level: [] for level in Level}
    for row in rows:
        at_level[FINDINGS[row].level].append(FINDINGS[row].condition)
    groups: dict[tuple[Condition, ...], list[Level]] = defaultdict(list)
    for family in (None, *Family):
        for level, conditions in at_level.items():
            is_whole = len(conditions) == len(Condition)
            chosen = [condition for condition in conditions if family in (None, condition.family)]
            if chosen and is_whole == (family is None):
                groups[tuple(chosen)].append(level)
    return Phrase.SEPARATOR.fill(language).join(
        f"{_condition_words(conditions, language)} ({_level_list(levels, language)})"
        for conditions, levels in groups.items()
    )


def _findings_by_level(grades: Sequence[Phrase | None], language: Language) -> list[str]:
    """Returns a line for each level with findings above mild, the worst first, and one for all others."""
    listed: dict[Level, list[_ListedFinding]] = {}
    others: dict[Phrase, list[Level]] = {Phrase.PROBABLY_MILD: [], Phrase.MILD: []}
    for level in Level:
        rows = [row for row, finding in enumerate(FINDINGS) if finding.level is level]
        found = _list_findings({FINDINGS[row].condition: grades[row] for row in rows})
        if found:
            listed[level] = found
            continue
        for phrase, levels in others.items():
            if any(grades[row] is phrase for row in rows):
                levels.append(level)
                break
    lines = []
    for level in sorted(listed, key=lambda level: [-finding.rank for finding in listed[level]], reverse=True):
        words = [_condition_words(found.conditions, language, found.grade) for found in listed[level]]
        findings = Phrase.SEPARATOR.fill(language).join(words)
        lines.append(Phrase.LEVEL.fill(language, levels=level.title, findings=findings))
    lines += [
        phrase.fill(language, levels=_level_list(levels, language))
        for phrase, levels in others.items()
        if levels
    ]
    return lines


def _list_findings(grades: dict[Condition, Phrase | None]) -> list[_ListedFinding]:
    """Returns a level's findings above mild, worst first and canal first; equal sides are one."""
    groups: dict[tuple[Phrase, Family], list[Condition]] = defaultdict(list)
    for condition, grade in grades.items():
        if grade in _LISTED:
            groups[grade, condition.family].append(condition)
    found = [_ListedFinding(grade, tuple(conditions)) for (grade, _), conditions in groups.items()]
    families = list(Family)
    return sorted(found, key=lambda finding: (finding.rank, families.index(finding.conditions[0].family)))


def _condition_words(conditions: Sequence[Condition], language: Language, grade: Phrase | None = None) -> str:
    """Returns one condition, both sides of one, or all conditions, with a grade if there is one."""
    if len(conditions) == len(Condition):
        return Phrase.ALL_FINDINGS.fill(language)
    words = "" if grade is None else grade.fill(language)
    phrase = Phrase.__members__.get(_condition_phrase(conditions))
    if phrase is None:  # a family without phrases, which only English has words for
        texts = [f"{words} {condition.title.lower()}" for condition in conditions]
    else:
        texts = [phrase.fill(language, grade=words)]
    return ", ".join(" ".join(text.split()) for text in texts)


def _condition_phrase(conditions: Sequence[Condition]) -> str:
    """Returns the name of the phrase of a family's conditions, such as `FORAMINAL_LEFT`."""
    family, side = conditions[0].family.name, conditions[0].side
    if side is None:
        return family
    return f"{family}_{'BOTH' if len(conditions) == len(Side) else side.name}"


def _level_list(levels: Iterable[Level], language: Language) -> str:
    """Returns levels with runs of neighbours as ranges: `L1/L2 to L3/L4, L5/S1`."""
    order = list(Level)
    runs: list[list[Level]] = []
    for level in levels:
        if runs and order.index(level) == order.index(runs[-1][-1]) + 1:
            runs[-1].append(level)
        else:
            runs.append([level])
    parts = []
    for run in runs:
        if len(run) < _MIN_RANGE:
            parts += [level.title for level in run]
        else:
            parts.append(Phrase.LEVEL_RANGE.fill(language, first=run[0].title, last=run[-1].title))
    return ", ".join(parts)


def _training_note(training: "TrainingData", language: Language) -> str:
    if training.is_synthetic:
        return Phrase.TRAINED_ON_SYNTHETIC.fill(language)
    if training.origin:
        return Phrase.TRAINED_ON.fill(language, data=training.origin.rstrip("."))
    return Phrase.TRAINING_UNDOCUMENTED.fill(language)
