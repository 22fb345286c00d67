"""Reading of studies and their grading with an exported ensemble."""

import json
import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from lumbar_tf.bundle.loading import ServerTarget, connect_ensemble
from lumbar_tf.cli.progress import ProgressMaker, silent_progress
from lumbar_tf.config import PlaneConfig
from lumbar_tf.dicom.reasons import Reject
from lumbar_tf.dicom.study import Study
from lumbar_tf.interop.result_formats import OUTPUT_FORMATS, find_formats, predict_to_folder
from lumbar_tf.labels import Plane
from lumbar_tf.monitoring.log import AnswerLog
from lumbar_tf.prediction.crop_outlines import read_plane_configs
from lumbar_tf.prediction.pipeline import NothingReadableError, Prediction, grade_study, open_studies
from lumbar_tf.prediction.result_tables import UnansweredStudy
from lumbar_tf.prediction.results import GradedStudy, findings_frame, result_to_json
from lumbar_tf.privacy.pseudonyms import read_key
from lumbar_tf.serving.connection import ConnectionOptions, TlsFiles, parse_address
from lumbar_tf.serving.retry import RetryPolicy
from lumbar_tf.serving.transport import ModelChoice

if TYPE_CHECKING:
    import pandas as pd

_LOG = logging.getLogger("lumbar_tf")
#: An address, not a path: a scheme, or HOST:PORT.
_ADDRESS = re.compile(r"(grpcs?|https?)://.+|[^/\\]+:[0-9]{1,5}")

DEFAULT_MODEL = Path("models/lumbar")
#: Names of the files that can be written for each study.
FORMATS: tuple[str, ...] = tuple(OUTPUT_FORMATS)
#: Those that are written by default.
DEFAULT_FORMATS = ("sheets", "report")


def read_study(
    path: str | Path, *, study_id: str | None = None, series_map: str | Path | None = None
) -> Study:
    """Reads one study.

    Args:
        path: a folder, zip or file that holds the DICOM files of a study.
        study_id: the study to read where there are several; its folder's name or StudyInstanceUID.
        series_map: a CSV file `study_id,series_id,series_description` that overrides tables and headers.

    Returns:
        The study: slices by plane, with geometry, and `rejects`, the files that were left out and why.

    Raises:
        ValueError: there is no study with a readable lumbar series, or more than one.
    """
    only = None if study_id is None else frozenset({study_id})
    with open_studies(Path(path), series_map=_path(series_map), study_ids=only, keep_header=True) as (
        ids,
        rejects,
        studies,
    ):
        if len(ids) > 1 or (only and not ids):
            rule = f"{path} must hold one study, or the study `study_id` among others."
            raise ValueError(f"{rule} Received: {len(ids)} studies with study_id={study_id!r}.")
        if not ids:
            raise NothingReadableError(Path(path), sorted({reject.reason.value for reject in rejects}))
        study = _with_rejects(next(studies), rejects)
    if not study.planes:
        raise NothingReadableError(Path(path), sorted({reject.reason.value for reject in study.rejects}))
    return study


def read_studies(
    path: str | Path,
    *,
    series_map: str | Path | None = None,
    pseudonym_key_file: str | Path | None = None,
) -> Iterator[Study]:
    """Yields the studies of a folder or zip, one at a time, in the order of their ids.

    Args:
        path: a folder of studies (of the competition's layout or nested), a DICOMDIR's folder, or a zip.
        series_map: see `read_study`.
        pseudonym_key_file: file with the key of pseudonyms that replace ids.

    Yields:
        Studies; one without a readable series has no `planes`, and `rejects` holds the reasons.

    Raises:
        ValueError: the path holds no study, or a table lacks its columns.
    """
    key = None if pseudonym_key_file is None else read_key(Path(pseudonym_key_file))
    with open_studies(Path(path), series_map=_path(series_map), key=key, keep_header=True) as opened:
        ids, rejects, studies = opened
        if not ids:
            raise NothingReadableError(Path(path), sorted({reject.reason.value for reject in rejects}))
        for reject in rejects:
            if reject.study_id not in ids:
                _LOG.warning("left out: %s: %s", reject.reason.value, reject.message)
        for study in studies:
            yield _with_rejects(study, rejects)


def _with_rejects(study: Study, rejects: Collection[Reject]) -> Study:
    """Returns a study with the rejects of its source that concern it before its own."""
    mine = tuple(reject for reject in rejects if reject.study_id == study.study_id)
    return replace(study, rejects=(*mine, *study.rejects)) if mine else study


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)


def check_formats(formats: Iterable[str]) -> None:
    """Checks names of output formats before work starts.

    Raises:
        ValueError: a name is not in `FORMATS`, or a package that its format needs is not installed.
    """
    find_formats(formats)


@dataclass(frozen=True, eq=False)
class StudyResult:
    """The findings of one study.

    Attributes:
        graded: the study, its findings and what reports show of it (not part of the public API).
    """

    graded: GradedStudy

    @property
    def study(self) -> Study:
        """The study that was graded."""
        return self.graded.study

    @property
    def study_id(self) -> str:
        """Id of the study."""
        return self.graded.study.study_id

    @property
    def model_version(self) -> str:
        """Version of the bundle that graded the study."""
        return self.graded.source.version

    def to_frame(self) -> "pd.DataFrame":
        """Returns a `pandas.DataFrame` with one row for each of the 25 findings.

        Columns: `study_id`; `condition`, such as "neural foraminal narrowing"; `side`, the patient's "left"
        or "right", "" for the canal; `level`, such as "L4/L5"; `grade`, the most probable severity, "" where
        no image contributed; calibrated probabilities `normal_mild`, `moderate` and `severe`, each with
        bounds `..._low` and `..._high`; `competition_normal_mild` and so on, predictions for the weighted
        metric; the landmark `x_mm`, `y_mm`, `z_mm` in LPS patient coordinates; `flags`, separated by blanks.
        """
        return findings_frame(self.graded.findings)

    def to_json(self) -> str:
        """Returns the findings as JSON, in the layout of a study in `results.json`."""
        return json.dumps(result_to_json(self.graded.findings), indent=1, allow_nan=False)

    def to_fhir(self) -> dict[str, Any]:
        """Returns a FHIR R4 Bundle: a DiagnosticReport and an Observation for each finding.

        Raises:
            ValueError: the study has no slices.
        """
        from lumbar_tf.interop.fhir import make_fhir_bundle
        from lumbar_tf.interop.source_references import find_references

        self._check_slices("a FHIR report")
        return dict(
            make_fhir_bundle(
                find_references(self.study),
                self.graded.findings,
                model=self.model_version,
                issued=datetime.now(UTC),
            )
        )

    def write_report(self, path: str | Path) -> Path:
        """Writes a self-contained HTML report, with the slices and crops that were graded."""
        from lumbar_tf.reports.study_report import write_study_report

        graded = self.graded
        target = Path(path)
        write_study_report(
            target, graded.study, graded.findings, graded.source, graded.crop_outlines, graded.saliency
        )
        return target

    def write_dicom(self, folder: str | Path) -> list[Path]:
        """Writes `<study>.sr.dcm`, a Structured Report (TID 1500), and `<study>.sc.dcm`, the summary sheet.

        Needs the extra `dicom`. Both repeat the patient data of the study's DICOM header.

        Raises:
            ValueError: highdicom is not installed, or the study has no slices.
        """
        self._check_slices("a DICOM result")
        output = find_formats(["dicom"])["dicom"]
        output.write(Path(folder), self.graded)
        return [Path(folder) / f"{self.study_id}.{kind}.dcm" for kind in ("sr", "sc")]

    def _check_slices(self, name: str) -> None:
        if not self.study.planes:
            raise ValueError(f"The study must have a slice for {name}. Received: study {self.study_id}.")


@dataclass(frozen=True, eq=False)
class Predictions:
    """Findings of all studies of a folder.

    Attributes:
        outcome: arrays of each study (not part of the public API).
    """

    outcome: Prediction

    @property
    def study_ids(self) -> tuple[str, ...]:
        """Ids of the studies that were graded."""
        return tuple(findings.study_id for findings in self.outcome.results)

    @property
    def rejects(self) -> tuple[Reject, ...]:
        """Files and studies that could not be used, with reasons."""
        return self.outcome.rejects

    @property
    def unanswered(self) -> tuple[UnansweredStudy, ...]:
        """Studies for which a server returned no prediction."""
        return self.outcome.unanswered

    def to_frame(self) -> "pd.DataFrame":
        """Returns the rows of `StudyResult.to_frame` of all studies, 25 each."""
        import pandas as pd

        frames = [findings_frame(findings) for findings in self.outcome.results]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


class Ensemble:
    """An exported ensemble, loaded in this process or on a server; see `load_ensemble`.

    A context manager: leaving the block closes the connection to a server.

    Attributes:
        version: the bundle's version.
        members: names of the networks, such as "sagittal_t2/densenet121".
        source: the bundle's folder, or the server's address.
        model: the loaded bundle, or the server's client (not part of the public API).
    """

    def __init__(self, source: Path | ServerTarget, *, with_saliency: bool = False) -> None:
        """Loads the bundle or connects to the server; use `load_ensemble`."""
        self._stack = ExitStack()
        self.model, name = self._stack.enter_context(connect_ensemble(source, with_saliency=with_saliency))
        self._with_saliency = with_saliency
        self.version: str = self.model.version
        self.members: tuple[str, ...] = tuple(self.model.members)
        self.source: str = str(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection to a server."""
        self._stack.close()

    @cached_property
    def _configs(self) -> Mapping[Plane, PlaneConfig]:
        return read_plane_configs(self.model.description)

    def predict(self, study: Study) -> StudyResult:
        """Grades one study.

        Args:
            study: from `read_study` or `read_studies`. Missing planes are flagged; a study without any gets
                the prior.

        Returns:
            The findings.

        Raises:
            ServingError: the server returned no prediction.
        """
        graded = grade_study(self.model, study, configs=self._configs, with_saliency=self._with_saliency)
        return StudyResult(graded)

    def predict_studies(
        self,
        path: str | Path,
        out: str | Path | None = None,
        *,
        formats: Collection[str] = DEFAULT_FORMATS,
        series_map: str | Path | None = None,
        pseudonym_key_file: str | Path | None = None,
        strict: bool = False,
        study_id: str | None = None,
        log: str | Path | None = None,
        max_in_flight: int = 1,
        max_sheets: int | None = None,
        progress: ProgressMaker = silent_progress,
    ) -> Predictions:
        """Grades all studies of a folder or zip, and writes tables and files for each study.

        Args:
            path: see `read_studies`.
            out: folder for `submission.csv`, `probability.csv`, `results.json` and the other tables, and a
                folder for each of `formats`; None writes nothing.
            formats: of "sheets", "report", "dicom" and "fhir".
            series_map: see `read_study`.
            pseudonym_key_file: file with the key of pseudonyms that replace ids.
            strict: whether the first fault in the input is fatal.
            study_id: restricts the studies to this one.
            log: folder of the log that `monitor` reads; gets one row per study.
            max_in_flight: number of concurrent requests to a server.
            max_sheets: number of sheets to draw at most.
            progress: shows the studies that are done.

        Raises:
            ValueError: no study is readable, or with `strict` there is a fault.
        """
        outcome = predict_to_folder(
            Path(path),
            self.model,
            _path(out),
            formats=formats if out is not None else (),
            log=None if log is None else AnswerLog(Path(log)),
            key=None if pseudonym_key_file is None else read_key(Path(pseudonym_key_file)),
            max_sheets=max_sheets,
            series_map=_path(series_map),
            is_strict=strict,
            study_ids=None if study_id is None else frozenset({study_id}),
            max_in_flight=max_in_flight,
            progress=progress,
        )
        return Predictions(outcome)


def load_ensemble(
    source: str | Path = DEFAULT_MODEL,
    *,
    with_saliency: bool = False,
    model_name: str = "lumbar",
    model_version: int | None = None,
    model_label: str | None = None,
    deadline_s: float = 60.0,
    attempts: int = 5,
    gzip: bool = False,
    tls_ca: str | Path | None = None,
    tls_cert: str | Path | None = None,
    tls_key: str | Path | None = None,
) -> Ensemble:
    """Loads an exported ensemble, or connects to a TensorFlow Serving that has one.

    A bundle is checked before and after it is loaded; see `docs/bundle.md`.

    Args:
        source: a bundle's folder, or the folder of versions, of which the newest is loaded; or a server:
            HOST:PORT or grpc://HOST:PORT, grpcs:// for gRPC over TLS, http:// or https:// for REST.
        with_saliency: whether results hold saliency maps for their reports.
        model_name: the model's name in the server's configuration.
        model_version: version on the server; the newest by default.
        model_label: a version's label, instead of its number.
        deadline_s: seconds for one request.
        attempts: number of requests per study while failures may pass.
        gzip: whether requests are compressed.
        tls_ca: PEM file of the certificate authority that signed the server's certificate.
        tls_cert: PEM file of the client's certificate.
        tls_key: PEM file of the client's key.

    Raises:
        ValueError: there is no bundle, it fails its self-test, or the server does not answer.
    """
    if isinstance(source, Path) or not _ADDRESS.fullmatch(source) or Path(source).exists():
        return Ensemble(Path(source), with_saliency=with_saliency)
    tls = TlsFiles(_path(tls_ca), _path(tls_cert), _path(tls_key))
    target = ServerTarget(
        ConnectionOptions(
            address=parse_address(source, is_secure=bool(tls)),
            deadline_s=deadline_s,
            has_gzip=gzip,
            tls=tls,
        ),
        ModelChoice(model_name, model_version, model_label),
        RetryPolicy(attempts=attempts),
    )
    return Ensemble(target, with_saliency=with_saliency)


def predict(
    path: str | Path,
    *,
    model: str | Path = DEFAULT_MODEL,
    out: str | Path | None = None,
    formats: Collection[str] = DEFAULT_FORMATS,
    series_map: str | Path | None = None,
) -> "pd.DataFrame":
    """Grades all studies of a folder or zip.

    Args:
        path: see `read_studies`.
        model: a bundle, or a server's address; see `load_ensemble`.
        out: folder for tables and each study's files; None writes nothing.
        formats: files of each study in `out`: of "sheets", "report", "dicom" and "fhir".
        series_map: see `read_study`.

    Returns:
        A table with 25 rows for each study; see `StudyResult.to_frame`.

    Raises:
        ValueError: no study is readable, or the model cannot be loaded.
    """
    with_saliency = out is not None and any(
        OUTPUT_FORMATS[name].is_explained for name in formats if name in OUTPUT_FORMATS
    )
    with load_ensemble(model, with_saliency=with_saliency) as ensemble:
        return ensemble.predict_studies(path, out, formats=formats, series_map=series_map).to_frame()
