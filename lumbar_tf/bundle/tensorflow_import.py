"""Import of TensorFlow without Keras, for processes that only run an exported graph.

`import tensorflow` ends with an import of Keras, which takes about as long as the rest: Keras imports
scikit-learn, pandas and matplotlib. A SavedModel needs none of them. TensorFlow ignores an ImportError there
(the end of its `__init__.py`, versions 2.17 to 2.21), so the import of Keras is made to fail for that moment;
code that uses Keras later imports it as always.
"""

import importlib
import sys
import threading
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_KERAS = "keras"


def import_tensorflow() -> None:
    """Imports TensorFlow, without Keras if neither of them is imported yet."""
    if "tensorflow" in sys.modules:
        return
    finder = _PostponingFinder()
    if _KERAS not in sys.modules:
        sys.meta_path.insert(0, finder)
    try:
        importlib.import_module("tensorflow")
    finally:
        if finder in sys.meta_path:
            sys.meta_path.remove(finder)


class _PostponingFinder(MetaPathFinder):
    """Finds Keras and lets its import fail, in the thread that made it only."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Returns where Keras is, which TensorFlow asks for too, with a loader that fails."""
        if fullname != _KERAS or threading.get_ident() != self._thread:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None:
            spec.loader = _FailingLoader()
        return spec


class _FailingLoader(Loader):
    """Loader of a module whose import fails."""

    def exec_module(self, module: ModuleType) -> None:
        """Raises ImportError."""
        raise ImportError(f"{module.__name__} is imported when it is first used", name=module.__name__)
