"""Grading of lumbar-spine MRI, from DICOM files to calibrated probabilities.

The public names are those of `__all__`, documented in docs/api.md; everything else may change in any release.
Each is imported on first use, so that `import lumbar_tf` is quick and loads no TensorFlow.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lumbar_tf.api.bundles import ExportedBundle, export
    from lumbar_tf.api.cohorts import (
        Inspection,
        inspect_data,
        preview,
        write_best_predictions,
        write_synthetic_cohort,
    )
    from lumbar_tf.api.environment import BundleInfo, Environment, info
    from lumbar_tf.api.evaluation import EvaluationResult, ScoreComparison, compare, evaluate
    from lumbar_tf.api.grading import Ensemble, load_ensemble, predict, read_studies, read_study
    from lumbar_tf.api.records import (
        RecordsResult,
        VerificationResult,
        build_records,
        forget_patients,
        verify,
    )
    from lumbar_tf.api.results import FORMATS, Predictions, StudyResult, check_formats
    from lumbar_tf.api.review import DriftResult, LabelReview, monitor, review_labels, write_site_reference
    from lumbar_tf.api.stacking import Stacker, StackingResult, stack
    from lumbar_tf.api.training import TrainingResult, train
    from lumbar_tf.dicom.geometry import patient_to_pixel, pixel_to_patient
    from lumbar_tf.dicom.study import Study, arrange_slices
    from lumbar_tf.prediction.pipeline import encode_study

__version__ = "0.1.0"

#: Public name -> the module that defines it.
_MODULES = {
    "Study": "lumbar_tf.dicom.study",
    "arrange_slices": "lumbar_tf.dicom.study",
    "pixel_to_patient": "lumbar_tf.dicom.geometry",
    "patient_to_pixel": "lumbar_tf.dicom.geometry",
    "encode_study": "lumbar_tf.prediction.pipeline",
    "read_study": "lumbar_tf.api.grading",
    "read_studies": "lumbar_tf.api.grading",
    "load_ensemble": "lumbar_tf.api.grading",
    "Ensemble": "lumbar_tf.api.grading",
    "predict": "lumbar_tf.api.grading",
    "StudyResult": "lumbar_tf.api.results",
    "Predictions": "lumbar_tf.api.results",
    "FORMATS": "lumbar_tf.api.results",
    "check_formats": "lumbar_tf.api.results",
    "build_records": "lumbar_tf.api.records",
    "RecordsResult": "lumbar_tf.api.records",
    "forget_patients": "lumbar_tf.api.records",
    "verify": "lumbar_tf.api.records",
    "VerificationResult": "lumbar_tf.api.records",
    "train": "lumbar_tf.api.training",
    "TrainingResult": "lumbar_tf.api.training",
    "stack": "lumbar_tf.api.stacking",
    "StackingResult": "lumbar_tf.api.stacking",
    "Stacker": "lumbar_tf.api.stacking",
    "export": "lumbar_tf.api.bundles",
    "ExportedBundle": "lumbar_tf.api.bundles",
    "evaluate": "lumbar_tf.api.evaluation",
    "EvaluationResult": "lumbar_tf.api.evaluation",
    "compare": "lumbar_tf.api.evaluation",
    "ScoreComparison": "lumbar_tf.api.evaluation",
    "monitor": "lumbar_tf.api.review",
    "DriftResult": "lumbar_tf.api.review",
    "write_site_reference": "lumbar_tf.api.review",
    "review_labels": "lumbar_tf.api.review",
    "LabelReview": "lumbar_tf.api.review",
    "info": "lumbar_tf.api.environment",
    "Environment": "lumbar_tf.api.environment",
    "BundleInfo": "lumbar_tf.api.environment",
    "inspect_data": "lumbar_tf.api.cohorts",
    "Inspection": "lumbar_tf.api.cohorts",
    "preview": "lumbar_tf.api.cohorts",
    "write_synthetic_cohort": "lumbar_tf.api.cohorts",
    "write_best_predictions": "lumbar_tf.api.cohorts",
}

__all__ = [
    "Study",
    "arrange_slices",
    "pixel_to_patient",
    "patient_to_pixel",
    "encode_study",
    "read_study",
    "read_studies",
    "load_ensemble",
    "Ensemble",
    "predict",
    "StudyResult",
    "Predictions",
    "FORMATS",
    "check_formats",
    "build_records",
    "RecordsResult",
    "forget_patients",
    "verify",
    "VerificationResult",
    "train",
    "TrainingResult",
    "stack",
    "StackingResult",
    "Stacker",
    "export",
    "ExportedBundle",
    "evaluate",
    "EvaluationResult",
    "compare",
    "ScoreComparison",
    "monitor",
    "DriftResult",
    "write_site_reference",
    "review_labels",
    "LabelReview",
    "info",
    "Environment",
    "BundleInfo",
    "inspect_data",
    "Inspection",
    "preview",
    "write_synthetic_cohort",
    "write_best_predictions",
]


class _Package(ModuleType):
    """This package; the commands' modules do not replace the functions of the same names.

    `python -m lumbar_tf.train` needs a module `lumbar_tf.train`, and the import system sets a submodule as an
    attribute of its package when it is first imported.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if name not in _MODULES or not isinstance(value, ModuleType):
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}", name=name, obj=self)
        value = getattr(import_module(_MODULES[name]), name)
        super().__setattr__(name, value)
        return value

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package
