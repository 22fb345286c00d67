from pathlib import Path

import numpy as np
import pytest

from lumbar_tf.dicom.reasons import RejectReason
from lumbar_tf.labels import FINDINGS, MISSING_LABEL, Severity
from lumbar_tf.tables.labels import read_label_tables, read_labels, read_labels_tolerantly
from tests.tables.made_tables import write_table


def _snake_header() -> str:
    return ",".join(["study_id", *(finding.name for finding in FINDINGS)])


def test_reads_the_competitions_layout(tmp_path: Path) -> None:
    cells = ["Normal/Mild", "Moderate", "Severe", "", *["Moderate"] * 21]
    ids, labels = read_labels(write_table(tmp_path / "t.csv", _snake_header(), ",".join(["4003253", *cells])))
    assert ids == ["4003253"]
    assert labels.dtype == np.int8
    assert labels[0, :4].tolist() == [0, 1, 2, MISSING_LABEL]
    assert (labels[0, 4:] == Severity.MODERATE).all()


def test_both_spellings_read_the_same(tmp_path: Path) -> None:
    titles = [f"{f.condition.value.replace('_', ' ').title()} {f.level.title}" for f in FINDINGS]
    assert "Left Neural Foraminal Narrowing L5/S1" in titles
    snake = write_table(
        tmp_path / "a.csv", _snake_header(), ",".join(["1", *["normal_mild", "severe"] * 12, ""])
    )
    title = write_table(
        tmp_path / "b.csv",
        ",".join(["study_id", *titles]),
        ",".join(["1", *["Normal/Mild", "Severe"] * 12, ""]),
    )
    assert (read_labels(snake)[1] == read_labels(title)[1]).all()


def test_columns_may_be_in_any_order_and_absent_ones_are_missing(tmp_path: Path) -> None:
    table = write_table(
        tmp_path / "t.csv", f"{FINDINGS[3].name},study_id,{FINDINGS[0].name}", "Severe,7,Moderate"
    )
    _, labels = read_labels(table)
    assert labels[0, [0, 3]].tolist() == [1, 2]
    assert (np.delete(labels[0], [0, 3]) == MISSING_LABEL).all()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((f"study_id,{FINDINGS[0].name}", "1,Sever"), f"line 2, column {FINDINGS[0].name}.*'Sever'"),
        (("study_id,spinal_canal_stenosis_l6_s1", "1,Severe"), "l6_s1"),
        (("study_id,patient_age", "1,50"), "patient_age"),
        ((f"study,{FINDINGS[0].name}", "1,Severe"), "column study_id"),
        ((f"study_id,{FINDINGS[0].name}", "1,Severe", "1,Severe"), "line 3.*'1'"),
        ((f"study_id,{FINDINGS[0].name}", "1"), "2 cells. Received: 1"),
        ((f"study_id,{FINDINGS[0].name},Spinal Canal Stenosis L1/L2", "1,Severe,Severe"), "none twice"),
        (("study_id",), "at least one column"),
    ],
)
def test_faults_are_named(tmp_path: Path, lines: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_labels(write_table(tmp_path / "faulty.csv", *lines))
    assert "faulty.csv" in str(caught.value)


def test_the_tolerant_reader_keeps_what_is_sound(tmp_path: Path) -> None:
    header = f"study_id,{FINDINGS[0].name},{FINDINGS[1].name}"
    rows = ("1,Severe,Doe", "2,Moderate", "3,Moderate,Severe", "3,Severe,Severe", ",Severe,Severe", "4,,")
    labels, rejects = read_labels_tolerantly(write_table(tmp_path / "t.csv", header, *rows))
    assert {study: row[:2].tolist() for study, row in labels.items()} == {
        "1": [Severity.SEVERE, MISSING_LABEL],
        "3": [Severity.MODERATE, Severity.SEVERE],
        "4": [MISSING_LABEL, MISSING_LABEL],
    }
    assert [(each.study_id, each.reason, each.message[:6]) for each in rejects] == [
        ("1", RejectReason.BAD_LABEL, "line 2"),
        ("2", RejectReason.BAD_TABLE_ROW, "line 3"),
        ("3", RejectReason.BAD_TABLE_ROW, "line 5"),
        ("", RejectReason.BAD_TABLE_ROW, "line 6"),
    ]
    assert not any("Doe" in each.message for each in rejects)
    assert {each.file_name for each in rejects} == {"t.csv"}


def test_both_readers_read_a_sound_table_alike(shared_data: Path) -> None:
    path = shared_data / "spider" / "midsagittal" / "train.csv"
    ids, labels = read_labels(path)
    tolerant, rejects = read_labels_tolerantly(path)
    assert list(tolerant) == ids
    assert (np.stack(list(tolerant.values())) == labels).all()
    assert rejects == []


def test_a_faulty_header_is_fatal_to_both(tmp_path: Path) -> None:
    for data in (b"study_id,patient_age\n1,50\n", b"", b"study_id,\xff\n", b'study_id,"\x00'):
        (tmp_path / "t.csv").write_bytes(data)
        for read in (read_labels, read_labels_tolerantly):
            with pytest.raises(ValueError, match=r"t\.csv"):
                read(tmp_path / "t.csv")


def test_several_tables_are_one_below_the_other_and_share_no_study(tmp_path: Path) -> None:
    header = f"study_id,{FINDINGS[0].name}"
    first, second = (
        write_table(tmp_path / "a.csv", header, "1,Severe"),
        write_table(tmp_path / "b.csv", header, "2,Moderate"),
    )
    ids, labels = read_label_tables([first, second])
    assert ids == ["1", "2"]
    assert labels[:, 0].tolist() == [2, 1]
    with pytest.raises(ValueError, match=r"one label table.*'1'"):
        read_label_tables([first, first])


def test_real_tables_have_canal_labels_only(shared_data: Path) -> None:
    ids, labels = read_label_tables(
        [shared_data / "spider" / name / "train.csv" for name in ("midsagittal", "t2space")]
    )
    assert len(ids) == 54 + 34
    assert (labels[:, 5:] == MISSING_LABEL).all()
    assert sorted(np.unique(labels[:, :5]).tolist()) == [0, 1, 2] or -1 in labels[:, :5]
    # 170 of t2space and 270 of midsagittal, says the data's own README.
    assert (labels[:, :5] != MISSING_LABEL).sum() == 440


def test_a_table_with_a_byte_order_mark_is_read(shared_data: Path) -> None:
    study_ids, labels = read_labels(shared_data.parent / "cases" / "tables" / "excel_bom.csv")
    assert len(study_ids) == len(labels) > 0
    assert (labels >= 0).any()
