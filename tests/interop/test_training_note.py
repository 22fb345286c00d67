"""Note on the model's training data in every format, read back by a library of the format."""

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from highdicom.sr import srread
from PIL import Image
from pypdf import PdfReader

from lumbar_tf.interop.output_formats import OutputFormat
from lumbar_tf.interop.result_formats import predict_to_folder
from lumbar_tf.prediction.results import findings_frame
from lumbar_tf.serving.training_data import TrainingData
from tests.interop import hospital
from tests.interop.dciodvfy import find_errors
from tests.interop.presentation_reader import read_slices
from tests.interop.sr_reader import read_groups
from tests.prediction.test_pipeline import FakeEnsemble
from tests.reports.html_page import Page, check_self_contained

STUDY = hospital.LUMBAR_STUDY
MODELS = {
    "synthetic": TrainingData("10,000 patients", is_synthetic=True),
    "documented": TrainingData("SPIDER, 88 studies"),
    "undocumented": TrainingData(),
    "markup": TrainingData('<script>alert("1")</script> & \\frac{$^$'),
}
#: RGB of the band behind the note of a model that was trained on synthetic studies.
BAND = (246, 201, 168)


class Graded:
    """Results of a hospital's study, a real one to the package, by a model with some training data."""

    def __init__(self, folder: Path, training: TrainingData) -> None:
        self.out, self.training = folder / "out", training
        model = FakeEnsemble()
        model.training = training
        disc = hospital.write_hospital_export(folder / "disc").root
        found = predict_to_folder(disc, model, self.out, formats=tuple(OutputFormat))
        self.findings = next(findings for findings in found.results if findings.study_id == STUDY)

    def dicom(self, kind: str) -> pydicom.Dataset:
        return pydicom.dcmread(self.out / "dicom" / f"{STUDY}.{kind}.dcm")

    def page(self) -> Page:
        return Page((self.out / "reports" / f"{STUDY}.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module", params=MODELS.values(), ids=list(MODELS))
def graded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Graded:
    return Graded(tmp_path_factory.mktemp("graded"), request.param)


def _json_texts(graded: Graded) -> list[str]:
    studies = json.loads((graded.out / "results.json").read_text())["studies"]
    return [study["training_note"] for study in studies]


def _report_texts(graded: Graded) -> list[str]:
    # Before the findings.
    return [graded.page().words.partition("Lumbar spine MRI, 25 findings")[0]]


def _sr_texts(graded: Graded) -> list[str]:
    content = srread(graded.out / "dicom" / f"{STUDY}.sr.dcm").content
    comments: list[str] = []

    def collect(item: Any) -> None:
        for child in item.get("ContentSequence", ()):
            if child.ValueType == "TEXT" and child.name.meaning == "Comment":
                comments.append(child.value)
            collect(child)

    collect(content[0])
    return [" ".join(comments)]


def _gsps_texts(graded: Graded) -> list[str]:
    slices = read_slices(graded.out / "dicom" / f"{STUDY}.gsps-1.dcm")
    return [next(text.text for text in drawn.texts if text.units == "DISPLAY") for drawn in slices]


def _sc_texts(graded: Graded) -> list[str]:
    return [graded.dicom("sc").ImageComments]


def _pdf_texts(graded: Graded) -> list[str]:
    document = graded.dicom("pdf")
    content = document.EncapsulatedDocument[: document.EncapsulatedDocumentLength]
    (page,) = PdfReader(BytesIO(content)).pages
    return [page.extract_text()]


def _fhir_texts(graded: Graded) -> list[str]:
    bundle = json.loads((graded.out / "fhir" / f"{STUDY}.json").read_text())
    resources = [entry["resource"] for entry in bundle["entry"]]
    texts = [resource["note"][0]["text"] for resource in resources if "note" in resource]
    assert len(texts) == 25 + 1
    return [*texts, *(resource["conclusion"] for resource in resources if "conclusion" in resource)]


def _frame_texts(graded: Graded) -> list[str]:
    return findings_frame(graded.findings)["training_note"].tolist()


READERS: dict[str, Callable[[Graded], list[str]]] = {
    "json": _json_texts,
    "report": _report_texts,
    "sr": _sr_texts,
    "gsps": _gsps_texts,
    "sc": _sc_texts,
    "pdf": _pdf_texts,
    "fhir": _fhir_texts,
    "frame": _frame_texts,
}


@pytest.mark.parametrize("read", READERS.values(), ids=list(READERS))
def test_every_format_has_the_note_as_it_is(graded: Graded, read: Callable[[Graded], list[str]]) -> None:
    texts = read(graded)
    assert texts and all(graded.training.note in text for text in texts)


def test_pictures_have_a_band_if_the_training_studies_were_synthetic(graded: Graded) -> None:
    sheet = np.asarray(Image.open(graded.out / "sheets" / f"{STUDY}.png").convert("RGB"))
    for pixels in (sheet, graded.dicom("sc").pixel_array):
        top = pixels[2]
        assert (tuple(top[-3]) == BAND) == graded.training.is_synthetic
        # The note is drawn, with or without a band.
        assert pixels[: len(pixels) // 40].std() > 10


def test_the_report_warns_if_the_model_is_synthetic_and_the_study_is_not(graded: Graded) -> None:
    classes = [attributes.get("class") or "" for _, attributes in graded.page().tags]
    assert any("mismatched" in names for names in classes) == graded.training.is_synthetic
    check_self_contained((graded.out / "reports" / f"{STUDY}.html").read_text(), has_script=True)


def test_the_note_stands_before_the_measurements_of_the_structured_report(graded: Graded) -> None:
    items = graded.dicom("sr").ContentSequence
    places = [place for place, item in enumerate(items) if item.get("TextValue") == graded.training.note]
    names = [item.ConceptNameCodeSequence[0].CodeMeaning for item in items]
    assert places == [names.index("Imaging Measurements") - 1]
    assert len(read_groups(graded.out / "dicom" / f"{STUDY}.sr.dcm")) == 25


def test_dciodvfy_reports_no_error(graded: Graded) -> None:
    for kind in ("sr", "gsps-1", "sc", "pdf"):
        assert find_errors(graded.out / "dicom" / f"{STUDY}.{kind}.dcm") == []


def test_results_with_another_note_have_another_uid(tmp_path: Path) -> None:
    """An archive that has the result without the note takes the one with it."""
    first, other = (Graded(tmp_path / name, MODELS[name]) for name in ("synthetic", "undocumented"))
    for kind in ("sr", "gsps-1", "sc", "pdf"):
        assert first.dicom(kind).SOPInstanceUID != other.dicom(kind).SOPInstanceUID
