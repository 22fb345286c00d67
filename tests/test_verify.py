import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lumbar_tf.cli.command import run_command
from lumbar_tf.records.build import BuildTask, run_build_task
from lumbar_tf.records.manifest import BuildOptions
from lumbar_tf.verify import VerifyOptions, run_verify

REPOSITORY = Path(__file__).resolve().parents[1]
OPTIONS = BuildOptions(studies_per_shard=2, num_folds=1, fold_seed=0)
KEY = b"0123456789abcdef0123456789abcdef"


@pytest.fixture
def source(tmp_path: Path, write_dicom: Callable[..., Path]) -> Path:
    """Two studies of an export without tables."""
    for study in ("1.2.40077.1", "1.2.40077.2"):
        for number in (1, 2):
            write_dicom(
                tmp_path / "source" / study / f"{study}.7" / f"{number}.dcm",
                np.full((6, 8), 100 * number, np.uint16),
                InstanceNumber=number,
                ImagePositionPatient=[4.0 * number, 0.0, 0.0],
                SeriesDescription="T2 TSE sagittal",
                PatientID=f"HN77{study[-1]}",
                PatientName="Quexley^Zabrina",
                InstitutionName="Klinik Silberbach",
                PatientBirthDate="19480213",
            )
    return tmp_path / "source"


@pytest.fixture
def records(source: Path, tmp_path: Path) -> Path:
    run_build_task(BuildTask(sources=[source], out=tmp_path / "out", options=OPTIONS))
    return tmp_path / "out"


def _verify(**options: object) -> int:
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    with pytest.raises(SystemExit) as end:
        run_command(VerifyOptions, run_verify, arguments=words)
    return int(end.value.code or 0)


def test_what_was_just_built_is_sound(
    records: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _verify(records=records, data=str(source), phi=True) == 0
    printed = capsys.readouterr().out
    assert re.search(r"sound records +2\n +studies +2\n +shards +1\n", printed)
    assert "nothing is wrong" in printed


def test_every_kind_of_check_is_made(records: Path, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    next((records / "sagittal_t2").glob("*.tfrecord")).open("ab").write(b"x")
    (records / "folds.csv").write_text("study_id,fold_id\n1.2.40077.1,0\n")
    (records / "labels.csv").unlink()
    (records / "notes.txt").write_text("of Quexley, Zabrina")
    path = source / "1.2.40077.1" / "1.2.40077.1.7" / "1.dcm"
    path.unlink()
    assert _verify(records=records, data=str(source), phi=True) == 1
    printed = capsys.readouterr().out
    for code in (
        "shard_changed",
        "cut_in_record",
        "fold_missing",
        "labels_absent",
        "foreign_file",
        "source_changed",
        "identifying_value",
    ):
        assert f": {code}: " in printed
        assert f"1 x {code}" in printed
    assert "quexley" not in printed.lower()


def test_other_output_is_searched_without_a_manifest(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = tmp_path / "predictions"
    answers.mkdir()
    rows = "row_id,normal_mild\n1.2.40077.1_spinal_canal_stenosis_l1_l2,0.5\n"
    (answers / "submission.csv").write_text(rows)
    assert _verify(records=answers, data=str(source), phi=True) == 0
    (answers / "results.json").write_text('{"institution": "Klinik Silberbach"}')
    assert _verify(records=answers, data=str(source), phi=True) == 1
    assert (
        "results.json: identifying_value: it contains the source's InstitutionName" in capsys.readouterr().out
    )
    # Without --phi a folder of records is asked for.
    assert _verify(records=answers) == 1
    assert "manifest_absent" in capsys.readouterr().out


def test_pseudonyms_need_their_key(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key_file = tmp_path / "key"
    key_file.write_bytes(KEY)
    out = tmp_path / "secret"
    options = OPTIONS.model_copy(update={"is_pseudonymised": True})
    run_build_task(BuildTask(sources=[source], out=out, options=options, key=KEY))
    assert _verify(records=out) == 0
    assert _verify(records=out, data=str(source), phi=True, pseudonym_key_file=key_file) == 0
    capsys.readouterr()
    assert _verify(records=out, data=str(source)) == 2
    assert "pseudonym-key-file" in capsys.readouterr().err
    (out / "README.md").write_text("study 1.2.40077.1 is in here")
    assert _verify(records=out, data=str(source), phi=True, pseudonym_key_file=key_file) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        ([], 0, "nothing is wrong"),
        (["--phi"], 2, "need the source"),
        (["--records=nowhere"], 1, "folder"),
        (["--workers=2", "--data={source}", "--phi"], 0, "nothing is wrong"),
    ],
)
def test_the_command(records: Path, source: Path, words: list[str], status: int, text: str) -> None:
    words = [each.format(source=source) for each in words]
    if not any(each.startswith("--records") for each in words):
        words.append(f"--records={records}")
    result = subprocess.run(
        [sys.executable, "-m", "lumbar_tf.verify", *words],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
    )
    assert result.returncode == status, result.stderr
    assert text in result.stdout + result.stderr
