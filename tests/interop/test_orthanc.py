"""Watch and C-STORE with an Orthanc server: kills, an outage, and a round trip of the results."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes

from lumbar_tf.cli.command import parse_options
from lumbar_tf.interop.codes import probability_code
from lumbar_tf.interop.dicomweb import open_archive
from lumbar_tf.interop.dicomweb_connection import AuthenticationScheme, CredentialsFile, DicomwebConnection
from lumbar_tf.interop.dimse import Node, StoreScu
from lumbar_tf.interop.output_formats import STORED_FORMATS, OutputFormat
from lumbar_tf.interop.result_formats import predict_to_folder
from lumbar_tf.interop.study_filter import QueryWindow, StudyFilter
from lumbar_tf.interop.study_grading import StudyGrader, find_results, store_results
from lumbar_tf.interop.watch_journal import WatchJournal, WatchState
from lumbar_tf.interop.watcher import PollingPolicy, Watch
from lumbar_tf.labels import FINDINGS, Severity, Side
from lumbar_tf.predict import PredictOptions, run_predict
from tests.interop import hospital
from tests.interop.conftest import STUDIES, complete
from tests.interop.orthanc import TITLE, Orthanc
from tests.interop.sr_reader import read_groups
from tests.prediction.test_pipeline import FakeEnsemble
from tests.trained_pipeline import TrainedPipeline

ROOT = Path(__file__).resolve().parents[2]
_LONGEST_S = 120.0


def _wait(is_true: Callable[[], bool], what: str, every_s: float = 0.02) -> None:
    end = time.monotonic() + _LONGEST_S
    while not is_true():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(every_s)


def _connection(orthanc: Orthanc) -> DicomwebConnection:
    return DicomwebConnection(
        orthanc.dicomweb, CredentialsFile(orthanc.user_file, AuthenticationScheme.BASIC), attempts=2
    )


def _retrieve(orthanc: Orthanc, study_uid: str, modality: str) -> pydicom.Dataset:
    """Returns the study's only instance of a modality, found by QIDO-RS and fetched by WADO-RS."""
    (found,) = orthanc.get(f"dicom-web/studies/{study_uid}/instances", Modality=modality).json()
    series, instance = (found[tag]["Value"][0] for tag in ("0020000E", "00080018"))
    return _fetch(orthanc, study_uid, series, instance)


def _fetch(orthanc: Orthanc, study_uid: str, series: str, instance: str) -> pydicom.Dataset:
    """Returns an instance, fetched by WADO-RS."""
    answer = orthanc.get(f"dicom-web/studies/{study_uid}/series/{series}/instances/{instance}")
    assert answer.ok
    start = answer.content.index(b"\r\n\r\n") + 4
    return pydicom.dcmread(io.BytesIO(answer.content[start : answer.content.rindex(b"\r\n--")]))


def _read_numbers(dataset: pydicom.Dataset) -> list[tuple[str, str | None, list[float]]]:
    """Returns finding, side and probabilities of each measurement group, as highdicom reads the SR."""
    groups = {group.name: group for group in read_groups(dataset)}
    names = [probability_code(severity).value for severity in Severity]
    rows = []
    for name in (finding.title for finding in FINDINGS):
        side = groups[name].group.finding_sites[0].laterality
        values = groups[name].percents
        rows.append((name, side and side.meaning, [values[code] / 100 for code in names]))
    return rows


def _check_round_trip(dataset: pydicom.Dataset, results: Path, study_uid: str) -> None:
    """Checks that the report has the numbers and sides of `results.json`."""
    (study,) = [
        result for result in json.loads(results.read_text())["studies"] if result["study_id"] == study_uid
    ]
    rows = _read_numbers(dataset)
    assert len(rows) == len(FINDINGS) == len(study["findings"])
    meaning = {None: None, Side.LEFT: codes.SCT.Left.meaning, Side.RIGHT: codes.SCT.Right.meaning}
    for (_, side, values), finding, told in zip(rows, FINDINGS, study["findings"], strict=True):
        expected = [told["probability"][severity.column] for severity in Severity]
        np.testing.assert_allclose(values, expected, atol=1e-6)
        assert side == meaning[finding.condition.side]
    # The sides have different numbers, so that a swap would be found.
    left, right = ([row[2] for row in rows if row[1] == meaning[side]] for side in Side)
    assert not np.allclose(left, right)


def test_a_lumbar_study_is_graded_and_stored_and_a_cervical_one_passed_over(
    tmp_path: Path, orthanc: Orthanc, hospital_disc: list[Path]
) -> None:
    for path in hospital_disc:
        orthanc.upload(path)
    out = tmp_path / "out"
    grader = StudyGrader(FakeEnsemble(), out, formats=STORED_FORMATS)
    uid = hospital.LUMBAR_STUDY
    with open_archive(
        _connection(orthanc), window=QueryWindow(StudyFilter()), scratch=tmp_path / "scratch"
    ) as archive:
        journal = WatchJournal(out / ".watch")
        watch = Watch(archive, grader, journal, PollingPolicy(0.05, 0.1), sink=archive)
        assert watch.run(is_once=True)
        assert list((tmp_path / "scratch").iterdir()) == []
        entry, other = journal.read(uid), journal.read(hospital.CERVICAL_STUDY)
        assert entry is not None and entry.state is WatchState.STORED
        assert other is not None and other.state is WatchState.PASSED_OVER
        # The screen shot and the stored results do not count as images.
        assert watch.run(is_once=True) and journal.read(uid).late_images == 0  # type: ignore[union-attr]
        # With a new journal the results have the same UIDs, which the archive already has.
        watch = Watch(archive, grader, WatchJournal(tmp_path / "new"), PollingPolicy(0.05, 0.1), sink=archive)
        assert watch.run(is_once=True)
        # Late images reopen the study.
        late = pydicom.dcmread(next(path for path in hospital_disc if _is_of(path, f"{uid}.6")))
        late.SOPInstanceUID = late.file_meta.MediaStorageSOPInstanceUID = f"{uid}.6.999"
        late.save_as(tmp_path / "late.dcm")
        orthanc.upload(tmp_path / "late.dcm")
        watch.poll()
        entry = WatchJournal(tmp_path / "new").read(uid)
        assert entry is not None and (entry.late_images, entry.state) == (1, WatchState.SEEN)
        num_graded = entry.num_graded
        assert watch.run(is_once=True)
        entry = WatchJournal(tmp_path / "new").read(uid)
        assert entry is not None and (entry.num_graded, entry.state) == (num_graded + 1, WatchState.STORED)
    assert len(orthanc.instances(uid, "SR")) == 1
    _check_round_trip(_retrieve(orthanc, uid, "SR"), out / uid / "results.json", uid)
    capture = [item for item in orthanc.instances(uid, "OT") if item.startswith("2.25.")]
    assert len(capture) == 1
    # The fetched images give the same results as the original files.
    disc = hospital_disc[0].parents[2]
    predict_to_folder(disc, FakeEnsemble(), tmp_path / "disc", study_ids=frozenset({uid}))
    assert (tmp_path / "disc" / "results.json").read_bytes() == (out / uid / "results.json").read_bytes()


def _is_of(path: Path, series_uid: str) -> bool:
    return str(pydicom.dcmread(path, stop_before_pixels=True).SeriesInstanceUID) == series_uid


def test_orthanc_keeps_one_instance_of_a_result_sent_twice_by_c_store(
    tmp_path: Path, orthanc: Orthanc, small_studies: dict[str, list[Path]]
) -> None:
    uid = STUDIES[0]
    folder = small_studies[uid][0].parents[1]
    predict_to_folder(folder, FakeEnsemble(), tmp_path / "out", formats=STORED_FORMATS)
    sink = StoreScu(Node("127.0.0.1", orthanc.dicom_port, TITLE), ae_title="LUMBAR_TF")
    for _ in range(2):
        for kind in ("sr", "sc"):
            sink.store(tmp_path / "out" / "dicom" / f"{uid}.{kind}.dcm")
    assert len(orthanc.instances(uid, "SR")) == len(orthanc.instances(uid, "OT")) == 1
    _check_round_trip(_retrieve(orthanc, uid, "SR"), tmp_path / "out" / "results.json", uid)


def test_all_dicom_results_are_fetched_back_as_they_were_stored(
    tmp_path: Path, orthanc: Orthanc, hospital_disc: list[Path]
) -> None:
    uid, formats = hospital.LUMBAR_STUDY, tuple(each for each in OutputFormat if each.is_dicom)
    disc = hospital_disc[0].parents[2]
    predict_to_folder(disc, FakeEnsemble(), tmp_path, formats=formats, study_ids=frozenset({uid}))
    results = find_results(tmp_path, uid, formats)
    kinds = [result.file.removeprefix(f"dicom/{uid}.") for result in results]
    assert kinds == ["sr.dcm", "gsps-1.dcm", "gsps-2.dcm", "gsps-3.dcm", "pdf.dcm", "sc.dcm"]
    for path in hospital_disc:
        orthanc.upload(path)
    with open_archive(
        _connection(orthanc), window=QueryWindow(StudyFilter()), scratch=tmp_path / "scratch"
    ) as archive:
        assert list(store_results(archive, tmp_path, results)) == list(results)
    for result in results:
        written = pydicom.dcmread(tmp_path / result.file)
        fetched = _fetch(orthanc, uid, result.series_uid, result.sop_instance_uid)
        assert fetched.to_json_dict() == written.to_json_dict()
    states = [result for result in results if ".gsps-" in result.file]
    assert orthanc.instances(uid, "PR") == sorted(state.sop_instance_uid for state in states)


def _words(orthanc: Orthanc) -> list[str]:
    return [f"--dicomweb={orthanc.dicomweb}", f"--dicomweb-user-file={orthanc.user_file}", "--store"]


@contextmanager
def _watching(
    orthanc: Orthanc, trained_pipeline: TrainedPipeline, out: Path, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs `watch` as a process, which is killed at the end of the block if it still runs."""
    words = [
        *_words(orthanc),
        f"--model={trained_pipeline.model}",
        f"--out={out}",
        "--every-s=0.3",
        "--settle-s=0.5",
    ]
    command = [sys.executable, "-m", "lumbar_tf.watch", *words, "--days=0", "--formats=sr,sc"]
    with log.open("ab") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file, env=os.environ)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _state(out: Path, study_uid: str) -> str:
    """Returns the state of a study, read without the package."""
    for folder in ("closed", "open"):
        path = out / ".watch" / folder / f"{study_uid}.json"
        if path.exists():
            found = re.search(r'"state": "(\w+)"', path.read_text())
            return found[1] if found else ""
    return ""


@pytest.mark.slow
def test_watch_grades_each_study_once_despite_kills_and_an_outage(
    tmp_path: Path, orthanc: Orthanc, trained_pipeline: TrainedPipeline
) -> None:
    folders = sorted((trained_pipeline.out / "held_out" / "train_images").iterdir())[:2]
    first, second = (folder.name for folder in folders)
    for folder in folders:
        for path in sorted(folder.rglob("*.dcm")):
            copy = tmp_path / "images" / path.relative_to(folder.parent)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
            complete(copy)
            orthanc.upload(copy)
    out, log = tmp_path / "out", tmp_path / "log"

    with _watching(orthanc, trained_pipeline, out, log):
        _wait(lambda: "grading" in (_state(out, first), _state(out, second)), "the first kill")
    killed_in = {_state(out, uid) for uid in (first, second)}
    assert "stored" not in killed_in

    with _watching(orthanc, trained_pipeline, out, log):
        _wait(
            lambda: {_state(out, first), _state(out, second)} & {"graded", "stored"} != set(),
            "the second kill",
            0.001,
        )
    orthanc.stop()
    with _watching(orthanc, trained_pipeline, out, log) as process:
        _wait(lambda: "no studies listed" in log.read_text(), "the outage")
        second_watch = subprocess.run(
            [sys.executable, "-m", "lumbar_tf.watch", *_words(orthanc), f"--out={out}"],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert second_watch.returncode == 1 and "one watch at a time" in second_watch.stderr
        orthanc.start()
        _wait(lambda: _state(out, first) == _state(out, second) == "stored", "both to be stored")
        time.sleep(1.0)  # some more polls
        process.send_signal(signal.SIGTERM)
        assert process.wait(_LONGEST_S) == 0
    said = log.read_text()
    assert "s3cret" not in said and "Traceback" not in said and "INFO stopped" in said
    assert list((out / ".watch" / "fetched").iterdir()) == []
    for uid in (first, second):
        assert len(orthanc.instances(uid, "SR")) == len(orthanc.instances(uid, "OT")) == 1
        _check_round_trip(_retrieve(orthanc, uid, "SR"), out / uid / "results.json", uid)
        assert said.count(f"study {uid}: stored") <= 1

    # `predict` with the same model gives the same results, of which the archive keeps one.
    words = [
        *_words(orthanc),
        f"--study={first}",
        f"--model={trained_pipeline.model}",
        f"--out={tmp_path / 'predicted'}",
    ]
    options = parse_options(PredictOptions, [*words, "--formats=sr,sc"])
    summary = run_predict(options)
    assert summary.status == 0 and summary.figures["results stored in the archive"] == 2
    predicted = tmp_path / "predicted" / "results.json"
    assert predicted.read_bytes() == (out / first / "results.json").read_bytes()
    assert len(orthanc.instances(first, "SR")) == 1
