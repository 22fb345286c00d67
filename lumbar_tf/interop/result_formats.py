"""A study's result in the hospital's own formats, where they are asked for."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from lumbar_tf.dicom.study import Study
from lumbar_tf.interop.source_references import find_references
from lumbar_tf.prediction.results import StudyFindings

DICOM_FOLDER = "dicom"
FHIR_FOLDER = "fhir"


@dataclass(frozen=True)
class HospitalFormats:
    """What to write besides tables and sheets. All of it holds patient data of the source.

    Attributes:
        dicom: a structured report and the sheet as an image.
        fhir: a report and its observations.
    """

    dicom: bool = False
    fhir: bool = False

    def __bool__(self) -> bool:
        return self.dicom or self.fhir

    def check(self) -> None:
        """Refuses what this environment cannot write.

        Raises:
            ValueError: DICOM is asked for and highdicom is not there.
        """
        if self.dicom and find_spec("highdicom") is None:
            raise ValueError(
                "DICOM results need highdicom: pip install 'lumbar_tf[dicom]'. "
                "Received: an environment without it."
            )


def write_hospital_formats(
    out: Path, study: Study, result: StudyFindings, formats: HospitalFormats, *, model: str
) -> None:
    """Writes `dicom/<study>.sr.dcm`, `dicom/<study>.sc.dcm` and `fhir/<study>.json`, as asked for.

    A study without a slice has nothing that a result could refer to, and gets none.

    Args:
        out: the folder of the answers.
        study: its slices, and its header: what the results say of the patient.
        result: its answer.
        formats: which.
        model: the bundle's version.
    """
    if not formats or not study.planes:
        return
    source = find_references(study)
    name = study.study_id
    if formats.dicom:
        # Here, not above: highdicom is an extra, and takes a second to import.
        from lumbar_tf.interop.dicom_sr import write_sr
        from lumbar_tf.interop.secondary_capture import write_capture

        write_sr(out / DICOM_FOLDER / f"{name}.sr.dcm", source, result, model=model)
        write_capture(out / DICOM_FOLDER / f"{name}.sc.dcm", source, study, result, model=model)
    if formats.fhir:
        from lumbar_tf.interop.fhir import write_fhir

        write_fhir(out / FHIR_FOLDER / f"{name}.json", source, result, model=model)
