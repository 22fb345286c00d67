"""Result formats for hospital systems, on request only."""

import json
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest

from lumbar_tf.dicom.sources.study_source import read_source
from lumbar_tf.interop import output_formats
from lumbar_tf.interop.output_formats import (
    STORED_FORMATS,
    OutputFormat,
    check_extras,
    find_files,
    parse_formats,
)
from lumbar_tf.interop.result_formats import predict_to_folder
from lumbar_tf.privacy.identifying_values import collect_identifying_values
from lumbar_tf.privacy.pseudonyms import IdKind, pseudonym
from lumbar_tf.records.identifying_text import find_identifying_text
from tests.interop import hospital
from tests.interop.dciodvfy import find_errors
from tests.prediction.test_pipeline import FakeEnsemble
from tests.small_cohort import write_small_cohort

HOSPITAL = tuple(each for each in OutputFormat if each.spec.needs_header)
STUDY = "910000001"


def _written(out: Path) -> set[str]:
    return {str(path.relative_to(out)) for folder in ("dicom", "fhir") for path in (out / folder).glob("*")}


def test_no_format_is_written_unless_requested(tmp_path: Path, write_dicom: Callable[..., Path]) -> None:
    cohort = write_small_cohort(tmp_path / "cohort", [STUDY], write_dicom)
    predict_to_folder(cohort, FakeEnsemble(), tmp_path / "out")
    assert _written(tmp_path / "out") == set()
    predict_to_folder(cohort, FakeEnsemble(), tmp_path / "out", formats=(OutputFormat.FHIR,))
    assert _written(tmp_path / "out") == {f"fhir/{STUDY}.json"}


def test_the_competitions_uids_are_kept_and_are_the_only_errors_of_dciodvfy(
    tmp_path: Path, write_dicom: Callable[..., Path]
) -> None:
    cohort = write_small_cohort(tmp_path / "cohort", [STUDY], write_dicom)
    predict_to_folder(cohort, FakeEnsemble(), tmp_path / "out", formats=HOSPITAL)
    # The fake ensemble's points are on the slices of one series.
    kinds = ("sr.dcm", "gsps-1.dcm", "pdf.dcm", "sc.dcm")
    assert _written(tmp_path / "out") == {
        *(f"dicom/{STUDY}.{kind}" for kind in kinds),
        f"fhir/{STUDY}.json",
    }
    for path in (tmp_path / "out" / "dicom").iterdir():
        assert pydicom.dcmread(path).StudyInstanceUID == STUDY
        assert [error for error in find_errors(path) if "Illegal root for UID" not in error] == []


def test_no_format_is_written_for_an_unreadable_study(
    tmp_path: Path, write_dicom: Callable[..., Path]
) -> None:
    cohort = write_small_cohort(tmp_path / "cohort", [STUDY, "910000002"], write_dicom)
    for path in (cohort / "train_images" / "910000002").rglob("*.dcm"):
        path.write_bytes(b"nothing")
    predict_to_folder(cohort, FakeEnsemble(), tmp_path / "out", formats=HOSPITAL)
    assert {name.split("/")[1].split(".")[0] for name in _written(tmp_path / "out")} == {STUDY}


def test_patient_data_are_in_the_formats_only_and_pseudonymised_with_a_key(tmp_path: Path) -> None:
    disc = hospital.write_hospital_export(tmp_path / "disc").root
    key = b"k" * 32
    with read_source(disc) as source:
        secret = collect_identifying_values(source.studies, are_ids_secret=True)
        values = collect_identifying_values(source.studies, are_ids_secret=False)
    out, hidden = tmp_path / "out", tmp_path / "hidden"
    predict_to_folder(disc, FakeEnsemble(), out, formats=HOSPITAL)
    predict_to_folder(disc, FakeEnsemble(), hidden, formats=HOSPITAL, key=key)
    # The document has the implementation UID of pydicom, which also wrote the images of the test.
    issues = find_identifying_text(hidden, secret)
    assert [issue for issue in issues if "ImplementationClassUID" not in issue.message] == []
    name = pseudonym(key, IdKind.STUDY, hospital.LUMBAR_STUDY)
    (fhir,) = [json.loads((hidden / "fhir" / f"{name}.json").read_text())["entry"][0]["resource"]]
    patient = pseudonym(key, IdKind.PATIENT, hospital.IDENTITY["PatientID"])
    assert fhir["subject"]["identifier"]["value"] == patient
    # The search finds what it looks for where it is, and nowhere else.
    assert find_identifying_text(out / "dicom", values) != ()
    for path in [path for path in out.iterdir() if path.is_file()]:
        (tmp_path / "rest").mkdir(exist_ok=True)
        path.rename(tmp_path / "rest" / path.name)
    assert find_identifying_text(tmp_path / "rest", values) == ()


def test_formats_that_need_highdicom_are_refused_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_formats, "find_spec", lambda name: None)
    check_extras([OutputFormat.PDF, OutputFormat.FHIR])
    for each in (*STORED_FORMATS, OutputFormat.GSPS):
        with pytest.raises(ValueError, match=r"pip install 'lumbar_tf\[dicom\]'"):
            check_extras([each])


@pytest.mark.parametrize(
    ("name", "nearest"), [("gsp", "gsps"), ("SR", None), ("reports", "report"), ("fihr", "fhir"), ("", None)]
)
def test_an_unknown_format_is_answered_with_the_nearest_one(name: str, nearest: str | None) -> None:
    with pytest.raises(ValueError, match="must be of sheets, report, sr, gsps, pdf, sc, fhir") as error:
        parse_formats(["sr", name])
    hint = "" if nearest is None else f" (did you mean {nearest}?)"
    assert str(error.value).endswith(f"Received: {name!r}{hint}.")


def test_numbered_files_are_found_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = ("1.2.gsps-10.dcm", "1.2.gsps-9.dcm", "1.2.3.gsps-1.dcm", "1.2.gsps-x.dcm", "1.2.sr.dcm")
    for name in names:
        (tmp_path / name).touch()
    assert [path.name for path in find_files(tmp_path / "1.2.gsps-*.dcm")] == [names[1], names[0]]
    assert find_files(tmp_path / "1.2.sr.dcm") == [tmp_path / "1.2.sr.dcm"]
    assert find_files(tmp_path / "1.2.pdf.dcm") == []
