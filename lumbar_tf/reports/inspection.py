"""Inspection of a data set: counts over all studies and pictures of a few, as a page and as JSON."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lumbar_tf.cli.progress import ProgressMaker, silent_progress
from lumbar_tf.dicom.geometry import patient_to_pixel
from lumbar_tf.dicom.sources.study_source import is_synthetic_source
from lumbar_tf.dicom.study import Slice, Study
from lumbar_tf.labels import Plane
from lumbar_tf.privacy.pseudonyms import IdKind, pseudonym, pseudonymise_study
from lumbar_tf.records.cohort import CohortStudy, open_cohort, read_cohort_study
from lumbar_tf.reports.census import Census, StudyFacts, Tally
from lumbar_tf.reports.inspection_page import (
    JSON_NAME,
    PAGE_NAME,
    render_montage,
    write_census_json,
    write_inspection_page,
)
from lumbar_tf.reports.label_contradictions import find_contradictions
from lumbar_tf.reports.montage import LevelPoints, make_montage
from lumbar_tf.reports.slice_pictures import Floats
from lumbar_tf.runners import run_jobs
from lumbar_tf.tables.coordinates import Coordinate

#: Tolerance of a float32 point on the slice that it was placed on, mm.
_ON_SLICE_MM = 0.01


@dataclass(frozen=True, eq=False)
class _InspectionJob:
    """A study to inspect.

    Attributes:
        study: the study and its tables.
        montage: file for its montage, as an HTML fragment; None to draw none.
        key: key of the hashes that replace ids; None to keep the ids.
    """

    study: CohortStudy
    montage: Path | None
    key: bytes | None


def inspect_sources(
    sources: Sequence[Path],
    out: Path,
    *,
    max_montages: int = 12,
    workers: int = 1,
    series_map: Path | None = None,
    key: bytes | None = None,
    progress: ProgressMaker = silent_progress,
) -> Census:
    """Inspects every study of one or several sources.

    Studies are read whole, as for building records, and released one by one: memory holds the studies that
    the workers are reading, the counts, and a few cases per reason.

    Args:
        sources: see `dicom.sources.study_source.read_source`.
        out: folder that receives `inspection.html` and `inspection.json`.
        max_montages: number of studies with pictures, evenly spread over the sources.
        workers: number of processes; the results do not depend on it.
        series_map: a table whose rows override those of the sources.
        key: key of the hashes that replace ids; None to keep the ids.
        progress: makes a progress display, advanced once per study.

    Returns:
        The counts.

    Raises:
        ValueError: no source can be read, or a table lacks columns.
    """
    tally = Tally()
    with (
        open_cohort(sources, series_map=series_map, key=key) as cohort,
        tempfile.TemporaryDirectory() as folder,
    ):
        tally.add_rejects(cohort.rejects)
        drawn = _spread(len(cohort.jobs), max_montages)
        paths = {index: Path(folder, f"{index:09d}.html") for index in drawn}
        jobs = [_InspectionJob(study, paths.get(index), key) for index, study in enumerate(cohort.jobs)]
        with progress(len(jobs)) as advance:
            for facts in run_jobs(_inspect_study, jobs, workers=workers, name=_job_name):
                tally.add(facts)
                advance(1)
        census = tally.census()
        present = (path for path in paths.values() if path.is_file())
        montages = (path.read_text(encoding="utf-8") for path in present)
        is_synthetic = all(is_synthetic_source(source) for source in sources)
        write_inspection_page(out / PAGE_NAME, census, montages, is_synthetic=is_synthetic)
        write_census_json(out / JSON_NAME, census)
    return census


def _spread(count: int, num_chosen: int) -> list[int]:
    """Returns `num_chosen` indices below `count`, evenly spread, including the first and the last."""
    places = np.linspace(0, max(count - 1, 0), min(count, num_chosen)).round()
    return sorted({int(place) for place in places})


def _job_name(job: _InspectionJob) -> str:
    return f"study {job.study.study_id}"


def _inspect_study(job: _InspectionJob) -> StudyFacts:
    study, positions = read_cohort_study(job.study)
    placed = _find_slices(study, positions, job.study.coordinates)
    slices = {index: (source.series_id, source.instance_number) for index, (_, source) in placed.items()}
    if job.key is not None:
        key = job.key
        study = pseudonymise_study(study, key)
        slices = {
            index: (pseudonym(key, IdKind.SERIES, series_id), number)
            for index, (series_id, number) in slices.items()
        }
    if job.montage is not None and study.planes:
        montage = make_montage(study, LevelPoints(positions, slices, job.study.labels))
        job.montage.write_text(render_montage(montage), encoding="utf-8")
    on_planes = {index: plane for index, (plane, _) in placed.items()}
    return StudyFacts(
        study_id=study.study_id,
        series=study.series,
        rejects=study.rejects,
        contradictions=find_contradictions(job.study.labels, positions, on_planes),
        labels=job.study.labels,
        num_points=len(placed),
    )


def _find_slices(
    study: Study, positions: Floats, coordinates: Sequence[Coordinate]
) -> Mapping[int, tuple[Plane, Slice]]:
    """Returns the plane and slice that each point was placed on, by the finding's row."""
    by_name = {
        (source.series_id, source.instance_number): (plane, source)
        for plane, slices in study.planes.items()
        for source in slices
    }
    found = {}
    for coordinate in coordinates:
        named = by_name.get((coordinate.series_id, coordinate.instance_number))
        position = positions[coordinate.finding]
        # A table can name a point twice, and one of the rows may have been rejected.
        if named is not None and np.isfinite(position).all():
            _, _, distance_mm = patient_to_pixel(named[1].geometry, position.tolist())
            if abs(distance_mm) < _ON_SLICE_MM:
                found[coordinate.finding] = named
    return found
