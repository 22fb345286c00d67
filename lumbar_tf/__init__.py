"""Grading of lumbar-spine MRI, from DICOM files to calibrated probabilities.

Public names are listed in `__all__` and documented in docs/api.md; everything else may change in any
release. They are imported on first use, so that `import lumbar_tf` takes no time and loads no TensorFlow.

>>> import lumbar_tf
>>> with lumbar_tf.load_ensemble("models/lumbar") as ensemble:  # doctest: +SKIP
...     result = ensemble.predict(lumbar_tf.read_study("study"))
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lumbar_tf.api.grading import (
        FORMATS,
        Ensemble,
        Predictions,
        StudyResult,
        check_formats,
        load_ensemble,
        predict,
        read_studies,
        read_study,
    )
    from lumbar_tf.dicom.study import Study

__version__ = "0.1.0"

#: Public name -> the module that has it.
_MODULES = {
    "Study": "lumbar_tf.dicom.study",
    "read_study": "lumbar_tf.api.grading",
    "read_studies": "lumbar_tf.api.grading",
    "load_ensemble": "lumbar_tf.api.grading",
    "Ensemble": "lumbar_tf.api.grading",
    "StudyResult": "lumbar_tf.api.grading",
    "Predictions": "lumbar_tf.api.grading",
    "predict": "lumbar_tf.api.grading",
    "FORMATS": "lumbar_tf.api.grading",
    "check_formats": "lumbar_tf.api.grading",
}

__all__ = [
    "Study",
    "read_study",
    "read_studies",
    "load_ensemble",
    "Ensemble",
    "StudyResult",
    "Predictions",
    "predict",
    "FORMATS",
    "check_formats",
]


class _Package(ModuleType):
    """This package, whose functions are not replaced by the commands' modules of the same names.

    `python -m lumbar_tf.train` needs a module `lumbar_tf.train`, and the import system binds a submodule to
    its package when it is first imported.
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
