"""DICOM Structured Report (SR) of a study's findings, for the archive that the study came from.

A Comprehensive 3D SR (PS3.3 section A.35.13) of template TID 1500, Measurement Report, with one measurement
group (TID 1501) per finding: its code, site, level and side, the calibrated probability of each grade, the
level point in patient space and the images nearest to it. The report is preliminary and unverified.

`Imaging Measurements` contains the findings that a viewer can draw on an image, because OHIF 3.12 shows
nothing if a group there has no coordinates; all other findings are in `Qualitative Evaluations`.
"""

from collections.abc import Sequence
from pathlib import Path

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import (
    CodedConcept,
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    LanguageOfContentItemAndDescendants,
    MeasurementReport,
    ObservationContext,
    ObserverContext,
    RelationshipTypeValues,
    TextContentItem,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import Comprehensive3DSRStorage

from lumbar_tf.files import replace_atomically
from lumbar_tf.interop.codes import PROCEDURE
from lumbar_tf.interop.measurement_groups import coded_concept, contained, make_groups
from lumbar_tf.interop.report_content import (
    MANUFACTURER,
    anonymous_dataset,
    copy_identity,
    equipment,
    grade_findings,
    list_remarks,
    result_uid,
    series_uid,
    software_version,
)
from lumbar_tf.interop.source_references import ReportReference, SourceStudy, derived_uid
from lumbar_tf.labels import OWN_SCHEME_UID, CodingScheme
from lumbar_tf.prediction.impression import make_impression
from lumbar_tf.prediction.impression_phrases import Language
from lumbar_tf.prediction.results import StudyFindings

#: High, so that viewers list the scanner's series first.
_SERIES_NUMBER = 9901
_SERIES_DESCRIPTION = "lumbar_tf findings, research use only"
#: PS3.16 TID 1500, row 12.
_QUALITATIVE = CodedConcept("C0034375", "UMLS", "Qualitative Evaluations")
#: Title of a report without drawn findings (PS3.16 CID 7000), which OHIF 3.12 shows as text. It opens an
#: Imaging Measurement Report at its first measurement, and shows nothing if there is none.
_TITLE_WITHOUT_POINTS = CodedConcept("18748-4", "LN", "Diagnostic Imaging Report")


def write_sr(
    path: Path,
    source: SourceStudy,
    result: StudyFindings,
    *,
    model: str,
    replaced: Sequence[ReportReference] = (),
    language: Language = Language.ENGLISH,
) -> None:
    """Writes the structured report atomically.

    Args:
        path: DICOM file to write.
        source: UIDs of the study and of its images, at least one.
        result: findings of the study.
        model: version of the bundle.
        replaced: stored reports of the study, oldest first. The report names the last other one as its
            predecessor (PS3.3 section C.17.2).
        language: language of the impression.
    """
    report = make_sr(source, result, model=model, replaced=replaced, language=language)
    with replace_atomically(path) as temporary:
        report.save_as(temporary, enforce_file_format=True)


def make_sr(
    source: SourceStudy,
    result: StudyFindings,
    *,
    model: str,
    replaced: Sequence[ReportReference] = (),
    language: Language = Language.ENGLISH,
) -> Comprehensive3DSR:
    """Returns the structured report; see `write_sr` for the arguments."""
    sets = b"" if result.prediction_set is None else result.prediction_set.tobytes()
    impression = make_impression(result, language)
    own_uid = result_uid("sr", source, result, model, impression, sets.hex(), str(result.set_coverage))
    content = _content(source, result, model, _impression(impression, language))
    report = Comprehensive3DSR(
        evidence=_evidence(source),
        content=content,
        series_instance_uid=series_uid("sr", source, model),
        series_number=_SERIES_NUMBER,
        series_description=_SERIES_DESCRIPTION,
        sop_instance_uid=own_uid,
        instance_number=1,
        previous_versions=_predecessors(source, replaced, own_uid) or None,
        is_complete=False,
        is_final=False,
        is_verified=False,
        coding_schemes=[
            CodingSchemeIdentificationItem(
                CodingScheme.OWN.value,
                name="lumbar_tf",
                uid=OWN_SCHEME_UID,
                responsible_organization="lumbar_tf",
            )
        ],
        **equipment(model),
    )
    copy_identity(report, source)
    return report


def _predecessors(source: SourceStudy, replaced: Sequence[ReportReference], own_uid: str) -> list[Dataset]:
    """Returns the last stored report before this one, as highdicom takes it.

    The same images and numbers give a report its old UID: its predecessor is then the one before it.
    """
    uids = [report.sop_instance_uid for report in replaced]
    earlier = replaced[: uids.index(own_uid)] if own_uid in uids else replaced
    if not earlier:
        return []
    dataset = anonymous_dataset(source)
    dataset.SOPClassUID = Comprehensive3DSRStorage
    dataset.SOPInstanceUID, dataset.SeriesInstanceUID = earlier[-1].sop_instance_uid, earlier[-1].series_uid
    return [dataset]


def _observer(model: str) -> ObservationContext:
    device = DeviceObserverIdentifyingAttributes(
        uid=derived_uid("device", model),
        name=MANUFACTURER,
        manufacturer_name=MANUFACTURER,
        model_name=software_version(model),
    )
    context = ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    return ObservationContext(observer_device_context=context)


def _content(source: SourceStudy, result: StudyFindings, model: str, impression: TextContentItem) -> Dataset:
    """Returns the root of the content tree."""
    groups = make_groups(source, grade_findings(result), model)
    content = MeasurementReport(
        observation_context=_observer(model),
        procedure_reported=coded_concept(PROCEDURE),
        # highdicom requires a group.
        imaging_measurements=groups.drawn or groups.others,
        title=codes.DCM.ImagingMeasurementReport if groups.drawn else _TITLE_WITHOUT_POINTS,
    )
    root = content[0]
    if not groups.drawn:
        del root.ContentSequence[-1]
    remarks = [_comment(text) for text in list_remarks(source, result)]
    root.ContentSequence.append(contained(_QUALITATIVE, [*remarks, *(group[0] for group in groups.others)]))
    # TID 1500 is extensible.
    place = _first_section(root)
    root.ContentSequence.insert(place, _comment(result.training_note))
    root.ContentSequence.insert(place, impression)
    return root


def _impression(text: str, language: Language) -> TextContentItem:
    """Returns the impression with its language (TID 1204), in lines as DICOM separates them."""
    # PS3.5 section 6.1.3.
    lines = text.replace("\n", "\r\n")
    item = TextContentItem(codes.DCM.Impression, lines, relationship_type=RelationshipTypeValues.CONTAINS)
    item.ContentSequence = LanguageOfContentItemAndDescendants(
        CodedConcept(language.value, "RFC5646", language.title)
    )
    return item


def _first_section(root: Dataset) -> int:
    """Returns the place of the first container with findings or remarks."""
    sections = {codes.DCM.ImagingMeasurements.value, _QUALITATIVE.value}
    names = [item.ConceptNameCodeSequence[0].CodeValue for item in root.ContentSequence]
    return next(place for place, name in enumerate(names) if name in sections)


def _comment(text: str) -> TextContentItem:
    return TextContentItem(codes.DCM.Comment, text, relationship_type=RelationshipTypeValues.CONTAINS)


def _evidence(source: SourceStudy) -> list[Dataset]:
    """Returns one dataset per image that was read, the input of highdicom's evidence sequence."""
    evidence: dict[str, Dataset] = {}
    for image in source.images:
        dataset = anonymous_dataset(source)
        dataset.SOPClassUID, dataset.SOPInstanceUID = image.sop_class_uid, image.sop_instance_uid
        dataset.SeriesInstanceUID = image.series_uid
        evidence.setdefault(image.sop_instance_uid, dataset)
    return list(evidence.values())
