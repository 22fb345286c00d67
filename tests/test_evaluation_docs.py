"""What docs/evaluation.md says is what the command does."""

import re
from pathlib import Path

import numpy as np

from lumbar_tf.evaluate import EvaluateOptions
from lumbar_tf.evaluation.cells import FEW_LABELS, cell_json
from lumbar_tf.evaluation.comparison import SMALL_GROUP
from lumbar_tf.evaluation.curves import THRESHOLDS
from lumbar_tf.evaluation.evaluated_table import NUM_WORST
from lumbar_tf.evaluation.evaluation_run import EvaluationRun, evaluation_json
from lumbar_tf.evaluation.operating_points import OPERATING_POINTS
from lumbar_tf.evaluation.picture_sheets import SHEET_NAMES
from lumbar_tf.evaluation.scorecard import evaluate_table

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "evaluation.md").read_text(encoding="utf-8")


def _section(title: str) -> str:
    return TEXT.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_every_flag_is_one_of_the_command() -> None:
    flags = set(re.findall(r"--([a-z]+)", TEXT))
    assert flags <= set(EvaluateOptions.model_fields)


def test_the_operating_points_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \|$", _section("Operating points"), re.MULTILINE)
    assert rows == [(point.name, point.rule, point.reason) for point in OPERATING_POINTS]


def test_every_key_of_the_file_is_explained_and_no_other() -> None:
    card = evaluate_table(np.zeros((2, 25), int), np.full((2, 25, 3), 1 / 3), num_resamples=2)
    content = evaluation_json(EvaluationRun("model", card, 0, (), (), (), {}, 2))
    keys, cells = _section("Keys of `metrics.json`").split("A cell has")
    named = {
        key
        for row in re.findall(r"^\| (`[^|]+) \|", keys, re.MULTILINE)
        for key in re.findall(r"`(\w+)`", row)
    }
    assert named == set(content)
    figures = set(re.findall(r"`(\w+)`", cells)) - {"sensitivity", "specificity"}
    assert figures == set(cell_json(card.families[0])) - {"name"}


def test_the_numbers_are_those_of_the_code() -> None:
    assert f"the {NUM_WORST} labels that cost most" in TEXT
    assert f"A group of under {SMALL_GROUP} studies is small" in TEXT
    assert FEW_LABELS == 10 and "than ten labels" in TEXT
    assert f"every cut-off up to {THRESHOLDS[-1]:g}" in TEXT
    assert f"`--resamples` ({EvaluateOptions.model_fields['resamples'].default})" in TEXT
    assert all(
        f"`{name}`" in TEXT for name in (*SHEET_NAMES, "metrics.json", "evaluation.html", "options.json")
    )
