"""Which studies are of one patient, without writing down who that is."""

from collections.abc import Mapping, Sequence

from lumbar_tf.dicom.study_files import read_patient_id
from lumbar_tf.records.cohort import CohortStudy
from lumbar_tf.records.manifest import StudyEntry, group_patients


def group_studies(
    studies: Sequence[StudyEntry],
    jobs: Sequence[CohortStudy],
    patient_ids: Mapping[str, str],
    *,
    has_key: bool,
) -> tuple[StudyEntry, ...]:
    """Gives each study its `patient_group`.

    Args:
        studies: the manifest's entries.
        jobs: where each study's files are.
        patient_ids: PatientID by study id, of the studies that were read just now. Those of studies that
            an earlier, cut-off run read are in no file, so their headers are asked again.
        has_key: whether entries hold their patient's pseudonym, so that nothing has to be read.

    Returns:
        The entries, in the same order.
    """
    if has_key:
        groups = {each.study_id: each.patient_group or each.study_id for each in studies}
    else:
        files = {each.study_id: each.files for each in jobs}
        groups = group_patients(
            {
                each.study_id: patient_ids[each.study_id]
                if each.study_id in patient_ids
                else read_patient_id(files[each.study_id])
                for each in studies
            }
        )
    return tuple(each.model_copy(update={"patient_group": groups[each.study_id]}) for each in studies)
