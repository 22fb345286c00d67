import html
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from lumbar_tf.dicom.study import Study
from lumbar_tf.labels import FINDINGS, Flag, Level, Plane
from lumbar_tf.prediction.impression import make_impression
from lumbar_tf.prediction.impression_phrases import Language
from lumbar_tf.prediction.results import ModelSource, StudyFindings
from lumbar_tf.reports.study_report import percent, write_study_report
from lumbar_tf.serving.training_data import TrainingData
from tests.reports.html_page import Page, check_self_contained
from tests.reports.reported_study import (
    SOURCE,
    make_crop_outlines,
    make_result,
    make_saliency,
    make_study,
    mirror_result,
    mirror_study,
    severe_row,
)

NASTY = '<script>alert("1")</script>'


def _write(
    folder: Path,
    study: Study,
    result: StudyFindings,
    source: ModelSource = SOURCE,
    crop_outlines: object = None,
) -> str:
    path = folder / "new" / "report.html"
    outlines = make_crop_outlines(result) if crop_outlines is None else crop_outlines
    write_study_report(path, study, result, source, outlines)  # type: ignore[arg-type]
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return _write(tmp_path_factory.mktemp("report"), make_study(), make_result())


def _data(text: str) -> dict:
    (found,) = re.findall(r'id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(found)


def _cells(text: str) -> list[list[tuple[int, str]]]:
    """The grid, line by line: each cell's row of the 25 and its classes."""
    rows = [
        (int(attributes["data-row"]), attributes["class"])
        for tag, attributes in Page(text).tags
        if tag == "button" and "cell" in attributes.get("class", "")
    ]
    return [rows[5 * line : 5 * line + 5] for line in range(5)]


def test_the_page_loads_nothing_runs_only_its_own_script_and_escapes_everything(
    text: str, tmp_path: Path
) -> None:
    check_self_contained(text, has_script=True)
    assert "prefers-color-scheme: dark" in text and "@media print" in text
    study = replace(make_study(NASTY), series=tuple(replace(e, series_id=NASTY) for e in make_study().series))
    study = replace(
        study,
        planes={
            plane: tuple(replace(source, series_id=NASTY) for source in slices)
            for plane, slices in study.planes.items()
        },
    )
    nasty = _write(tmp_path, study, make_result(NASTY), ModelSource(NASTY, (NASTY, NASTY)))
    check_self_contained(nasty, has_script=True)
    assert NASTY in Page(nasty).words
    assert "alert" not in re.sub("&lt;script&gt;alert|u003cscript.u003ealert|script&gt;alert", "", nasty)


@pytest.mark.parametrize("is_model_synthetic", [True, False])
@pytest.mark.parametrize("is_study_synthetic", [True, False])
def test_the_note_on_the_training_data_stands_out_where_study_and_model_differ(
    tmp_path: Path, is_model_synthetic: bool, is_study_synthetic: bool
) -> None:
    training = TrainingData("SPIDER", is_model_synthetic)
    source = replace(SOURCE, is_synthetic=is_study_synthetic)
    page = Page(_write(tmp_path, make_study(), replace(make_result(), training=training), source))
    (note,) = [tags for _, tags in page.tags if "training" in (tags.get("class") or "").split()]
    assert ("mismatched" in (note["class"] or "")) == (is_model_synthetic and not is_study_synthetic)
    assert training.note in page.words.partition("Findings")[0]
    assert ("Synthetic studies: no result refers to a patient" in page.words) == is_study_synthetic


def test_patient_and_vendor_are_not_named(text: str) -> None:
    # Base64 may hold any three letters by chance.
    plain = re.sub(r"base64,[^\"]*", "", text)
    assert "Doe" not in plain and "Jane" not in plain and "siemens" not in plain


def test_every_number_is_there_with_its_range_its_members_and_their_slices(text: str) -> None:
    words = Page(text).words
    assert "Research use, not a medical device" in words
    assert "model version 7 (2 members)" in words
    assert "Left neural foraminal narrowing L4/L5: Severe Sev 70% range 35% to 85%" in words
    assert "Severe 70.0% 35.0 to 85.0%" in words
    assert "sagittal_t1/net 9-11 50% 30% 20%" in words
    assert "All three planes are available, and all level points were found." in words
    assert words.count("No member has a prediction for this finding.") == 15
    assert "Sagittal T1 900 11 4.0 mm 80 x 100 2.00 mm" in words


def test_left_findings_stand_in_the_columns_that_are_labelled_left(text: str) -> None:
    lines = _cells(text)
    titles = [re.sub("\u00ad", "", title) for title in re.findall(r'<th scope="col">([^<]*)</th>', text)[:5]]
    for line, level in zip(lines, Level, strict=True):
        for (row, _), title in zip(line, titles, strict=True):
            assert FINDINGS[row].level is level
            assert FINDINGS[row].condition.title == title
    assert [title.split()[0] for title in titles] == ["Right", "Right", "Spinal", "Left", "Left"]
    assert text.index("Patient's RIGHT") < text.index("Patient's LEFT")
    severe = [
        (line, column) for line in range(5) for column in range(5) if "severe" in lines[line][column][1]
    ]
    assert severe == [(3, 4)]


def test_the_mirrored_study_is_severe_at_the_other_side_of_the_page(tmp_path: Path) -> None:
    text = _write(tmp_path, mirror_study(make_study()), mirror_result(make_result()), crop_outlines={})
    severe = [
        (line, column)
        for line, cells in enumerate(_cells(text))
        for column, (_, classes) in enumerate(cells)
        if "severe" in classes
    ]
    assert severe == [(3, 0)]
    # And the slice that it opens at lies at the patient's right.
    plane = _data(text)["planes"]["sagittal_t1"]
    row = _cells(text)[3][0][0]
    assert plane["slices"][plane["start"][row]]["place"] == "16 mm right of the canal"


def test_a_point_and_an_outline_lie_where_simpleitk_puts_them(text: str) -> None:
    study, result, row = make_study(), make_result(), severe_row()
    plane = _data(text)["planes"]["sagittal_t1"]
    start = plane["start"][row]
    geometry = study.planes[Plane.SAGITTAL_T1][start].geometry
    image = sitk.Image(geometry.columns, geometry.rows, 1, sitk.sitkUInt8)
    image.SetOrigin(geometry.position)
    image.SetSpacing((2.0, 2.0, 1.0))
    image.SetDirection((0, 0, 1, 1, 0, 0, 0, -1, 0))
    place = result.landmarks[row].astype(float).tolist()
    column, line, off = image.TransformPhysicalPointToContinuousIndex(place)
    slice_ = plane["slices"][start]
    (point,) = (point for point in slice_["points"] if point[0] == row)
    # Millimetres from the picture's edges; a pixel's centre is half a pixel from its edge.
    assert point[1:3] == pytest.approx([2 * (column + 0.5), 2 * (line + 0.5)], abs=0.01)
    assert abs(point[3]) == pytest.approx(abs(off), abs=0.01)
    assert slice_["size"] == [160, 200]
    (crop,) = (crop for crop in plane["crops"][str(row)] if crop["slice"] == start)
    corners = np.array(crop["corners"])
    np.testing.assert_allclose(corners.mean(axis=0), point[1:3], atol=0.01)
    np.testing.assert_allclose(corners[0], np.array(point[1:3]) - 20, atol=0.01)
    np.testing.assert_allclose(corners[2], np.array(point[1:3]) + 20, atol=0.01)


def test_points_far_from_a_slice_are_not_drawn_on_it(text: str) -> None:
    for plane in _data(text)["planes"].values():
        distances = [abs(point[3]) for slice_ in plane["slices"] for point in slice_["points"]]
        assert distances and max(distances) <= 10


def test_the_page_states_missing_slices_results_intervals_and_outlines(tmp_path: Path) -> None:
    result = make_result()
    nothing = np.full_like(result.probability, np.nan)
    flags = result.flags.copy()
    flags[:, list(Flag).index(Flag.PRIOR_ONLY)] = True
    unknown = np.full_like(result.landmarks, np.nan)
    text = _write(
        tmp_path, Study("s", "", {}), replace(result, probability=nothing, interval=None), crop_outlines={}
    )
    assert "This study has no usable slices." in text and "No result" in text
    check_self_contained(text, has_script=True)
    prior = replace(result, flags=flags, interval=np.full_like(result.interval, np.nan), landmarks=unknown)
    text = _write(tmp_path, make_study(), prior, ModelSource("1"), crop_outlines={})
    words = Page(text).words
    assert "25 findings were predicted without any image" in words
    assert (
        "Prior only" in words
        and "range" not in words.partition("Findings")[2].partition("Selected finding")[0]
    )
    assert "severe" not in {name for line in _cells(text) for _, classes in line for name in classes.split()}
    assert "The slices that the members graded are unknown" in words
    assert "member 1" in words


def test_the_page_has_prediction_sets_in_words_where_there_are_any(tmp_path: Path) -> None:
    sets = np.tile([True, False, False], (25, 1))
    sets[severe_row()] = [False, True, True]
    flags = make_result().flags.copy()
    flags[0, list(Flag).index(Flag.PRIOR_ONLY)] = True
    sets[0] = True
    result = replace(make_result(), prediction_set=sets, set_coverage=0.9, flags=flags)
    words = Page(_write(tmp_path, make_study(), result)).words
    assert "contain a reader's grade in 90% of findings of each grade" in words
    assert "Set: Moderate or Severe" in words and words.count("Set: ") == 1
    assert "Prediction set: Moderate or Severe." in words and "Prediction set: Normal/Mild." in words
    assert (
        "Prediction set: Normal/Mild, Moderate or Severe. Without an image no grade can be excluded." in words
    )
    plain = Page(_write(tmp_path, make_study(), make_result())).words
    assert "rediction set" not in plain and "Set:" not in plain and "reader's grade" not in plain


@pytest.mark.parametrize("language", Language)
def test_the_impression_is_at_the_top_in_its_language(tmp_path: Path, language: Language) -> None:
    result = make_result()
    path = tmp_path / "report.html"
    write_study_report(path, make_study(), result, SOURCE, {}, language=language)
    text = path.read_text(encoding="utf-8")
    (found,) = re.findall(
        rf'<p class="impression" id="impression" lang="{language.value}">(.*?)</p>', text, re.DOTALL
    )
    assert html.unescape(found) == make_impression(result, language)
    assert text.index('id="impression"') < text.index("<summary><h2>Findings")
    check_self_contained(text, has_script=True)


def test_the_page_names_the_contrasts_of_a_series_used_and_left_out(tmp_path: Path) -> None:
    study = make_study()
    used, *others = study.series
    used = replace(used, contrast="TE 105 ms")
    left_out = replace(used, plane=None, reason="unknown_weighting", contrast="TE 15 ms")
    words = Page(_write(tmp_path, replace(study, series=(used, *others, left_out)), make_result())).words
    assert f"{used.series_id} (TE 105 ms)" in words
    assert f"left out: unknown weighting {used.series_id} (TE 15 ms)" in words


@pytest.mark.parametrize("size", [512, 900])
def test_a_large_study_of_noise_stays_under_8_mb_and_counts_the_slices_left_out(
    tmp_path: Path, size: int
) -> None:
    """Forty sagittal slices and 190 axial ones: the longest stack of the competition's profile."""
    study, generator = make_study(), np.random.default_rng(0)
    (first, *_), pixels = (
        study.planes[Plane.AXIAL_T2],
        generator.integers(0, 900, (size, size)).astype(np.uint16),
    )
    geometry = replace(first.geometry, rows=size, columns=size)
    axial = tuple(
        replace(first, pixels=pixels, geometry=replace(geometry, position=(-80.0, -100.0, -90.0 + place)))
        for place in range(190)
    )
    study = replace(study, planes={**study.planes, Plane.AXIAL_T2: axial})
    text = _write(tmp_path, study, make_result())
    assert (tmp_path / "new" / "report.html").stat().st_size < 8_000_000
    kept = len(_data(text)["planes"]["axial_t2"]["slices"])
    assert 0 < kept < 190
    assert f"{kept} of 190 slices are in this file" in Page(text).words


def test_saliency_lies_on_the_slices_of_the_member_with_the_largest_weight(tmp_path: Path) -> None:
    result, row = make_result(), severe_row()
    path = tmp_path / "report.html"
    write_study_report(path, make_study(), result, SOURCE, make_crop_outlines(result), make_saliency())
    text = path.read_text(encoding="utf-8")
    check_self_contained(text, has_script=True)
    crops = _data(text)["planes"]["sagittal_t1"]["crops"][str(row)]
    assert [crop["slice"] for crop in crops if "map" in crop] == [8, 9, 10]
    assert _data(text)["saliency"][str(row)] == {
        "plane": "sagittal_t1", "source": "sagittal_t1/net, on Sagittal T1", "percent": 100, "number": 10,
    }  # fmt: skip
    words = Page(text).words
    assert "sagittal_t1/net (largest weight) 9-11" in words
    assert "not a segmentation" in words and "Saliency is not available" not in words


def test_without_saliency_the_page_states_it_and_has_no_checkbox(text: str, tmp_path: Path) -> None:
    assert 'id="saliency"' not in text and "the model does not provide it" in Page(text).words
    path = tmp_path / "report.html"
    write_study_report(path, make_study(), make_result(), SOURCE, {}, make_saliency())
    unplaced = path.read_text(encoding="utf-8")
    assert (
        'id="saliency"' not in unplaced
        and "the positions of this study's crops are unknown" in Page(unplaced).words
    )


def test_percentages_round_to_certainty_only_if_exact() -> None:
    assert [percent(share) for share in (0.0, 0.0001, 0.005, 0.5, 0.9999, 1.0)] == [
        "0%", "<1%", "<1%", "50%", ">99%", "100%",
    ]  # fmt: skip
