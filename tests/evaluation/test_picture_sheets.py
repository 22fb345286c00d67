import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lumbar_tf.evaluation.cells import make_cells
from lumbar_tf.evaluation.evaluated_table import CONDITIONS, EvaluatedTable
from lumbar_tf.evaluation.metrics import condition_level_prior
from lumbar_tf.evaluation.picture_sheets import SHEET_NAMES, SheetData, draw_sheets
from lumbar_tf.evaluation.plots import PanelPicture
from lumbar_tf.labels import Condition


@pytest.fixture(scope="module")
def data() -> SheetData:
    """Thirty studies without any label of the right subarticular zone, nor a severe one of the left."""
    generator = np.random.default_rng(0)
    labels = generator.choice(3, size=(30, 25), p=[0.7, 0.2, 0.1])
    labels[:, 20:] = -1
    labels[:, 15:20] = np.minimum(labels[:, 15:20], 1)
    answers = generator.dirichlet([1, 1, 1], (30, 25))
    answers[0, 20] = np.nan
    evaluated = EvaluatedTable(labels, answers, answers)
    prior = np.broadcast_to(condition_level_prior(labels), answers.shape)
    return SheetData(
        evaluated, make_cells(evaluated, prior, CONDITIONS, num_resamples=5, seed=0), num_resamples=5
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sheets")


@pytest.fixture(scope="module")
def pictures(data: SheetData, folder: Path) -> dict[Condition, list[PanelPicture]]:
    return draw_sheets(data, folder, title="a title")


def _ink(png: bytes) -> float:
    return float((np.asarray(Image.open(io.BytesIO(png)).convert("L")) < 128).mean())


def test_sheets_are_written_and_cut_into_panels_of_one_size(
    pictures: dict[Condition, list[PanelPicture]], folder: Path
) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(SHEET_NAMES)
    for name in SHEET_NAMES:
        assert min(Image.open(folder / name).size) > 450
    assert list(pictures) == list(Condition)
    for condition, panels in pictures.items():
        assert len(panels) == 8 and all(condition.title in panel.text for panel in panels)
        assert {Image.open(io.BytesIO(panel.png)).size for panel in panels} == {(435, 435)}
    canal = pictures[Condition.SPINAL_CANAL_STENOSIS]
    empty = pictures[Condition.RIGHT_SUBARTICULAR_STENOSIS]
    assert min(_ink(panel.png) for panel in canal) > 0.005
    assert all(_ink(none.png) < 0.7 * _ink(some.png) for none, some in zip(empty, canal, strict=True))


def test_panels_have_empty_edges(pictures: dict[Condition, list[PanelPicture]]) -> None:
    for panels in pictures.values():
        for panel in panels:
            pixels = np.asarray(Image.open(io.BytesIO(panel.png)).convert("L"))
            for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
                assert edge.min() > 200, panel.text
