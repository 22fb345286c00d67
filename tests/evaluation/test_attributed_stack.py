"""What points cost a stack, from tables with a planted culprit."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

import lumbar_tf
from lumbar_tf.ensemble.loss_attribution import LossAttribution
from lumbar_tf.evaluation import evaluation_run
from lumbar_tf.labels import Condition
from lumbar_tf.tables.out_of_fold import placement_tables, write_out_of_fold_table
from tests.command_line import run_in_process
from tests.graded_cohort import draw_answers, draw_labels, make_study_ids, write_labels

_IDS = make_study_ids(60)
_FOLDS = np.arange(60) % 3
_MEMBERS = ("sagittal_t2/a", "sagittal_t2/b")
_LABELS = draw_labels(60, num_graded=5)
#: Sharpness of the members' answers at annotated points, in the annotated slice and at predicted points.
_SABOTAGES = {"healthy": (2.0, 2.0, 2.0), "in slice": (3.0, 1.0, 1.0), "by slice": (3.0, 3.0, 1.0)}


def _write_run(folder: Path, sharpness: tuple[float, float, float], labels: np.ndarray = _LABELS) -> Path:
    """Writes labels, the members' tables as training leaves them, and their stack; returns the folder."""
    write_labels(folder / "train.csv", _IDS, labels)
    for seed, model in enumerate(_MEMBERS):
        for path, sharp in zip(placement_tables(folder / "runs" / model / "oof.csv"), sharpness, strict=True):
            answers = draw_answers(_LABELS, sharpness=sharp, seed=seed)
            if path.name != "oof.csv":
                # No annotated point of one level in some studies; the first member lacks one more.
                answers[:9, 2] = np.nan
                answers[9, 3] = np.nan if model == _MEMBERS[0] else answers[9, 3]
            write_out_of_fold_table(path, _IDS, answers, folds=_FOLDS, model=model)
    lumbar_tf.stack(str(folder / "runs/*/*/oof.csv"), folder / "train.csv", out=folder / "stack")
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    return {
        name: _write_run(tmp_path_factory.mktemp("run"), sharpness) for name, sharpness in _SABOTAGES.items()
    }


def _evaluate(folder: Path, head: str = "probability") -> dict[str, LossAttribution]:
    name = "oof.csv" if head == "competition" else "oof_probability.csv"
    evaluated = lumbar_tf.evaluate(
        folder / "stack" / name, folder / "train.csv", head=head, points=folder / "runs", resamples=2
    )
    return dict(evaluated.run.points)


@pytest.mark.parametrize("head", ["probability", "competition"])
def test_a_stack_whose_members_see_the_same_everywhere_loses_nothing(
    runs: Mapping[str, Path], head: str
) -> None:
    points = _evaluate(runs["healthy"], head)
    assert list(points) == [f"stacked_{head}", *_MEMBERS]
    for costs in points.values():
        assert costs.at_annotated == costs.in_annotated_slice == pytest.approx(costs.at_predicted, abs=1e-6)
        assert costs.cause == ""


@pytest.mark.parametrize(
    ("sabotage", "cause"),
    [("in slice", "the localizer's error within the slice"), ("by slice", "the choice of the slice")],
)
def test_the_planted_culprit_is_named(runs: Mapping[str, Path], sabotage: str, cause: str) -> None:
    for costs in _evaluate(runs[sabotage]).values():
        assert costs.cause.partition(":")[0] == cause
        assert costs.at_annotated < costs.at_predicted - 0.1
        moved = costs.at_predicted if sabotage == "in slice" else costs.at_annotated
        assert costs.in_annotated_slice == pytest.approx(moved, abs=1e-6)


def test_findings_that_cannot_be_compared_are_left_out(runs: Mapping[str, Path]) -> None:
    points = _evaluate(runs["healthy"])
    assert [costs.num_findings for costs in points.values()] == [290, 290, 291]


def test_labels_of_other_studies_are_named(tmp_path: Path) -> None:
    shuffled = _LABELS[np.random.default_rng(0).permutation(60)]
    for costs in _evaluate(_write_run(tmp_path, (2.0, 2.0, 2.0), shuffled)).values():
        assert costs.cause.startswith("labels, crops or the grader, not the points: at the annotated points")


def test_the_losses_at_predicted_points_are_those_of_the_tables(tmp_path: Path) -> None:
    labels = draw_labels(60, num_graded=5)
    folder = _write_run(tmp_path, (3.0, 2.0, 1.0), labels)
    for path in (folder / "runs").rglob("oof_annotated*.csv"):
        # Every finding can be compared.
        seed = _MEMBERS.index(path.parent.relative_to(folder / "runs").as_posix())
        answers = draw_answers(labels, sharpness=3.0, seed=seed)
        write_out_of_fold_table(path, _IDS, answers, folds=_FOLDS, model=_MEMBERS[seed])
    evaluated = lumbar_tf.evaluate(
        folder / "stack" / "oof_probability.csv", folder / "train.csv", points=folder / "runs", resamples=2
    )
    costs = evaluated.points_frame().iloc[0]
    assert (costs["name"], costs.num_findings) == ("stacked_probability", 300)
    assert costs.cause.startswith("the choice of the slice")
    assert costs.at_predicted == pytest.approx(evaluated.run.card.scores["canal"].value, abs=1e-6)
    assert costs.prior == pytest.approx(evaluated.run.card.prior["canal"].value)


def test_the_command_writes_the_sentence_and_a_row_for_each_member(
    runs: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing: dict[Condition, tuple[()]] = dict.fromkeys(Condition, ())
    monkeypatch.setattr(evaluation_run, "draw_sheets", lambda data, out, *, title: nothing)
    folder = runs["in slice"]
    words = [f"--predictions={folder / 'stack' / 'oof_probability.csv'}", f"--labels={folder / 'train.csv'}"]
    pattern = f"--points={folder / 'runs' / '*' / '*' / 'oof.csv'}"
    found = run_in_process("evaluate", *words, pattern, "--resamples=2", f"--out={tmp_path / 'out'}")
    assert found.returncode == 0, found.stderr
    rows = json.loads((tmp_path / "out" / "metrics.json").read_text())["points"]
    assert [row["name"] for row in rows] == ["stacked_probability", *_MEMBERS]
    sentence = str(_evaluate(folder)["stacked_probability"])
    page = (tmp_path / "out" / "evaluation.html").read_text()
    for text in (" ".join(found.stdout.split()), page):
        assert f"stacked_probability, weighted log loss: {sentence}." in text
    assert "Likely cause of this loss: the localizer" in page
    assert "what points cost" in found.stdout and "not calibrated" in page
    assert f'<td class="number">{rows[2]["num_findings"]}</td>' in page


def _refused(folder: Path, match: str, **options: str) -> None:
    with pytest.raises(ValueError, match=match):
        lumbar_tf.evaluate(
            folder / "stack" / options.get("table", "oof_probability.csv"),
            folder / "train.csv",
            points=str(folder / options.get("points", "runs")),
            resamples=2,
        )


def test_what_is_no_stack_of_the_tables_is_refused(runs: Mapping[str, Path], tmp_path: Path) -> None:
    folder = runs["by slice"]
    _refused(folder, "`points` must match a file", points="absent")
    _refused(folder, "stacked_probability must be the stack of the tables", points="runs/*/a/oof.csv")
    _refused(folder, "stacked_competition must be the stack of the tables", table="oof.csv")
    older = _write_run(tmp_path, (2.0, 2.0, 2.0))
    table = older / "stack" / "oof_probability.csv"
    with_folds = table.read_text()
    table.write_text("".join(",".join(line.split(",")[:4]) + "\n" for line in with_folds.splitlines()))
    _refused(older, "needs the folds of a stack.* none of 60 studies")
    table.write_text(with_folds)
    (older / "runs" / _MEMBERS[1] / "oof_annotated_slice.csv").unlink()
    _refused(older, r"Received: no .*b/oof_annotated_slice.csv\. For a run that is older")
