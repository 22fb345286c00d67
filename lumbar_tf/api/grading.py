"""Reading of studies and their grading with an exported ensemble."""

import logging
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from lumbar_tf.api.arguments import PathLike, activity_of, optional_path, progress_of
from lumbar_tf.api.results import DEFAULT_FORMAT_NAMES, Predictions, StudyResult
from lumbar_tf.bundle.loading import ServerTarget, connect_ensemble
from lumbar_tf.cli.console import print_status
from lumbar_tf.config import PlaneConfig
from lumbar_tf.dicom.reasons import Reject
from lumbar_tf.dicom.study import Study
from lumbar_tf.interop.output_formats import parse_formats
from lumbar_tf.interop.result_formats import predict_to_folder
from lumbar_tf.labels import Plane
from lumbar_tf.models.bundle_folder import has_version
from lumbar_tf.models.pretrained import PRETRAINED, describe_absence, pretrained_folder
from lumbar_tf.monitoring.log import AnswerLog
from lumbar_tf.prediction.crop_outlines import read_plane_configs
from lumbar_tf.prediction.impression_phrases import parse_language
from lumbar_tf.prediction.pipeline import NothingReadableError, grade_study, open_studies
from lumbar_tf.privacy.pseudonyms import read_key
from lumbar_tf.retry import RetryPolicy
from lumbar_tf.serving.connection import ConnectionOptions, TlsFiles, parse_address
from lumbar_tf.serving.transport import ModelChoice

if TYPE_CHECKING:
    import pandas as pd

_LOG = logging.getLogger("lumbar_tf")
#: An address, not a path: a scheme, or HOST:PORT.
_ADDRESS = re.compile(r"(grpcs?|https?)://.+|[^/\\]+:[0-9]{1,5}")

#: Where `export` writes by default. Without a bundle there, the pretrained ensemble is loaded by default.
DEFAULT_MODEL = Path("models/lumbar")


def read_study(path: PathLike, *, study_id: str | None = None, series_map: PathLike | None = None) -> Study:
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
    with open_studies(Path(path), series_map=optional_path(series_map), study_ids=only, keep_header=True) as (
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
    path: PathLike,
    *,
    series_map: PathLike | None = None,
    pseudonym_key_file: PathLike | None = None,
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
    with open_studies(Path(path), series_map=optional_path(series_map), key=key, keep_header=True) as opened:
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


class Ensemble:
    """An exported ensemble, loaded in this process or on a server; see `load_ensemble`.

    A context manager: leaving the block closes the connection to a server.

    Attributes:
        version: the bundle's version.
        members: names of the networks, such as "sagittal_t2/densenet121".
        source: the bundle's folder, or the server's address.
        training_note: sentences about the studies that it was trained on, which every result states first.
        model: the loaded graph or the client (not part of the public API).
    """

    def __init__(
        self,
        source: Path | ServerTarget,
        *,
        with_saliency: bool = False,
        require_signature: Path | None = None,
        force_self_test: bool = False,
    ) -> None:
        """Loads the bundle or connects to the server; use `load_ensemble`."""
        self._stack = ExitStack()
        self.model, name = self._stack.enter_context(
            connect_ensemble(
                source,
                with_saliency=with_saliency,
                require_signature=require_signature,
                force_self_test=force_self_test,
            )
        )
        self._explained = with_saliency
        self.version: str = self.model.version
        self.members: tuple[str, ...] = tuple(self.model.members)
        self.source: str = str(name)
        self.training_note: str = self.model.training.note

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

    def predict(self, study: Study, *, language: str = "en") -> StudyResult:
        """Grades one study.

        Args:
            study: from `read_study` or `read_studies`. Missing planes are flagged; a study without any gets
                the prior.
            language: language of the impression in all formats: `en`, `de`, `fr` or `es`.

        Returns:
            The findings.

        Raises:
            ServingError: the server returned no prediction.
            ValueError: the language is another one.
        """
        graded = grade_study(
            self.model,
            study,
            configs=self._configs,
            with_saliency=self._explained,
            language=parse_language(language),
        )
        return StudyResult(graded)

    def predict_studies(
        self,
        path: PathLike,
        out: PathLike | None = None,
        *,
        formats: Collection[str] = DEFAULT_FORMAT_NAMES,
        series_map: PathLike | None = None,
        pseudonym_key_file: PathLike | None = None,
        strict: bool = False,
        study_id: str | None = None,
        log: PathLike | None = None,
        max_in_flight: int = 1,
        max_sheets: int | None = None,
        language: str = "en",
        verbose: bool = False,
    ) -> Predictions:
        """Grades all studies of a folder or zip, and writes tables and files for each study.

        Args:
            path: see `read_studies`.
            out: folder for `submission.csv`, `probability.csv`, `results.json` and the other tables, and a
                folder for each of `formats`; None writes nothing.
            formats: of "sheets", "report", "sr", "gsps", "pdf", "sc" and "fhir".
            series_map: see `read_study`.
            pseudonym_key_file: file with the key of pseudonyms that replace ids.
            strict: whether the first fault in the input is fatal.
            study_id: restricts the studies to this one.
            log: folder of the log that `monitor` reads; gets one row per study.
            max_in_flight: number of concurrent requests to a server.
            max_sheets: number of sheets to draw at most.
            language: language of the impressions: `en`, `de`, `fr` or `es`.
            verbose: whether progress is shown on stderr.

        Raises:
            ValueError: no study is readable, the language is another one, or with `strict` there is a fault.
        """
        outcome = predict_to_folder(
            Path(path),
            self.model,
            optional_path(out),
            formats=parse_formats(formats) if out is not None else (),
            log=None if log is None else AnswerLog(Path(log)),
            key=None if pseudonym_key_file is None else read_key(Path(pseudonym_key_file)),
            max_sheets=max_sheets,
            series_map=optional_path(series_map),
            is_strict=strict,
            study_ids=None if study_id is None else frozenset({study_id}),
            max_in_flight=max_in_flight,
            language=parse_language(language),
            progress=progress_of("Grading", verbose=verbose),
        )
        return Predictions(outcome)


def load_ensemble(
    source: PathLike | None = None,
    *,
    with_saliency: bool = False,
    require_signature: PathLike | None = None,
    force_self_test: bool = False,
    model_name: str = "lumbar",
    model_version: int | None = None,
    model_label: str | None = None,
    deadline_s: float = 60.0,
    attempts: int = 5,
    gzip: bool = False,
    tls_ca: PathLike | None = None,
    tls_cert: PathLike | None = None,
    tls_key: PathLike | None = None,
    verbose: bool = False,
) -> Ensemble:
    """Loads an exported ensemble, or connects to a TensorFlow Serving that has one.

    A bundle is checked before and after it is loaded; see `docs/bundle.md`.

    Args:
        source: a bundle's folder, or the folder of versions, of which the newest is loaded; or a server:
            HOST:PORT or grpc://HOST:PORT, grpcs:// for gRPC over TLS, http:// or https:// for REST. By
            default `models/lumbar`; if there is no bundle, the pretrained ensemble, with a line about it.
            "pretrained" is that ensemble.
        with_saliency: whether results hold saliency maps for their reports.
        require_signature: PEM file of an Ed25519 public key; a bundle that is not signed with its private
            key is refused (extra `signing`).
        force_self_test: run a bundle's self-test even if it was passed before in the same environment.
        model_name: the model's name in the server's configuration.
        model_version: version on the server; the newest by default.
        model_label: a version's label, instead of its number.
        deadline_s: seconds for one request.
        attempts: number of requests per study while failures may pass.
        gzip: whether requests are compressed.
        tls_ca: PEM file of the certificate authority that signed the server's certificate.
        tls_cert: PEM file of the client's certificate.
        tls_key: PEM file of the client's key.
        verbose: whether loading is shown on stderr.

    Raises:
        ValueError: there is no bundle, it fails its self-test, the server does not answer, or a signature is
            required of a server's model.
    """
    key = optional_path(require_signature)
    is_pretrained = source is None and not has_version(DEFAULT_MODEL)
    if source is None:
        source = PRETRAINED if is_pretrained else DEFAULT_MODEL
    if source == PRETRAINED:
        source = _pretrained_bundle()
    if not isinstance(source, str) or not _ADDRESS.fullmatch(source) or Path(source).exists():
        with activity_of("Loading the model", verbose=verbose):
            ensemble = Ensemble(
                Path(source),
                with_saliency=with_saliency,
                require_signature=key,
                force_self_test=force_self_test,
            )
        if is_pretrained:
            show: Callable[[str], None] = print_status if verbose else _LOG.warning
            show(_describe_pretrained(ensemble))
        return ensemble
    tls = TlsFiles(optional_path(tls_ca), optional_path(tls_cert), optional_path(tls_key))
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
    return Ensemble(target, with_saliency=with_saliency, require_signature=key)


def _pretrained_bundle() -> Path:
    """Returns the folder of the pretrained ensemble.

    Raises:
        ValueError: it is absent.
    """
    folder = pretrained_folder()
    if not has_version(folder):
        raise ValueError(
            f"A model must be named (--model), or be in {DEFAULT_MODEL}, where there is none. "
            f"{describe_absence()}"
        )
    return folder


def _describe_pretrained(ensemble: Ensemble) -> str:
    training = ensemble.model.training
    data = "synthetic anatomy" if training.is_synthetic else training.origin or "undocumented data"
    return f"No model was named: using the pretrained ensemble {ensemble.version}, trained on {data}."


def predict(
    path: PathLike,
    *,
    model: PathLike | None = None,
    out: PathLike | None = None,
    formats: Collection[str] = DEFAULT_FORMAT_NAMES,
    series_map: PathLike | None = None,
    language: str = "en",
) -> "pd.DataFrame":
    """Grades all studies of a folder or zip.

    Args:
        path: see `read_studies`.
        model: a bundle, or a server's address; by default `models/lumbar` or the pretrained ensemble. See
            `load_ensemble`.
        out: folder for tables and each study's files; None writes nothing.
        formats: files of each study in `out`: of "sheets", "report", "sr", "gsps", "pdf", "sc" and
            "fhir".
        series_map: see `read_study`.
        language: language of the impressions: `en`, `de`, `fr` or `es`.

    Returns:
        A table with 25 rows for each study; see `StudyResult.to_frame`.

    Raises:
        ValueError: no study is readable, the language is another one, or the model cannot be loaded.
    """
    with_saliency = out is not None and any(each.spec.shows_saliency for each in parse_formats(formats))
    with load_ensemble(model, with_saliency=with_saliency) as ensemble:
        predictions = ensemble.predict_studies(
            path, out, formats=formats, series_map=series_map, language=language
        )
        return predictions.to_frame()
