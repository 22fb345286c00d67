"""Commands of the package run in this process, where TensorFlow is loaded already."""

import contextlib
import io
import runpy
import sys
import warnings
from subprocess import CompletedProcess

import pytest


def run_in_process(module: str, *words: object) -> CompletedProcess[str]:
    """Runs `python -m lumbar_tf.<module> <words>` without starting a process.

    Returns:
        Exit status, standard output and standard error, as of a process.
    """
    arguments = [str(word) for word in words]
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        warnings.catch_warnings(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as end,
    ):
        # runpy's, of a module that this process has imported before.
        warnings.filterwarnings("ignore", ".*found in sys.modules", RuntimeWarning)
        patch.setattr(sys, "argv", [module, *arguments])
        runpy.run_module(f"lumbar_tf.{module}", run_name="__main__")
    return CompletedProcess([module, *arguments], int(end.value.code or 0), out.getvalue(), err.getvalue())
