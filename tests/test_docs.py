"""What the documents say is what the package does."""

import re
from pathlib import Path

from lumbar_tf.dicom.files import codecs, frames, headers
from lumbar_tf.dicom.reasons import ReasonKind, RejectReason
from lumbar_tf.dicom.sources import archives
from lumbar_tf.records.issues import IssueCode

INGESTION = Path(__file__).resolve().parents[1] / "docs" / "ingestion.md"
TEXT = INGESTION.read_text(encoding="utf-8")
#: | input | `code` | kind | what the system does |
ROWS = re.findall(r"^\| ([^|]+) \| `(\w+)` \| (\w+) \| ([^|]+) \|$", TEXT, re.MULTILINE)
COMMANDS = set(re.findall(r"python -m lumbar_tf\.(\w+)", TEXT))


def test_the_table_of_reasons_has_a_row_for_each_code_in_order_with_its_kind() -> None:
    assert [(code, ReasonKind(kind)) for _, code, kind, _ in ROWS] == [
        (each.value, each.kind) for each in RejectReason
    ]


def test_the_table_of_damage_has_a_row_for_each_code_in_order() -> None:
    codes = re.findall(r"^\| `(\w+)` \| [^|]+ \|$", TEXT, re.MULTILINE)
    assert codes == [each.value for each in IssueCode]


def test_no_two_rows_of_the_table_say_the_same_of_the_input() -> None:
    assert len({row[0] for row in ROWS}) == len(ROWS)


def test_every_code_that_the_text_names_exists() -> None:
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", TEXT))
    others = {"series_description", "patient_group", "spinal_canal_stenosis", "train_images", "test_images"}
    assert named - others - COMMANDS <= {each.value for code in (RejectReason, IssueCode) for each in code}


def test_the_table_of_transfer_syntaxes_is_what_is_read() -> None:
    found = re.findall(r"\b1\.2\.840\.10008\.1\.2[.\d]*", TEXT)
    assert sorted(found) == sorted(str(each) for each in (*codecs.CODECS, *codecs.NATIVE_SYNTAXES))


def test_the_limits_are_those_of_the_code() -> None:
    for value, words in (
        (headers.MAX_FILE_BYTES, "| a file | 1 GiB |"),
        (headers.MAX_HEADER_BYTES, "6 MiB"),
        (headers.MAX_ELEMENTS, "20,000 elements"),
        (frames.MAX_PIXELS, "64 Mi pixels"),
        (frames.MAX_FRAMES, "| frames in a file | 65,536 |"),
        (headers.MAX_INFLATED_BYTES, "512 MiB, and"),
        (headers.MAX_INFLATE_RATIO, "100 times its size"),
        (headers.SMALL_INFLATED_BYTES, "over 64 MiB"),
        (archives.MAX_ZIP_BYTES, "64 GiB unpacked"),
        (archives.MAX_ZIP_MEMBERS, "500,000 files"),
        (archives.MAX_ZIP_RATIO, "200 times its packed size"),
    ):
        number, unit = re.findall(r"([\d,]+) ?(Ki|Mi|Gi)?", words)[0]
        assert int(number.replace(",", "")) * {"": 1, "Mi": 1 << 20, "Gi": 1 << 30}[unit] == value
        assert words in TEXT
