"""DICOM Structured Report (SR) of a study's findings, for the archive that the study came from.

A Comprehensive 3D SR (PS3.3 section A.35.13) of template TID 1500, Measurement Report, with one measurement
group (TID 1501) per finding: its code, site, level and side, the calibrated probability of each grade, the
level point in patient space and the images nearest to it. The report is preliminary and unverified.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    Comprehensive3DSR,
    ContainerContentItem,
    CoordinatesForMeasurement3D,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TrackingIdentifier,
)
from highdicom.sr.value_types import ContentSequence
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import Comprehensive3DSRStorage

from lumbar_tf.files import replace_atomically
from lumbar_tf.interop.codes import (
    LIMITATION,
    MOST_PROBABLE,
    PROCEDURE,
    RATIO,
    bound_codes,
    finding_code,
    flag_code,
    grade_code,
    level_code,
    probability_code,
    side_code,
    site_code,
)
from lumbar_tf.interop.report_content import (
    MANUFACTURER,
    GradedFinding,
    anonymous_dataset,
    copy_identity,
    equipment,
    grade_findings,
    list_remarks,
    result_uid,
    series_uid,
    software_version,
)
from lumbar_tf.interop.source_references import (
    ReportReference,
    SourceImage,
    SourceStudy,
    derived_uid,
    nearest_images,
)
from lumbar_tf.labels import OWN_SCHEME_UID, Code, CodingScheme
from lumbar_tf.prediction.results import StudyFindings

#: High, so that viewers list the scanner's series first.
_SERIES_NUMBER = 9901
_SERIES_DESCRIPTION = "lumbar_tf findings, research use only"
#: PS3.16 TID 1500, row 12.
_QUALITATIVE = CodedConcept("C0034375", "UMLS", "Qualitative Evaluations")


def write_sr(
    path: Path,
    source: SourceStudy,
    result: StudyFindings,
    *,
    model: str,
    replaced: Sequence[ReportReference] = (),
) -> None:
    """Writes the structured report atomically.

    Args:
        path: DICOM file to write.
        source: UIDs of the study and of its images, at least one.
        result: findings of the study.
        model: version of the bundle.
        replaced: stored reports of the study, oldest first. The report names the last other one as its
            predecessor (PS3.3 section C.17.2).
    """
    report = make_sr(source, result, model=model, replaced=replaced)
    with replace_atomically(path) as temporary:
        report.save_as(temporary, enforce_file_format=True)


def make_sr(
    source: SourceStudy, result: StudyFindings, *, model: str, replaced: Sequence[ReportReference] = ()
) -> Comprehensive3DSR:
    """Returns the structured report; see `write_sr` for the arguments."""
    own_uid = result_uid("sr", source, result, model)
    groups = [_group(source, finding, model) for finding in grade_findings(result)]
    content = MeasurementReport(
        observation_context=_observer(model),
        procedure_reported=_concept(PROCEDURE),
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    _insert_note(content[0], result)
    content[0].ContentSequence.append(_remarks(source, result))
    report = Comprehensive3DSR(
        evidence=_evidence(source),
        content=content[0],
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


def _concept(code: Code) -> CodedConcept:
    return CodedConcept(code.value, code.scheme.value, code.meaning)


def _observer(model: str) -> ObservationContext:
    device = DeviceObserverIdentifyingAttributes(
        uid=derived_uid("device", model),
        name=MANUFACTURER,
        manufacturer_name=MANUFACTURER,
        model_name=software_version(model),
    )
    context = ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    return ObservationContext(observer_device_context=context)


def _group(source: SourceStudy, graded: GradedFinding, model: str) -> MeasurementsAndQualitativeEvaluations:
    condition, level = graded.finding.condition, graded.finding.level
    images = nearest_images(source, condition, graded.point)
    side = condition.side
    site = FindingSite(
        anatomic_location=_concept(site_code(condition)),
        laterality=_concept(side_code(side)) if side else None,
        topographical_modifier=_concept(level_code(level)),
    )
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            # The same in every report on this study, whatever the model.
            uid=derived_uid("finding", source.study_uid, graded.finding.name),
            identifier=graded.title,
        ),
        finding_type=_concept(finding_code(condition)),
        finding_sites=[site],
        algorithm_id=AlgorithmIdentification(name=MANUFACTURER, version=software_version(model)),
        measurements=_measurements(graded, images),
        qualitative_evaluations=_evaluations(graded),
        source_images=[_image(image) for image in images],
    )


def _measurements(graded: GradedFinding, images: list[SourceImage]) -> list[Measurement]:
    measurements = []
    for severity, value in graded.probability.items():
        points = [_point(graded, images[0])] if images else None
        code = _concept(probability_code(severity))
        measurements.append(Measurement(code, value, _concept(RATIO), referenced_coordinates=points))
    for severity, bounds in graded.bounds.items():
        for code, value in zip(bound_codes(severity), bounds, strict=True):
            measurements.append(Measurement(_concept(code), value, _concept(RATIO)))
    return measurements


def _point(graded: GradedFinding, image: SourceImage) -> CoordinatesForMeasurement3D:
    """Returns the level point, LPS mm, in the frame of reference of an image."""
    return CoordinatesForMeasurement3D(
        graphic_type="POINT",
        graphic_data=np.asarray(graded.point, np.float32)[np.newaxis],
        frame_of_reference_uid=image.frame_of_reference_uid,
    )


def _evaluations(graded: GradedFinding) -> list[QualitativeEvaluation]:
    evaluations = [
        QualitativeEvaluation(_concept(LIMITATION), _concept(flag_code(flag))) for flag in graded.flags
    ]
    if graded.grade is not None:
        grade = QualitativeEvaluation(_concept(MOST_PROBABLE), _concept(grade_code(graded.grade)))
        evaluations.insert(0, grade)
    return evaluations


def _image(image: SourceImage) -> SourceImageForMeasurementGroup:
    frames = None if image.frame_number is None else [image.frame_number]
    return SourceImageForMeasurementGroup(image.sop_class_uid, image.sop_instance_uid, frames)


def _insert_note(root: Dataset, result: StudyFindings) -> None:
    """Adds the note on the training data before the measurements, as TID 1500 is extensible."""
    items = root.ContentSequence
    names = [item.ConceptNameCodeSequence[0].CodeValue for item in items]
    items.insert(names.index(codes.DCM.ImagingMeasurements.value), _comment(result.training_note))


def _comment(text: str) -> TextContentItem:
    return TextContentItem(codes.DCM.Comment, text, relationship_type=RelationshipTypeValues.CONTAINS)


def _remarks(source: SourceStudy, result: StudyFindings) -> ContainerContentItem:
    container = ContainerContentItem(name=_QUALITATIVE, relationship_type=RelationshipTypeValues.CONTAINS)
    container.ContentSequence = ContentSequence([_comment(text) for text in list_remarks(source, result)])
    return container


def _evidence(source: SourceStudy) -> list[Dataset]:
    """Returns one dataset per image that was read, the input of highdicom's evidence sequence."""
    evidence: dict[str, Dataset] = {}
    for image in source.images:
        dataset = anonymous_dataset(source)
        dataset.SOPClassUID, dataset.SOPInstanceUID = image.sop_class_uid, image.sop_instance_uid
        dataset.SeriesInstanceUID = image.series_uid
        evidence.setdefault(image.sop_instance_uid, dataset)
    return list(evidence.values())
