"""A cohort of a few small DICOM files a study, in the competition's layout: made in a moment."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from lumbar_tf.labels import Plane

NUM_SLICES = 4
_SAGITTAL, _AXIAL = [0.0, 1.0, 0.0, 0.0, 0.0, -1.0], [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]


def write_small_cohort(folder: Path, study_ids: Sequence[str], write_dicom: Callable[..., Path]) -> Path:
    """Writes studies of three series of four slices each, and the table of their descriptions.

    Args:
        folder: gets `train_images` and `train_series_descriptions.csv`.
        study_ids: the studies; their pixels differ.
        write_dicom: the fixture of this name.

    Returns:
        The folder.
    """
    rows = ["study_id,series_id,series_description"]
    for study_id in study_ids:
        rng = np.random.default_rng(int(study_id))
        for number, plane in enumerate(Plane, start=1):
            rows.append(f"{study_id},{number}00{study_id},{plane.series_description}")
            for place in range(NUM_SLICES):
                path = folder / "train_images" / study_id / f"{number}00{study_id}" / f"{place + 1}.dcm"
                position = [4.0 * place, 0.0, 0.0] if plane.is_sagittal else [0.0, 0.0, 4.0 * place]
                write_dicom(
                    path,
                    rng.integers(0, 1200, (24, 20)).astype(np.uint16),
                    ImagePositionPatient=position,
                    ImageOrientationPatient=_SAGITTAL if plane.is_sagittal else _AXIAL,
                    PatientID=study_id,
                    InstanceNumber=place + 1,
                )
    (folder / "train_series_descriptions.csv").write_text("\n".join(rows) + "\n")
    return folder
