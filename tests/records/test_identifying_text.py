import json
import os
import struct
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from lumbar_tf.dicom.sources.study_source import StudyFiles
from lumbar_tf.privacy.identifying_values import IdentifyingValues, collect_identifying_values
from lumbar_tf.privacy.phrases import package_words, split_words
from lumbar_tf.records.example import serialize_example
from lumbar_tf.records.framing import RecordWriter
from lumbar_tf.records.identifying_text import find_identifying_text

#: A header's values by tag, and how each may turn up in a text that leaks it.
PLANTED: dict[str, tuple[str, str]] = {
    "PatientName": ("Quexley^Zabrina^Ottoline", "QUEXLEY"),
    "PatientID": ("HN-77x4411", "hn 77x4411"),
    "PatientBirthDate": ("19480213", "1948-02-13"),
    "PatientBirthTime": ("041533.250000", "04:15:33"),
    "AccessionNumber": ("88231907", "88231907"),
    "OtherPatientIDs": ("ZZ9001177", "ZZ9001177"),
    "OtherPatientNames": ("Wexbury^Zabrina", "Zabrina Wexbury"),
    "PatientBirthName": ("Ulmquist^Zabrina", "Ulmquist"),
    "PatientMotherBirthName": ("Vandermolk", "vandermolk"),
    "PatientAddress": ("14 Quillfeather Lane, Ostwick", "Quillfeather Lane, Ostwick"),
    "PatientTelephoneNumbers": ("555-014-9988", "555 014 9988"),
    "PatientAge": ("078Y", "078Y"),
    "EthnicGroup": ("Skolvish", "Skolvish"),
    "Occupation": ("Glassblower", "glassblower"),
    "AdditionalPatientHistory": (
        "Fell from a horse near Brambleford bridge, walks badly since",
        "a horse near Brambleford bridge",
    ),
    "PatientComments": ("Prefers to be called Tuppence at home", "called Tuppence at home"),
    "MedicalRecordLocator": ("MRL5520917", "MRL5520917"),
    "ReferringPhysicianName": ("Grimshaw^Hollis", "Grimshaw"),
    "ReferringPhysicianTelephoneNumbers": ("+49 611 2087311", "49 (611) 2087311"),
    "PerformingPhysicianName": ("Ploverdale^Ines", "Dr. Ploverdale"),
    "OperatorsName": ("Oakenshaw^Timo", "oakenshaw"),
    "PhysiciansOfRecord": ("Nightjar^Odo", "NIGHTJAR, ODO"),
    "InstitutionName": ("Klinik Silberbach", "Klinik Silberbach"),
    "InstitutionAddress": ("Uferweg 9, 65189 Silberbach", "Uferweg 9, 65189 Silberbach"),
    "InstitutionalDepartmentName": ("Radiologie Turm C2", "radiologie_turm_c2"),
    "StationName": ("MRTURM7SKY", "MRTURM7SKY"),
    "DeviceSerialNumber": ("4471902", "4471902"),
    "StudyDate": ("20231107", "07.11.2023"),
    "AcquisitionDateTime": ("20231106101112.5", "20231106101112.5"),
    "StudyTime": ("093015.771300", "093015.771300"),
    "StudyDescription": ("Notfall Wirbelkontrolle", "Notfall-Wirbelkontrolle"),
    "ProtocolName": ("lws_quirrelprotokoll", "LWS Quirrelprotokoll"),
    "ImageComments": ("Bewegungsartefakt Frau Quatember", "bewegungsartefakt frau quatember"),
    "RequestedProcedureID": ("RQ-70551", "RQ-70551"),
    "StudyID": ("ST44719", "ST44719"),
    "PerformedProcedureStepID": ("PPSX123987", "PPSX123987"),
}
#: Values that no keyword of the top level names.
DEEP: dict[str, str] = {
    "OtherPatientIDsSequence.PatientID": "NESTED44017",
    "RequestAttributesSequence.RequestedProcedureDescription": "Kontrolle nach Unfall Birkhuhn",
    "RequestAttributesSequence.ScheduledProtocolCodeSequence.CodeMeaning": "Haubentaucherprogramm",
    "(0029,1010)": "Murmelwirt",
    "(0029,1011)": "PRIVATECODE9",
    "(0029,1012)": "privatebytes Eisvogel",
    "(0031,1001).PatientName": "Rotmilan",
    "(7FE1,1001)": "behindpixels Steinadler",
    "SourceApplicationEntityTitle": "AETPIROL",
    "folder name": "Zaunkoenig Bildarchiv",
    "file name": "Wendehals Export",
}
VALUES = {**{tag: text for tag, (_, text) in PLANTED.items()}, **DEEP}


def _fill(path: Path) -> None:
    dataset = pydicom.dcmread(path)
    for keyword, (value, _) in PLANTED.items():
        setattr(dataset, keyword, value)
    other, request, code = Dataset(), Dataset(), Dataset()
    other.PatientID = DEEP["OtherPatientIDsSequence.PatientID"]
    dataset.OtherPatientIDsSequence = [other]
    code.CodeMeaning = DEEP["RequestAttributesSequence.ScheduledProtocolCodeSequence.CodeMeaning"]
    request.RequestedProcedureDescription = "Kontrolle nach Unfall Birkhuhn"
    request.ScheduledProtocolCodeSequence = [code]
    dataset.RequestAttributesSequence = [request]
    block = dataset.private_block(0x0029, "QUIRREL GMBH", create=True)
    block.add_new(0x10, "LO", DEEP["(0029,1010)"])
    block.add_new(0x11, "CS", DEEP["(0029,1011)"])
    block.add_new(0x12, "OB", DEEP["(0029,1012)"].encode() + b"\0")
    nested = Dataset()
    nested.PatientName = "Rotmilan^Ida"
    dataset.private_block(0x0031, "QUIRREL GMBH", create=True).add_new(0x01, "SQ", [nested])
    behind = dataset.private_block(0x7FE1, "QUIRREL GMBH", create=True)
    behind.add_new(0x01, "LT", DEEP["(7FE1,1001)"])
    dataset.file_meta.SourceApplicationEntityTitle = "AETPIROL"
    dataset.save_as(path)


@pytest.fixture
def study(tmp_path: Path, write_dicom: Callable[..., Path]) -> StudyFiles:
    """One study of two files; one has the planted values, both lie in folders with names."""
    root = tmp_path / "source" / "4003253"
    path = root / "Zaunkoenig_Bildarchiv" / "1" / "Wendehals Export.dcm"
    write_dicom(path, np.ones((4, 4), np.uint16), SeriesDescription="T2", Manufacturer="SIEMENS")
    write_dicom(root / "1" / "2.dcm", np.ones((4, 4), np.uint16), PatientID="4003253")
    _fill(path)
    return StudyFiles("4003253", root)


@pytest.fixture
def values(study: StudyFiles) -> IdentifyingValues:
    return collect_identifying_values([study])


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """A finished folder with something of each kind, and nothing of a patient."""
    folder = tmp_path / "out"
    folder.mkdir()
    content = {
        "study_id": "4003253",
        "plane": "Sagittal T2/STIR",
        "vendor": "siemens",
        "probability": 0.88231907,
        "size_bytes": 948120,
        "sha256": "ab88231907cd4471902e",
    }
    (folder / "manifest.json").write_text(json.dumps(content, indent=1))
    (folder / "folds.csv").write_text("study_id,fold_id\n4003253,0\n")
    (folder / "report.html").write_text("<p>Lumbar spine, level L4/L5: Normal/Mild</p>")
    (folder / "sheet.png").write_bytes(_png(b"Software\0lumbar_tf"))
    _write_shard(folder / "part-00000.tfrecord", {})
    return folder


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _png(text: bytes, name: bytes = b"tEXt") -> bytes:
    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    pixels = _chunk(b"IDAT", zlib.compress(b"\0\0"))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(name, text) + pixels + _chunk(b"IEND", b"")


def _write_shard(path: Path, extra: Mapping[str, list[bytes]]) -> None:
    features: dict[str, Any] = {"study_id": [b"4003253"], "plane": [b"sagittal_t2"], "series/id": [b"1.2.3"]}
    with path.open("wb") as file:
        writer = RecordWriter(file)
        writer.write(serialize_example(features))
        writer.write(serialize_example({**features, **extra}))


def _found(folder: Path, values: IdentifyingValues) -> set[tuple[str, int | None, str]]:
    return {(each.file, each.record, each.message) for each in find_identifying_text(folder, values)}


def test_a_clean_folder_passes(clean: Path, values: IdentifyingValues) -> None:
    assert len(VALUES) >= 45
    assert _found(clean, values) == set()


def test_every_tag_is_collected(values: IdentifyingValues) -> None:
    collected = set().union(*values.tags.values())
    assert set(VALUES) <= collected
    assert values.num_unread == 0


@pytest.mark.parametrize("tag", VALUES)
def test_a_value_is_found_by_its_tag_wherever_it_leaks(
    clean: Path, values: IdentifyingValues, tag: str
) -> None:
    text = VALUES[tag]
    content = json.loads((clean / "manifest.json").read_text())
    (clean / "manifest.json").write_text(json.dumps({**content, "message": f"bad\n{text}\tvalue"}))
    (clean / "folds.csv").write_text(f'study_id,fold_id\n"{text}",0\n')
    (clean / "report.html").write_text(f"<p>{text}</p>")
    _write_shard(clean / "part-00000.tfrecord", {"notes": [text.encode()]})
    found = {(file, record) for file, record, message in _found(clean, values) if f"'s {tag}" in message}
    assert found >= {
        ("manifest.json", None),
        ("folds.csv", None),
        ("report.html", None),
        ("part-00000.tfrecord", 1),
    }


@pytest.mark.parametrize("tag", [tag for tag, text in VALUES.items() if len(text) >= 6])
def test_a_value_among_bytes_is_found(clean: Path, values: IdentifyingValues, tag: str) -> None:
    text = VALUES[tag].encode()
    length = bytes([len(text)])
    kinds = {
        "sheet.png": _png(b"Comment\0" + text),
        "packed.png": _png(b"Comment\0\0" + zlib.compress(b"of " + text), b"zTXt"),
        "behind.png": _png(b"Software\0x") + text,
        "model.pb": b"\x0a\x00\x01\x12" + length + text + b"\x1a\x02ok\x00",
        "wide.bin": b"\x00\x01\x02\x03" + text.decode().encode("utf-16-le") + b"\x00",
        "report.pdf": b"%PDF-1.4\n1 0 obj<<>>stream\r\n" + zlib.compress(b"(" + text + b")") + b"endstream",
    }
    for name, data in kinds.items():
        (clean / name).write_bytes(data)
    assert {file for file, _, message in _found(clean, values) if f"'s {tag}" in message} == set(kinds)


def test_a_finding_shows_no_value(clean: Path, values: IdentifyingValues) -> None:
    (clean / "Quexley_report.html").write_text("Quexley")
    _write_shard(clean / "part-00000.tfrecord", {"Quexley": [b"x"]})
    found = find_identifying_text(clean, values)
    assert len(found) == 3
    assert not any("quexley" in str(each).lower() for each in found)


def test_escaped_and_encoded_texts_are_read(
    clean: Path, tmp_path: Path, write_dicom: Callable[..., Path]
) -> None:
    root = tmp_path / "more" / "1"
    write_dicom(
        root / "1" / "1.dcm",
        np.ones((4, 4), np.uint16),
        SpecificCharacterSet="ISO_IR 192",
        PatientName="Mühlhäuser^Zoé=山田^太郎",
    )
    values = collect_identifying_values([StudyFiles("1", root)])
    (clean / "a.json").write_text(json.dumps({"x": "Mühlhäuser"}))
    (clean / "b.html").write_text("M&uuml;hlh&#228;user")
    (clean / "c.txt").write_bytes("Herr Mühlhäuser".encode("latin-1"))
    (clean / "d.txt").write_text("herr MUHLHAUSER")
    (clean / "e.txt").write_text("患者 山田 太郎")
    found = {(file, message) for file, _, message in _found(clean, values)}
    names = ("a.json", "b.html", "c.txt", "d.txt", "e.txt")
    assert found == {(name, "it contains the source's PatientName") for name in names}


def test_a_long_text_is_searched_across_its_blocks(clean: Path, values: IdentifyingValues) -> None:
    # Files are read in blocks of 4 MiB.
    for place in ((4 << 20) - 10, (4 << 20) - 5, (8 << 20) - 10):
        for filler in (b"x ", b"\x00 "):
            data = (filler * (4 << 20))[:place] + b" Klinik Silberbach " + filler * 1000
            (clean / "long.bin").write_bytes(data)
            assert {each[0] for each in _found(clean, values)} == {"long.bin"}


def test_a_damaged_shard_hides_nothing(clean: Path, values: IdentifyingValues) -> None:
    path = clean / "part-00000.tfrecord"
    _write_shard(path, {"notes": [b"Klinik Silberbach"]})
    path.write_bytes(path.read_bytes()[:-3])
    found = {(file, message) for file, _, message in _found(clean, values)}
    message = "it contains the source's InstitutionName, outside its valid records"
    assert found == {("part-00000.tfrecord", message)}


def test_whole_words_only(clean: Path, values: IdentifyingValues) -> None:
    (clean / "notes.txt").write_text(
        "xQUEXLEY QUEXLEYx 1948-02-1 88231907.5e3x 188231907 Klinik am Silberbach"
    )
    (clean / "model.pb").write_bytes(b"\x00xxquexleyxx ab88231907cd")
    found = {(file, message) for file, _, message in _found(clean, values)}
    # The whole part of a decimal number that long is an identifier with an ending.
    assert found == {("notes.txt", "it contains the source's AccessionNumber")}


def test_ids_count_where_they_are_pseudonyms(clean: Path, study: StudyFiles) -> None:
    values = collect_identifying_values([study], are_ids_secret=True)
    messages = {message for _, _, message in _found(clean, values)}
    assert "it contains the source's study id" in messages
    assert "it contains the source's PatientID" in messages
    series = pydicom.dcmread(study.root / "1" / "2.dcm").SOPInstanceUID
    (clean / "notes.txt").write_text(f"of {series}.")
    messages = {message for file, _, message in _found(clean, values) if file == "notes.txt"}
    assert messages == {
        "it contains the source's SOPInstanceUID",
        "it contains the source's MediaStorageSOPInstanceUID",
    }


def test_files_that_cannot_be_read_in_full_still_have_a_patient(
    tmp_path: Path, write_dicom: Callable[..., Path]
) -> None:
    root = tmp_path / "1"
    path = write_dicom(root / "1" / "1.dcm", np.ones((64, 64), np.uint16), PatientName="Quexley^Z")
    path.write_bytes(path.read_bytes()[:-100])
    (root / "1" / "2.dcm").write_bytes(b"junk")
    (root / "1" / "3.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\x02\x00")
    values = collect_identifying_values([StudyFiles("1", root)])
    assert values.tags["quexley"] == {"PatientName"}


def test_what_the_program_says_by_itself_is_no_finding() -> None:
    words = package_words()
    assert {"lumbar", "sagittal", "stir", "siemens", "severe", "manifest", "slices"} <= words
    assert not {"quexley", "doe", "jane", "smith"} & words


@pytest.mark.slow
def test_two_workers_find_the_same(clean: Path, values: IdentifyingValues) -> None:
    (clean / "notes.txt").write_text("Quexley at Klinik Silberbach")
    (clean / "model.pb").write_bytes(b"\0\0of Klinik Silberbach")
    found = find_identifying_text(clean, values, workers=2)
    assert found == find_identifying_text(clean, values)
    assert len(found) == 3


def test_pipes_and_links_are_named_and_not_followed(clean: Path, values: IdentifyingValues) -> None:
    (clean.parent / "outside.txt").write_text("Quexley")
    (clean / "link.txt").symlink_to(clean.parent / "outside.txt")
    os.mkfifo(clean / "pipe.tfrecord")
    found = {(issue.code.value, issue.file) for issue in find_identifying_text(clean, values)}
    assert found == {("file_unreadable", "link.txt"), ("file_unreadable", "pipe.tfrecord")}


def test_a_hundred_thousand_values_are_searched_at_reading_speed(clean: Path) -> None:
    """Within 20 times of cutting the text into words: a search that tried each value would take hours."""
    tags = {f"family{number} given{number}": frozenset({"PatientName"}) for number in range(100_000)}
    text = "family5 givenx of 0.123456 and more, " * 40_000
    (clean / "long.txt").write_text(text + "family77 given77")
    started = time.perf_counter()
    split_words(text)
    cutting_s = time.perf_counter() - started
    started = time.perf_counter()
    found = find_identifying_text(clean, IdentifyingValues(tags, 0))
    assert [each.file for each in found] == ["long.txt"]
    assert time.perf_counter() - started < 20 * cutting_s + 5
