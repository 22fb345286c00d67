"""Small studies made on the spot, in memory and as DICOM files; which tests are slow."""

import ctypes
import functools
import gc
import inspect
import resource
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.uid import UID, ExplicitVRLittleEndian

from lumbar_tf.dicom.geometry import SliceGeometry
from lumbar_tf.dicom.study import Slice
from lumbar_tf.records.build import BuildTask, run_build_task
from lumbar_tf.records.manifest import BuildOptions
from lumbar_tf.records.schema import PixelEncoding
from lumbar_tf.synthetic import CohortOptions, write_cohort

if TYPE_CHECKING:
    from tests.trained_pipeline import TrainedPipeline

# Tests share their cores with TensorFlow: how long an example takes says nothing.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")

REPOSITORY = Path(__file__).resolve().parents[1]
MR_IMAGE_STORAGE = UID("1.2.840.10008.5.1.4.1.1.4")
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)

#: A worker's memory above which graphs are freed after every file.
_COLLECT_ABOVE_GIB = 2.0
#: Trains what other files share: it comes first, while the other worker runs files that do not wait for it.
_FIRST_PATH = REPOSITORY / "tests" / "test_end_to_end.py"
#: Fixtures that train, export, build, or start a browser, a cluster or an archive.
_SLOW_FIXTURES = frozenset(
    {"axial_pipeline", "browser", "cluster", "orthanc", "program", "tab", "trained_pipeline"}
)
#: Folders and files, below tests/, whose tests train networks, export bundles, start processes or trace large
#: graphs, or that took more than about 5 s of one core together.
_SLOW_PATHS = (
    "benchmarks",
    "runners",
    "training",
    "bundle/test_exporting.py",
    "bundle/test_saliency_graph.py",
    "bundle/test_stacker_graph.py",
    "dicom/test_contrasts.py",
    "dicom/test_fuzz.py",
    "dicom/test_source_faults.py",
    "ensemble/test_intervals.py",
    "ensemble/test_prediction_sets.py",
    "ensemble/test_stacking_run.py",
    "evaluation/test_picture_sheets.py",
    "inputs/augmentation/test_mixing.py",
    "inputs/augmentation/test_operations.py",
    "inputs/test_axial_localizer_dataset.py",
    "inputs/test_grader_dataset.py",
    "inputs/test_localizer_dataset.py",
    "inputs/test_study_batches.py",
    "interop/test_dicom_sr.py",
    "interop/test_dimse.py",
    "interop/test_encapsulated_pdf.py",
    "interop/test_hostile_archive.py",
    "interop/test_presentation_state.py",
    "interop/test_result_formats.py",
    "interop/test_storage_scp.py",
    "interop/test_training_note.py",
    "models/test_architectures.py",
    "models/test_axial_localizer.py",
    "models/test_backbones.py",
    "models/test_grader.py",
    "models/test_keras_compat.py",
    "models/test_localizer.py",
    "models/test_losses.py",
    "models/test_saliency.py",
    "monitoring/test_drift.py",
    "prediction/test_crop_outlines.py",
    "prediction/test_pipeline.py",
    "records/test_build.py",
    "records/test_faults.py",
    "records/test_framing.py",
    "records/test_killing.py",
    "records/test_parsing.py",
    "records/test_resume.py",
    "records/test_schema.py",
    "reports/test_accessibility.py",
    "reports/test_evaluation_page.py",
    "reports/test_finding_crops.py",
    "reports/test_inspection.py",
    "reports/test_study_report_browser.py",
    "reports/test_study_sheet.py",
    "serving/test_faults.py",
    "serving/test_loader.py",
    "serving/test_tls.py",
    "test_api.py",
    "test_axial_end_to_end.py",
    "test_document_commands.py",
    "test_end_to_end.py",
    "test_evaluate.py",
    "test_interrupts.py",
    "test_new_condition.py",
    "test_notebook.py",
    "test_preview.py",
    "test_review_labels.py",
    "test_site.py",
    "test_stack.py",
    "test_train_ray.py",
    "test_wheel.py",
)


def pytest_configure() -> None:
    """Restores the default handler of Ctrl-C: a shell's background jobs ignore it, and so would the tests."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _starts_processes(function: Any, module: Any, seen: frozenset[Any] = frozenset()) -> bool:
    """Returns whether a function, or a function of its module that it calls, uses `subprocess`."""
    names = set(function.__code__.co_names)
    called = [value for name in names if inspect.isfunction(value := getattr(module, name, None))]
    return "subprocess" in names or any(
        _starts_processes(other, module, seen | {other}) for other in called if other not in seen
    )


@functools.cache
def _is_slow_path(path: Path) -> bool:
    slow_paths = {REPOSITORY / "tests" / relative for relative in _SLOW_PATHS}
    return not slow_paths.isdisjoint((path, *path.parents))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Spares `make check` the import of what it leaves out."""
    return True if config.option.markexpr == "not slow" and _is_slow_path(collection_path) else None


def _put_long_files_first(items: list[pytest.Item]) -> None:
    """Sorts files so that no worker waits for the shared networks, and the last files are short ones."""
    waiting = {item.path for item in items if "trained_pipeline" in getattr(item, "fixturenames", ())}

    def turn(item: pytest.Item) -> int:
        if item.path == _FIRST_PATH:
            return 0
        if item.path in waiting:
            return 2
        return 1 if _is_slow_path(item.path) else 3

    items.sort(key=turn)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Orders the files, and marks tests as slow by what they use: `make check` leaves them out."""
    _put_long_files_first(items)
    for item in items:
        is_slow = _is_slow_path(item.path)
        is_slow |= not _SLOW_FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))
        if isinstance(item, pytest.Function):
            is_slow |= _starts_processes(inspect.unwrap(item.function), item.module)
        if is_slow:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Self-tests are recorded for the tests of this session only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUMBAR_TF_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def trained_pipeline() -> "TrainedPipeline":
    """All stages of the demo at its tiniest, trained once; see `session_folders.make_once`."""
    from tests.trained_pipeline import load_trained_pipeline

    return load_trained_pipeline()


@pytest.fixture(scope="module", autouse=True)
def release_graphs() -> Iterator[None]:
    """Frees the graphs of a test file when it is done; otherwise a worker keeps gigabytes of them.

    See `forget_custom_gradients`. No graph is needed after its file, because no wider fixture has a network.
    """
    yield
    # Collecting takes half a second of every file, and graphs are large: see how much memory was ever taken.
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # kB on Linux
    if "tensorflow" not in sys.modules or peak_gib < _COLLECT_ABOVE_GIB:
        return
    from lumbar_tf.models.keras_compat import forget_custom_gradients

    forget_custom_gradients()
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # glibc's: gives the system back what was freed
        libc.malloc_trim(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the repository; skips where it is absent."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}")
    return folder


@pytest.fixture(scope="session")
def phantom_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four synthetic studies as DICOM files with their tables, small matrices."""
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder, CohortOptions(num_studies=4, seed=3))
    return folder


@pytest.fixture(scope="session")
def phantom_records(phantom_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their records, in two folds."""
    folder = tmp_path_factory.mktemp("records")
    options = BuildOptions(studies_per_shard=2, num_folds=2, fold_seed=0, codec=PixelEncoding.RAW)
    run_build_task(BuildTask(sources=[phantom_cohort], out=folder, options=options))
    return folder


@pytest.fixture
def make_slice() -> Callable[..., Slice]:
    """A factory of sagittal (default) or other slices with the given place and pixels."""

    def build(
        position: tuple[float, float, float] = (0.0, 0.0, 0.0),
        *,
        orientation: tuple[float, ...] = SAGITTAL,
        pixels: NDArray[Any] | None = None,
        series_id: str = "1",
        instance_number: int = 1,
    ) -> Slice:
        if pixels is None:
            pixels = np.random.default_rng(instance_number).integers(0, 1200, (6, 8))
        geometry = SliceGeometry(
            position=position,
            row_direction=tuple(orientation[:3]),
            column_direction=tuple(orientation[3:]),
            row_spacing_mm=0.5,
            column_spacing_mm=0.75,
            rows=pixels.shape[0],
            columns=pixels.shape[1],
        )
        return Slice(geometry, pixels.astype(np.float32), series_id, instance_number)

    return build


@pytest.fixture
def write_dicom() -> Callable[..., Path]:
    """A writer of single-frame MR files: `write_dicom(path, pixels, PatientID="p", ...)`.

    Keywords are DICOM keywords; None removes a tag.
    """

    def write(path: Path, pixels: NDArray[Any], **tags: Any) -> Path:
        with warnings.catch_warnings():
            # Folder names serve as UIDs here, which pydicom finds odd.
            warnings.simplefilter("ignore")
            return write_loudly(path, pixels, **tags)

    def write_loudly(path: Path, pixels: NDArray[Any], *, compress: UID | None = None, **tags: Any) -> Path:
        dataset = pydicom.Dataset()
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = MR_IMAGE_STORAGE
        dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        dataset.SOPClassUID = MR_IMAGE_STORAGE
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = path.parts[-3], path.parts[-2]
        dataset.InstanceNumber = 1
        dataset.ImagePositionPatient = [0.0, 0.0, 0.0]
        dataset.ImageOrientationPatient = list(SAGITTAL)
        dataset.PixelSpacing = [0.5, 0.75]
        dataset.Rows, dataset.Columns = pixels.shape[:2]
        dataset.SamplesPerPixel = 1
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit = 15
        dataset.PixelRepresentation = int(np.issubdtype(pixels.dtype, np.signedinteger))
        dataset.PixelData = pixels.astype("<i2" if dataset.PixelRepresentation else "<u2").tobytes()
        for keyword, value in tags.items():
            if value is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)
        if compress is not None:
            dataset.compress(compress)
        path.parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(path, enforce_file_format=True)
        return path

    return write
