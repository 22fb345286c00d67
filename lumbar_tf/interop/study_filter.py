"""Which studies of an archive are of the lumbar spine."""

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass

from lumbar_tf.dicom.series.series_description_patterns import names_lumbar

MODALITY = "MR"


@dataclass(frozen=True)
class StudyFilter:
    """Decides by StudyDescription, BodyPartExamined and SeriesDescription.

    Attributes:
        pattern: found anywhere in the texts, whatever the case; None for the vocabulary that the reader has
            for the lumbar spine. `.*` takes every MR study.
    """

    pattern: re.Pattern[str] | None = None

    def matches(self, texts: Sequence[str]) -> bool:
        """Whether a study is wanted. Its texts are looked at and forgotten.

        >>> StudyFilter().matches(["MRT LWS nativ", "", "t2_tse_sag"]), StudyFilter().matches(["Brain", "t2"])
        (True, False)
        """
        if self.pattern is None:
            return any(names_lumbar(each) for each in texts)
        return self.pattern.search("\n".join(texts)) is not None


def parse_study_filter(pattern: str | None) -> StudyFilter:
    """Reads a rule from the command line.

    Raises:
        ValueError: it is no regular expression.
    """
    if pattern is None:
        return StudyFilter()
    try:
        return StudyFilter(re.compile(pattern, re.IGNORECASE))
    except re.error as error:
        raise ValueError(f"--match must be a regular expression ({error}). Received: {pattern!r}.") from None


@dataclass(frozen=True)
class QueryWindow:
    """Which studies are listed.

    Attributes:
        rule: which of them are of the lumbar spine.
        num_days: those of the last so many days, by StudyDate, today included; None for all.
    """

    rule: StudyFilter
    num_days: int | None = None

    def filters(self, today: datetime.date) -> dict[str, str]:
        """Returns QIDO-RS's keys."""
        keys = {"ModalitiesInStudy": MODALITY}
        if self.num_days is not None:
            # A day more at either end: the archive's clock, and time zones.
            first = today - datetime.timedelta(days=self.num_days)
            last = today + datetime.timedelta(days=1)
            keys["StudyDate"] = f"{first:%Y%m%d}-{last:%Y%m%d}"
        return keys
