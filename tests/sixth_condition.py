"""Run as a program by `test_new_condition.py`: adds a condition to the table and drives it to a report.

    python tests/sixth_condition.py FOLDER

The table of `lumbar_tf/labels.py` is loaded with two more entries, a family and a condition; no other source
changes. Then one condition, spondylolisthesis on sagittal T2, goes through records, crops, a grader,
out-of-fold tables, the stacker and a study's report.
"""

import importlib.util
import re
import sys
from pathlib import Path

FAMILY = """
    SPONDYLOLISTHESIS = FamilySpec(
        name="spondylolisthesis",
        graded_on=(Plane.SAGITTAL_T2,),
        localized_on=None,
        lateral_order=0,
        site=Code("VERTEBRA", CodingScheme.OWN, "Vertebra"),
        finding=Code("SPONDYLOLISTH", CodingScheme.OWN, "Spondylolisthesis"),
    )
"""
CONDITION = '\n    SPONDYLOLISTHESIS = "spondylolisthesis", Family.SPONDYLOLISTHESIS, None\n'


def load_labels_with_a_sixth_condition() -> None:
    """Puts `lumbar_tf.labels`, with one entry more in each of its two enumerations, into `sys.modules`."""
    spec = importlib.util.find_spec("lumbar_tf.labels")
    assert spec is not None and spec.origin is not None
    source = Path(spec.origin).read_text(encoding="utf-8")
    for name, entry in (("Family", FAMILY), ("Condition", CONDITION)):
        # Before the annotations that follow the members.
        source, count = re.subn(
            rf"(class {name}\(Enum\):.*?)\n(    _value_: str\n)",
            rf"\1{entry}\n\2",
            source,
            count=1,
            flags=re.S,
        )
        assert count == 1, name
    module = importlib.util.module_from_spec(spec)
    sys.modules["lumbar_tf.labels"] = module
    exec(compile(source, spec.origin, "exec"), module.__dict__)


def main(folder: Path) -> None:
    """Drives the new condition through the package, checking each stage."""
    load_labels_with_a_sixth_condition()
    import keras
    import numpy as np
    import tensorflow as tf

    from lumbar_tf.config import CropConfig, GraderConfig, TrainingConfig
    from lumbar_tf.dicom.geometry import SliceGeometry
    from lumbar_tf.dicom.study import Slice, Study
    from lumbar_tf.ensemble.stacking_run import stack_tables
    from lumbar_tf.inputs.crop_layout import CropLayout
    from lumbar_tf.inputs.grader_dataset import severity_targets, study_crops
    from lumbar_tf.interop.codes import finding_code, site_code
    from lumbar_tf.labels import FINDINGS, NUM_FINDINGS, Condition, Family, Flag, Plane
    from lumbar_tf.models.grader import build_grader, log_probabilities
    from lumbar_tf.prediction.results import ModelSource, StudyFindings, findings_frame
    from lumbar_tf.records.parsing import parse_example
    from lumbar_tf.records.schema import encode_plane
    from lumbar_tf.reports.study_report import write_study_report
    from lumbar_tf.tables.out_of_fold import read_out_of_fold_tables, write_out_of_fold_table

    condition, family = Condition("spondylolisthesis"), Family("spondylolisthesis")
    rows = [row for row, finding in enumerate(FINDINGS) if finding.condition is condition]
    assert NUM_FINDINGS == 30 and rows == [25, 26, 27, 28, 29] and condition.side is None

    # Records of a sagittal T2 stack, with points of the canal only.
    rng = np.random.default_rng(0)
    side = 64
    slices = [
        Slice(
            SliceGeometry((4.0 * k - 8, -80.0, 80.0), (0, 1, 0), (0, 0, -1), 2.5, 2.5, side, side),
            rng.integers(0, 1000, (side, side)).astype(np.float32),
            "1",
            k + 1,
        )
        for k in range(5)
    ]
    points = np.full((NUM_FINDINGS, 3), np.nan, np.float32)
    points[:5] = [(0.0, 0.0, 60.0 - 30.0 * level) for level in range(5)]
    ids = [str(1000 + index) for index in range(40)]
    labels = rng.integers(0, 3, (len(ids), NUM_FINDINGS))
    record = parse_example(encode_plane(ids[0], Plane.SAGITTAL_T2, slices, labels=labels[0], points=points))

    # Crops are cut around the level point.
    layout = CropLayout(Plane.SAGITTAL_T2, (Family.CANAL, family))
    crop = CropConfig(side_mm=40.0, side_px=32, num_slices=3)
    assert layout.rows == (0, 1, 2, 3, 4, *rows) and not layout.is_sided
    inputs = study_crops(record, tf.constant(points), layout, crop)
    assert inputs["image"].shape == (5, 3, 32, 32) and bool(tf.reduce_all(inputs["mask"]))
    np.testing.assert_array_equal(
        np.argmax(severity_targets(tf.constant(labels[0]), layout), axis=-1), labels[0, list(layout.rows)]
    )

    # The grader has a head for it, which answers in its rows.
    config = GraderConfig(
        backbones=("densenet_tiny",),
        targets=layout.targets,
        crop=crop,
        training=TrainingConfig(epochs=1, batch_studies=2, learning_rate=1e-3),
    )
    keras.utils.set_random_seed(0)
    grader = build_grader("densenet_tiny", config, layout)
    batch = {name: value[None] for name, value in inputs.items()}
    answers = tf.exp(log_probabilities(grader(batch), batch["mask"], layout)).numpy()[0]
    assert np.isfinite(answers[rows]).all() and np.allclose(answers[rows].sum(axis=-1), 1, atol=1e-5)
    assert np.isnan(answers[5:25]).all()

    # An out-of-fold table of a member that is often right, and the stacker that is fitted to it.
    logits = 2.0 * np.eye(3)[labels] + rng.normal(size=(*labels.shape, 3))
    said = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    said[:, 5:25] = np.nan
    folds = {study: index % 4 for index, study in enumerate(ids)}
    path = folder / "oof.csv"
    write_out_of_fold_table(path, ids, said, model="sagittal_t2/net", folds=[folds[study] for study in ids])
    (table,) = read_out_of_fold_tables([path])
    run = stack_tables([table], ids, labels, folds=folds)
    stacked = run.nested.probability
    truth = np.take_along_axis(stacked[:, rows], labels[:, rows, None], axis=-1)
    assert np.isfinite(stacked[:, rows]).all() and truth.mean() > 0.5

    # The report has a column for it, and the table rows.
    finding = StudyFindings(
        study_id=ids[0],
        probability=stacked[0].astype(np.float32),
        competition=run.nested.competition[0].astype(np.float32),
        members=said[None, 0].astype(np.float32),
        landmarks=points,
        flags=np.zeros((NUM_FINDINGS, len(Flag)), bool),
    )
    frame = findings_frame(finding)
    assert (frame["condition"] == "spondylolisthesis").sum() == 5
    study = Study(ids[0], "", {Plane.SAGITTAL_T2: tuple(slices)})
    write_study_report(
        folder / "report.html", study, finding, ModelSource("1", ("sagittal_t2/net",)), {}, None
    )
    text = (folder / "report.html").read_text(encoding="utf-8").replace("\u00ad", "")
    assert text.count("Spondylolisthesis L4/L5") >= 1
    assert finding_code(condition).meaning == "Spondylolisthesis" and site_code(condition).value == "VERTEBRA"
    print("driven through:", ", ".join(FINDINGS[row].name for row in rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
