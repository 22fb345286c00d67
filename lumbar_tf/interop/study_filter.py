"""Filter for lumbar-spine MR studies in an archive, and the window of the archive's study list."""

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass

from lumbar_tf.dicom.series.series_description_patterns import is_lumbar_study

MODALITY = "MR"


@dataclass(frozen=True)
class StudyFilter:
    """Filter on StudyDescription, BodyPartExamined and SeriesDescription.

    Attributes:
        pattern: regular expression that is searched for in the descriptions, ignoring case; None for the
            reader's vocabulary of the lumbar spine. `.*` matches every MR study.
    """

    pattern: re.Pattern[str] | None = None

    def matches(self, descriptions: Sequence[str]) -> bool:
        """Returns whether a study with these descriptions is wanted. The descriptions are not kept.

        >>> StudyFilter().matches(["MRT LWS nativ", "", "t2_tse_sag"]), StudyFilter().matches(["Brain", "t2"])
        (True, False)
        """
        if self.pattern is None:
            return is_lumbar_study(descriptions)
        return self.pattern.search("\n".join(descriptions)) is not None


def parse_study_filter(pattern: str | None) -> StudyFilter:
    """Returns the filter of the option `--match`.

    Raises:
        ValueError: the pattern is not a regular expression.
    """
    if pattern is None:
        return StudyFilter()
    try:
        return StudyFilter(re.compile(pattern, re.IGNORECASE))
    except re.error as error:
        raise ValueError(f"--match must be a regular expression ({error}). Received: {pattern!r}.") from None


@dataclass(frozen=True)
class QueryWindow:
    """Window of the list of studies.

    Attributes:
        study_filter: filter for the studies to grade.
        num_days: number of days back by StudyDate, today included; None for all.
    """

    study_filter: StudyFilter
    num_days: int | None = None

    def filters(self, today: datetime.date) -> dict[str, str]:
        """Returns the keys of the QIDO-RS query."""
        keys = {"ModalitiesInStudy": MODALITY}
        if self.num_days is not None:
            # One day more at both ends, for time zones and the archive's clock.
            first = today - datetime.timedelta(days=self.num_days)
            last = today + datetime.timedelta(days=1)
            keys["StudyDate"] = f"{first:%Y%m%d}-{last:%Y%m%d}"
        return keys
