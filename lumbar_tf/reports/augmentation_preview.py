"""Preview of augmentation: training crops without and with it, drawn on a sheet."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.config import AugmentationConfig, PlaneConfig
from lumbar_tf.files import replace_atomically
from lumbar_tf.inputs.crop_layout import CropLayout
from lumbar_tf.inputs.grader_dataset import make_grader_train_dataset
from lumbar_tf.inputs.record_source import RecordSource
from lumbar_tf.labels import FINDINGS, NUM_LEVELS, Level, Plane, Severity
from lumbar_tf.reports.probability_table import MISSING_COLOUR
from lumbar_tf.training.predicted_points import landmark_jitter, predicted_landmarks
from lumbar_tf.training.runs import PlaneRun, landmark_tables

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Width of a column of crops and of the margin at the left, inches.
_COLUMN, _MARGIN = 1.75, 0.85
#: Height of the title, and of a line of text above or below a crop, inches.
_TITLE, _LINE = 0.75, 0.17
_DPI = 110
#: Smaller shares of a target are not printed.
_LEAST_SHARE = 0.005


@dataclass(frozen=True)
class StudyCrops:
    """A grader's input for one study.

    Attributes:
        image: float32 [P, S, side_px, side_px]; 0 and 1 are the series' 0.5th and 99.5th percentile.
        mask: bool [P, S].
        targets: float32 [rows, 3]; all zeros where there is no label.
    """

    image: NDArray[np.float32]
    mask: NDArray[np.bool_]
    targets: NDArray[np.float32]


@dataclass(frozen=True)
class Preview:
    """A study of a training batch, without and with augmentation.

    Attributes:
        plain: crops at the unmoved points, without augmentation.
        augmented: crops as the network receives them.
    """

    plain: StudyCrops
    augmented: StudyCrops


def collect_previews(run: PlaneRun, *, num_studies: int) -> list[Preview]:
    """Reads the first studies of a training run twice: with augmentation, and with all randomness disabled.

    The order of studies and the seeds do not depend on the augmentation, so both passes return the same
    studies in the same batches. Crops lie at the annotated points, or at the run's localizer points where
    there is no annotation.

    Args:
        run: the plane's records, configuration and folds; the run folder need not exist.
        num_studies: number of studies; a smaller cohort returns fewer.

    Returns:
        Each study once, in training order.

    Raises:
        ValueError: no crop could be cut because there are no points.
    """
    config = run.config
    source = _first_studies(run, max(num_studies, config.grader.training.batch_studies))
    num_studies = min(num_studies, len(source.study_ids))
    augmented = _read_crops(run, source, config, num_studies)
    plain = _read_crops(run, source, _without_augmentation(config), num_studies)
    if not any(crops.mask.any() for crops in plain):
        raise ValueError(
            f"Crops need annotated points in the records or landmarks below {run.runs}. "
            f"Received: neither for the first {num_studies} studies of {config.plane.value}."
        )
    return [Preview(*pair) for pair in zip(plain, augmented, strict=True)]


def _first_studies(run: PlaneRun, num_studies: int) -> RecordSource:
    """Returns the plane's first studies and only the shards that contain them."""
    study_ids: list[str] = []
    shards = []
    for shard in run.manifest.planes[run.config.plane.value]:
        if len(study_ids) >= num_studies:
            break
        study_ids += shard.study_ids
        shards.append(run.records / shard.file)
    return RecordSource(tuple(shards), tuple(study_ids[:num_studies]))


def _without_augmentation(config: PlaneConfig) -> PlaneConfig:
    training = config.grader.training.model_copy(update={"augmentation": AugmentationConfig.nothing()})
    grader = config.grader.model_copy(update={"training": training, "jitter": 0.0})
    return config.model_copy(update={"grader": grader})


def _read_crops(
    run: PlaneRun, source: RecordSource, config: PlaneConfig, num_studies: int
) -> list[StudyCrops]:
    # Batches have the size used in training, because mixup pairs a crop with one of its own batch.
    grader = config.grader
    located = (Plane.AXIAL_T2,) if grader.anchor == "subarticular" else (Plane.SAGITTAL_T2, Plane.SAGITTAL_T1)
    has_landmarks = landmark_tables(run.runs, located)
    dataset = make_grader_train_dataset(
        source,
        predicted_landmarks(run) if has_landmarks else {},
        layout=CropLayout.of(config),
        crop=grader.crop,
        training=grader.training,
        jitter_mm=landmark_jitter(replace(run, config=config), fold=None),
        seed=config.seed,
    )
    batch_studies = min(grader.training.batch_studies, len(source.study_ids))
    studies: list[StudyCrops] = []
    for inputs, targets in dataset.take(math.ceil(num_studies / batch_studies)):
        batch = (tensor.numpy() for tensor in (inputs["image"], inputs["mask"], targets))
        studies += [StudyCrops(*arrays) for arrays in zip(*batch, strict=True)]
    return studies[:num_studies]


def draw_preview(
    path: Path, previews: Sequence[Preview], layout: CropLayout, *, title: str, note: str
) -> None:
    """Draws the sheet, atomically: two rows per study, the plain crops above the augmented ones.

    A picture is the central slice of a crop as the network receives it. All share one window, so that
    brightness can be compared. The dots above are the crop's slices, hollow if masked; the lines below are
    the targets of the findings that the crop shows.

    Args:
        path: the PNG.
        previews: from `collect_previews`, at least one.
        layout: the plane's layout.
        title: first line.
        note: second line, a sentence that describes the pictures.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = max(len(_rows_of(layout, crop)) for crop in range(len(layout.sides)))
    # Dots above a crop, targets below it.
    height = _COLUMN + (1.4 + lines) * _LINE
    width = _MARGIN + _COLUMN * len(layout.sides)
    figure = Figure(figsize=(width, _TITLE + 2 * len(previews) * height + 0.1), facecolor="white")
    FigureCanvasAgg(figure)
    _write(figure, 0.1, 0.18, title, size=11, weight="bold")
    _write(figure, 0.1, 0.42, f"{note} Filled dots: slices in the crop; hollow: masked.", size=8)
    for crop in range(len(layout.sides)):
        _write(figure, _MARGIN + crop * _COLUMN, 0.66, _name(layout, crop), size=9, weight="bold")
    for number, preview in enumerate(previews):
        for place, (name, crops) in enumerate((("plain", preview.plain), ("augmented", preview.augmented))):
            top = _TITLE + (2 * number + place) * height
            if place == 0:
                _write(figure, 0.1, top + _COLUMN / 2, f"study {number + 1}", size=9, weight="bold")
            _write(figure, 0.1, top + _COLUMN / 2 + 0.2, name, size=8)
            for crop in range(len(layout.sides)):
                _draw_crop(figure, (_MARGIN + crop * _COLUMN, top), crops, crop, layout)
    with replace_atomically(path) as temporary:
        figure.savefig(temporary, dpi=_DPI, format="png")


def describe_target(target: NDArray[np.float32]) -> str:
    """Formats a target; `?` is the share without a label, which completes the sum to 1.

    >>> describe_target(np.array([0, 1, 0], np.float32))
    'Moderate'
    >>> describe_target(np.array([0.7, 0, 0.2], np.float32))
    'N/M .70  Sev .20  ? .10'
    >>> describe_target(np.zeros(3, np.float32))
    'no label'
    """
    if target.max() > 1 - _LEAST_SHARE:
        return Severity(int(target.argmax())).title
    if target.sum() < _LEAST_SHARE:
        return "no label"
    names = ("N/M", "Mod", "Sev", "?")
    shares = [*target.tolist(), 1.0 - float(target.sum())]
    parts = [f"{name} {share:.2f}" for name, share in zip(names, shares) if share >= _LEAST_SHARE]
    return "  ".join(parts).replace(" 0.", " .")


def _rows_of(layout: CropLayout, crop: int) -> list[int]:
    """Returns the indices, in the layout's rows, of the findings that a crop shows."""
    return [place for place, is_shown in enumerate(layout.row_views) if is_shown[crop]]


def _name(layout: CropLayout, crop: int) -> str:
    level = list(Level)[crop // (len(layout.sides) // NUM_LEVELS)].title
    side = layout.sides[crop]
    return level if side is None else f"{level} {side.value}"


def _write(figure: "Figure", x: float, y: float, text: str, *, size: float, weight: str = "normal") -> None:
    """Writes text at a position in inches from the upper left corner."""
    width, height = figure.get_size_inches()
    figure.text(x / width, 1 - y / height, text, fontsize=size, weight=weight, va="center", parse_math=False)


def _draw_crop(
    figure: "Figure", corner: tuple[float, float], crops: StudyCrops, crop: int, layout: CropLayout
) -> None:
    width, height = figure.get_size_inches()
    left, top = corner
    edge = _COLUMN - 0.1
    dots = "".join("●" if is_used else "○" for is_used in crops.mask[crop])
    _write(figure, left, top + 0.5 * _LINE, dots, size=6)
    top += _LINE
    axes = figure.add_axes((left / width, 1 - (top + edge) / height, edge / width, edge / height))
    _show(axes, crops, crop)
    for line, place in enumerate(_rows_of(layout, crop)):
        finding = FINDINGS[layout.rows[place]]
        target = f"{finding.condition.family.value}: {describe_target(crops.targets[place])}"
        _write(figure, left, top + edge + (0.6 + line) * _LINE, target, size=6.5)


def _show(axes: "Axes", crops: StudyCrops, crop: int) -> None:
    axes.set(xticks=[], yticks=[])
    if not crops.mask[crop].any():
        axes.set_facecolor(MISSING_COLOUR)
        axes.text(0.5, 0.5, "no slice", ha="center", va="center", fontsize=8, transform=axes.transAxes)
        return
    centre = crops.image[crop, crops.mask.shape[1] // 2]
    axes.imshow(centre, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
