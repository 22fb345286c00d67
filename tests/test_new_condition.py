"""A sixth condition needs two entries in `labels.py` and no line elsewhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_a_condition_of_the_table_reaches_crops_grader_stacker_and_report(tmp_path: Path) -> None:
    """In a process of its own: the table is read when the package is imported."""
    result = subprocess.run(
        [sys.executable, REPOSITORY / "tests" / "sixth_condition.py", tmp_path],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "driven through: spondylolisthesis_l1_l2" in result.stdout
