"""How far do localizers point from where a synthetic patient's anatomy really is?

    python -m lumbar_tf.synthetic --out=COHORT --studies=150 --seed=2024
    python -m lumbar_tf.build_records --data=COHORT --out=RECORDS --num-folds=2
    python -m lumbar_tf.train --plane=sagittal_t2 --records=RECORDS --runs=RUNS
    python tests/benchmarks/localizers.py RUNS --studies=150 --seed=2024 [--severity-shift=0.45]

`train` measures against the annotator's points, which on synthetic studies lie 1 mm (standard deviation)
off the anatomy each way, on the nearest slice: whoever points at the anatomy itself is 1.9 mm off. Here
the same held-out points are measured against the anatomy, along the patient's axes, too.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from lumbar_tf.labels import FINDINGS, Plane
from lumbar_tf.synthetic import CohortOptions
from lumbar_tf.synthetic.cohort import draw_study, landmark
from lumbar_tf.tables.landmarks import Points, read_landmarks
from lumbar_tf.training.localization_metrics import measure_landmark_accuracy
from lumbar_tf.training.runs import landmark_tables


def true_points(options: CohortOptions) -> dict[str, Points]:
    """Returns where the anatomy of each study is, float32 [25, 3] by study, LPS mm."""
    studies = (draw_study(options, index)[0] for index in range(options.num_studies))
    return {
        each.study_id: np.float32([landmark(each.anatomy, finding) for finding in FINDINGS])
        for each in studies
    }


def main() -> None:
    """Prints a line a plane."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path)
    parser.add_argument("--studies", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--severity-shift", type=float, default=0.0)
    words = parser.parse_args()
    truth = true_points(CohortOptions(words.studies, words.seed, severity_shift=words.severity_shift))
    for plane in Plane:
        tables = landmark_tables(words.runs, (plane,))
        if not tables:
            continue
        found = read_landmarks(tables)
        error = measure_landmark_accuracy(found, truth)
        gaps = np.concatenate([np.abs(found[study] - truth[study]) for study in found])
        x, y, z = np.nanmedian(gaps, axis=0)
        print(
            f"{plane.value}: {error.num_points} points, median {error.median_mm:.2f} mm from the anatomy "
            f"(x {x:.2f}, y {y:.2f}, z {z:.2f}), {error.within_10_mm:.1%} within 10 mm, "
            f"{error.own_level:.1%} nearest their own level, {error.num_withheld} withheld"
        )


if __name__ == "__main__":
    main()
