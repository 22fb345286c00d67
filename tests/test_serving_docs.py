"""`docs/serving.md` names what there is."""

import importlib
import re
from pathlib import Path

from lumbar_tf.monitoring import drift, quantities, reference
from lumbar_tf.retry import RetryPolicy
from lumbar_tf.serving.connection import ConnectionOptions
from lumbar_tf.serving.transport import ServingFailure

REPOSITORY = Path(__file__).resolve().parents[1]
TEXT = (REPOSITORY / "docs" / "serving.md").read_text(encoding="utf-8")


def test_every_failure_has_a_row_and_says_whether_it_is_asked_again() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .+ \| (yes|no) \|$", TEXT, re.MULTILINE)
    assert rows == [(each.value, "yes" if each.is_transient else "no") for each in ServingFailure]


def test_every_file_and_function_that_the_text_names_exists() -> None:
    (table,) = re.findall(r"\| file \| what \|\n(.*?)\n\n", TEXT, re.S)
    named = set(re.findall(r"`([a-z]+\.(?:config|yaml))`", table))
    assert named == {each.name for each in (REPOSITORY / "configs" / "serving").iterdir()}
    for name in re.findall(r"`((?:tests|configs|tfrecords)/[\w./]*)`", TEXT):
        assert (REPOSITORY / name).exists(), name
    for name in re.findall(r"`(lumbar_tf(?:\.\w+){3,})`", TEXT):
        module, _, function = name.rpartition(".")
        assert hasattr(importlib.import_module(module), function), name


def test_the_numbers_are_those_of_the_code() -> None:
    policy, sizes = RetryPolicy(), ConnectionOptions.__dataclass_fields__
    for value, words in (
        (policy.first_wait_s, "waiting 0.5 s"),
        (policy.max_wait_s, "up to 10 s between"),
        (sizes["max_request_bytes"].default / 2**30, "sends up to 1 GiB"),
        (sizes["max_response_bytes"].default / 2**20, "up to 64 MiB"),
        (drift.MODERATE_PSI, "is at least 0.1 (moderate"),
        (drift.LARGE_PSI, "from 0.25 on large"),
        (drift.FALSE_ALARM_RATE, "p below 0.01 divided"),
        (reference.MIN_STUDIES, "must hold 30 studies"),
    ):
        assert words in TEXT
        assert float(re.findall(r"\d+(?:\.\d+)?", words)[0]) == value
    for name in quantities.IMAGE_QUANTITIES:
        word = {"row_spacing_mm": "spacing", "gap_mm": "gap", "low": "percentiles", "high": "percentiles"}
        assert word.get(name, name) in TEXT
