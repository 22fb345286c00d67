from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lumbar_tf.cli.command import run_command
from lumbar_tf.inspect_data import InspectDataOptions, run_inspect_data


def _run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        run_command(InspectDataOptions, run_inspect_data, arguments=arguments)
    return int(ended.value.code or 0)


@pytest.fixture
def study(tmp_path: Path, write_dicom: Callable[..., Path]) -> Path:
    """One study without tables, a sagittal T2 of three slices."""
    for number in range(1, 4):
        write_dicom(
            tmp_path / "data" / "1.2.3" / "1.2.4" / f"{number}.dcm",
            np.arange(24 * 32, dtype=np.uint16).reshape(24, 32),
            InstanceNumber=number,
            ImagePositionPatient=[4.0 * number, 0.0, 0.0],
            SeriesDescription="SAG T2 TSE",
        )
    return tmp_path / "data"


def test_the_command_prints_tables_and_writes_page_and_json(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(f"--data={study}", f"--out={tmp_path / 'out'}") == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["Sagittal", "T2/STIR", "1", "1", "3"] for line in lines)
    assert any(line.split() == ["24", "x", "32", "0", "1", "0"] for line in lines)
    assert ["usable", "1"] in [line.split() for line in lines]
    assert lines[-1].split() == ["page", str(tmp_path / "out" / "inspection.html")]
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == [
        "inspection.html",
        "inspection.json",
    ]


def test_the_key_file_replaces_ids(study: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("k" * 32)
    assert _run(f"--data={study}", f"--out={tmp_path / 'out'}", f"--pseudonym-key-file={key}") == 0
    page = (tmp_path / "out" / "inspection.html").read_text()
    assert "1.2.3" not in page
    assert "k" * 32 not in page


@pytest.mark.parametrize(
    ("flags", "status"),
    [
        ((), 2),
        (("--data={here}/absent",), 1),
        (("--data={here}/data", "--series-map={here}/absent.csv"), 2),
        (("--data={here}/data", "--pseudonym-key-file={here}/absent"), 1),
        (("--data={here}/data", "--max-montages=-1"), 2),
    ],
)
def test_a_wrong_call_ends_with_its_status(
    study: Path, tmp_path: Path, flags: tuple[str, ...], status: int
) -> None:
    assert _run(*(each.format(here=tmp_path) for each in flags), f"--out={tmp_path / 'out'}") == status
    assert not (tmp_path / "out").exists()
