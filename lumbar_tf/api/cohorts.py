"""Data sets: their contents, training crops, and synthetic studies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lumbar_tf.api.arguments import PathLike, Paths, activity_of, existing, paths_of, progress_of
from lumbar_tf.config import PlaneConfig, VarietyConfig, default_config_path, load_plane_config
from lumbar_tf.labels import FINDINGS, Plane, parse_plane

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from lumbar_tf.reports.census import Census


@dataclass(frozen=True, eq=False)
class Inspection:
    """Contents of a data set.

    Attributes:
        census: counts (not part of the public API).
        page: the HTML page.
    """

    census: "Census"
    page: Path

    @property
    def num_studies(self) -> int:
        """Number of studies."""
        return self.census.num_studies

    @property
    def num_usable(self) -> int:
        """Number of studies with a plane that can be graded."""
        return self.census.num_usable

    def to_frame(self) -> "pd.DataFrame":
        """Returns the number of studies, series and slices of each plane."""
        import pandas as pd

        return pd.DataFrame(
            {
                "plane": count.plane.value,
                "num_studies": count.num_studies,
                "num_series": count.num_series,
                "num_slices": count.num_slices,
            }
            for count in self.census.planes
        )

    def console_tables(self) -> "list[Table]":
        """Returns the counts as `rich.table.Table` objects."""
        from lumbar_tf.reports.inspection_page import LABEL_NAMES

        census = self.census
        planes = _table("Planes", "studies", "series", "slices")
        for count in census.planes:
            numbers = (count.num_studies, count.num_series, count.num_slices)
            planes.add_row(count.plane.series_description, *map(str, numbers))
        tables = [planes]
        for breakdown in census.breakdowns:
            if breakdown.rows:
                table = _table(breakdown.attribute.value, *(plane.series_description for plane in Plane))
                for value, counts in breakdown.condensed().rows:
                    table.add_row(value, *(str(counts.get(plane, 0)) for plane in Plane))
                tables.append(table)
        if census.labels is not None:
            table = _table("Labels", *LABEL_NAMES)
            for finding, row in zip(FINDINGS, census.labels.tolist(), strict=True):
                table.add_row(finding.name, *map(str, row))
            tables.append(table)
        if census.left_out or census.contradictions:
            table = _table("Left out, noted, contradictory", "kind", "count", "studies")
            for item in (*census.left_out, *census.contradictions):
                table.add_row(item.code, item.kind, str(item.count), str(item.num_studies))
            tables.append(table)
        return tables


def _table(title: str, *columns: str) -> "Table":
    from rich.table import Table

    table = Table(title, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.columns[0].min_width = 24
    for name in columns:
        table.add_column(name, justify="right")
    return table


def inspect_data(
    data: Paths,
    out: PathLike = "inspection",
    *,
    workers: int = 1,
    max_montages: int = 12,
    series_map: PathLike | None = None,
    pseudonym_key_file: PathLike | None = None,
    verbose: bool = False,
) -> Inspection:
    """Counts the contents of a data set and shows them on one page.

    Args:
        data: folders or zips, as for `build_records`.
        out: folder for `inspection.html` and `inspection.json`.
        workers: number of processes.
        max_montages: number of studies to draw, evenly spread.
        series_map: as for `build_records`.
        pseudonym_key_file: as for `build_records`.
        verbose: whether progress is shown on stderr.
    """
    from lumbar_tf.privacy.pseudonyms import read_key
    from lumbar_tf.reports.inspection import inspect_sources
    from lumbar_tf.reports.inspection_page import PAGE_NAME

    census = inspect_sources(
        paths_of(data),
        Path(out),
        max_montages=max_montages,
        workers=workers,
        series_map=None if series_map is None else existing(Path(series_map)),
        key=None if pseudonym_key_file is None else read_key(Path(pseudonym_key_file)),
        progress=progress_of("Looking", verbose=verbose),
    )
    return Inspection(census, Path(out) / PAGE_NAME)


def preview(
    config: str | Path | Plane | PlaneConfig,
    out: PathLike = "preview.png",
    *,
    overrides: Sequence[str] = (),
    records: PathLike = "tfrecords",
    folds: PathLike | None = None,
    runs: PathLike = "runs",
    num_studies: int = 4,
    verbose: bool = False,
) -> int:
    """Draws augmented training crops beside the plain ones; returns the number of studies drawn.

    Args:
        config: a plane's name, a YAML file or a configuration.
        out: the PNG file.
        overrides: such as "grader.training.augmentation.mixup=0.5".
        records: folder of the records.
        folds: folds file; by default `folds.csv` of the records.
        runs: folder of the localizers' points; without any, annotated points are shown.
        num_studies: number of studies.
        verbose: whether progress is shown on stderr.
    """
    from lumbar_tf.inputs.crop_layout import CropLayout
    from lumbar_tf.records.manifest import read_manifest
    from lumbar_tf.reports.augmentation_preview import collect_previews, draw_preview
    from lumbar_tf.tables.folds import FOLDS_NAME, read_folds
    from lumbar_tf.training.runs import PlaneRun

    plane = plane_config(config, overrides)
    folder = Path(records)
    manifest = read_manifest(folder)
    if not manifest.planes.get(plane.plane.value):
        raise ValueError(f"The records in {folder} hold no study with the plane {plane.plane.value}.")
    fold_of = read_folds(Path(folds) if folds is not None else folder / FOLDS_NAME, manifest.patient_groups)
    run = PlaneRun(plane, folder, Path(runs), manifest, fold_of)
    with activity_of("Cutting crops", verbose=verbose):
        previews = collect_previews(run, num_studies=num_studies)
    crop = plane.grader.crop
    layout = CropLayout.of(plane)
    is_mirrored = layout.is_sided and crop.mirror_right
    title = f"{plane.plane.value}: crops of {crop.side_mm:g} mm, {crop.side_px} px, seed {plane.seed}"
    note = f"Central slices{', right sides mirrored to look left' if is_mirrored else ''}."
    with activity_of("Drawing", verbose=verbose):
        draw_preview(Path(out), previews, layout, title=title, note=note)
    return len(previews)


def plane_config(config: object, overrides: Sequence[str] = ()) -> PlaneConfig:
    """Returns the configuration of a plane's name, a YAML file or a configuration."""
    if isinstance(config, PlaneConfig):
        return config
    if isinstance(config, Plane):
        return load_plane_config(default_config_path(config), overrides=overrides)
    if isinstance(config, str | Path):
        path = Path(config)
        if path.suffix not in (".yaml", ".yml"):
            path = default_config_path(parse_plane(str(config)))
        return load_plane_config(path, overrides=overrides)
    raise TypeError(f"`config` must be a plane's name, a YAML file or a configuration. Received: {config!r}.")


def write_synthetic_cohort(
    out: PathLike,
    num_studies: int,
    *,
    seed: int = 0,
    first_study_id: int | None = None,
    resolution: str = "small",
    severity_shift: float = 0.0,
    variety: VarietyConfig | None = None,
    resume: bool = False,
    workers: int = 1,
    verbose: bool = False,
) -> Path:
    """Writes synthetic DICOM studies with label tables, in the competition's layout; returns the folder.

    Args:
        out: the folder.
        num_studies: number of studies.
        seed: seed; a study depends on it and on its index only.
        first_study_id: id of the first study; the others follow.
        resolution: "small" or "full", the matrix sizes.
        severity_shift: raises the share of moderate and severe findings.
        variety: distributions of varied patients and scans, such as `lumbar_tf.config.VarietyConfig()`; None
            for plain ones.
        resume: keeps the studies that an interrupted call with the same arguments has finished.
        workers: number of processes.
        verbose: whether progress is shown on stderr.
    """
    from lumbar_tf.synthetic import CohortOptions, Resolution, write_cohort

    ids: Mapping[str, int] = {} if first_study_id is None else {"first_study_id": first_study_id}
    options = CohortOptions(
        num_studies=num_studies,
        seed=seed,
        workers=workers,
        resolution=Resolution(resolution),
        severity_shift=severity_shift,
        variety=variety,
        **ids,
    )
    progress = progress_of("Rendering", verbose=verbose)
    write_cohort(Path(out), options, is_resumed=resume, progress=progress)
    return Path(out)


def write_best_predictions(cohort: PathLike, out: PathLike) -> None:
    """Writes the best possible predictions for a synthetic cohort, in the submission's format.

    They are the probability of each grade given the anatomy, times the metric's weights.

    Args:
        cohort: folder that `write_synthetic_cohort` wrote.
        out: the CSV file.
    """
    from lumbar_tf.dicom.sources.study_source import SYNTHETIC_TRUTH_NAME
    from lumbar_tf.evaluation.metrics import SEVERITY_WEIGHTS
    from lumbar_tf.tables.out_of_fold import align_members, read_out_of_fold_tables, write_out_of_fold_table

    tables = read_out_of_fold_tables([Path(cohort) / SYNTHETIC_TRUTH_NAME])
    study_ids = sorted(tables[0].rows)
    weighted = align_members(tables, study_ids).probabilities[0] * SEVERITY_WEIGHTS
    write_out_of_fold_table(Path(out), study_ids, weighted / weighted.sum(axis=-1, keepdims=True))
