"""Looks at a data set: reads it study by study, counts, draws a few studies, writes page and JSON."""

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
    write_page,
)
from lumbar_tf.reports.label_contradictions import find_contradictions
from lumbar_tf.reports.montage import LevelPoints, make_montage
from lumbar_tf.reports.slice_resampling import Floats
from lumbar_tf.runners import run_jobs
from lumbar_tf.tables.coordinates import Coordinate

#: Positions are float32: a point lies within this of the slice that it was placed on, mm.
_ON_SLICE_MM = 0.01


@dataclass(frozen=True, eq=False)
class _Look:
    """One study to look at.

    Attributes:
        job: the study and its tables.
        picture: where its pictures go, a piece of HTML; None draws none.
        key: replaces ids by keyed hashes, None to keep them.
    """

    job: CohortStudy
    picture: Path | None
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
    """Looks at every study of one or several sources.

    Studies are read whole, as building does, and forgotten one by one: memory holds what the workers
    are reading, counts, and a few cases of each reason.

    Args:
        sources: see `dicom.sources.study_source.read_source`.
        out: gets `inspection.html` and `inspection.json`.
        max_montages: draw so many studies, evenly spread over the source.
        workers: processes; what is written does not depend on it.
        series_map: a table whose rows override the sources' own.
        key: replaces ids by keyed hashes.
        progress: shows it.

    Returns:
        The counts.

    Raises:
        ValueError: no source can be read, or a table lacks its columns.
    """
    tally = Tally()
    with (
        open_cohort(sources, series_map=series_map, key=key) as cohort,
        tempfile.TemporaryDirectory() as folder,
    ):
        tally.add_rejects(cohort.rejects)
        drawn = _spread(len(cohort.jobs), max_montages)
        pictures = {index: Path(folder, f"{index:09d}.html") for index in drawn}
        looks = [_Look(job, pictures.get(index), key) for index, job in enumerate(cohort.jobs)]
        with progress(len(looks)) as advance:
            for facts in run_jobs(_look, looks, workers=workers, name=_look_name):
                tally.add(facts)
                advance(1)
        census = tally.census()
        present = (path for path in pictures.values() if path.is_file())
        montages = (path.read_text(encoding="utf-8") for path in present)
        is_synthetic = all(is_synthetic_source(each) for each in sources)
        write_page(out / PAGE_NAME, census, montages, is_synthetic=is_synthetic)
        write_census_json(out / JSON_NAME, census)
    return census


def _spread(count: int, num_chosen: int) -> list[int]:
    """Returns so many of `range(count)`, evenly spread, the first and the last among them."""
    return sorted({int(each) for each in np.linspace(0, max(count - 1, 0), min(count, num_chosen)).round()})


def _look_name(look: _Look) -> str:
    return f"study {look.job.study_id}"


def _look(look: _Look) -> StudyFacts:
    job = look.job
    study, positions = read_cohort_study(job)
    placed = _find_slices(study, positions, job.coordinates)
    slices = {index: (each.series_id, each.instance_number) for index, (_, each) in placed.items()}
    if look.key is not None:
        key = look.key
        study = pseudonymise_study(study, key)
        slices = {
            index: (pseudonym(key, IdKind.SERIES, series_id), number)
            for index, (series_id, number) in slices.items()
        }
    if look.picture is not None and study.planes:
        montage = make_montage(study, LevelPoints(positions, slices, job.labels))
        look.picture.write_text(render_montage(montage), encoding="utf-8")
    on_planes = {index: plane for index, (plane, _) in placed.items()}
    return StudyFacts(
        study_id=study.study_id,
        series=study.series,
        rejects=study.rejects,
        contradictions=find_contradictions(job.labels, positions, on_planes),
        labels=job.labels,
        num_points=len(placed),
    )


def _find_slices(
    study: Study, positions: Floats, coordinates: Sequence[Coordinate]
) -> Mapping[int, tuple[Plane, Slice]]:
    """Returns the slice that each point was placed on, by the finding's row."""
    by_name = {
        (each.series_id, each.instance_number): (plane, each)
        for plane, slices in study.planes.items()
        for each in slices
    }
    found = {}
    for each in coordinates:
        named = by_name.get((each.series_id, each.instance_number))
        position = positions[each.finding]
        # A point may be named twice, and by a row that was refused.
        if named is not None and np.isfinite(position).all():
            _, _, distance_mm = patient_to_pixel(named[1].geometry, position.tolist())
            if abs(distance_mm) < _ON_SLICE_MM:
                found[each.finding] = named
    return found
