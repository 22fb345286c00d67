"""Temperature scaling and isotonic calibration of the plain mean, beside the stacker's own head.

    python tests/benchmarks/calibrators.py [--seeds=3] [--first=0]

Every figure is nested over five folds. Isotonic regression (a class at a time, then divided by the sum) is a
comparison only: it is no part of the stacker, whose graph holds matrices and biases.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from stacking import setting
from synthetic_oof import Cohort, make_tables

from lumbar_tf.ensemble.candidates import Candidate, Rows
from lumbar_tf.ensemble.features import member_features, softmax
from lumbar_tf.ensemble.search import PatternSearch
from lumbar_tf.ensemble.stacker import family_findings, mean_in_logits
from lumbar_tf.ensemble.stacking_run import StackerFitter
from lumbar_tf.evaluation.reliability import classwise_calibration_error
from lumbar_tf.labels import MISSING_LABEL, Family

Floats = NDArray[np.float64]
CALIBRATORS = {
    "as it comes": Candidate(None),
    "temperature": Candidate(5.0),
}


def _rows(cohort: Cohort, mean: Floats, family: Family) -> Rows:
    findings, levels = family_findings(family)
    labels = cohort.labels[:, findings]
    studies, places = np.nonzero(labels != MISSING_LABEL)
    return Rows(
        features=member_features(mean)[:, findings][studies, places][:, None],
        context=np.zeros((len(studies), 5, 3)),
        levels=levels[places],
        labels=labels[studies, places],
        studies=studies,
        folds=cohort.folds[studies],
    )


def _isotonic(rows: Rows, probabilities: Floats) -> Floats:
    answers = np.zeros_like(probabilities)
    for fold in np.unique(rows.folds):
        inside = rows.folds == fold
        for k in range(3):
            model = IsotonicRegression(y_min=1e-4, y_max=1.0, out_of_bounds="clip")
            model.fit(probabilities[~inside, k], rows.labels[~inside] == k)
            answers[inside, k] = model.predict(probabilities[inside, k])
    return answers / answers.sum(axis=1, keepdims=True)


def _print(name: str, rows: Rows, probabilities: Floats) -> None:
    chosen = probabilities[np.arange(len(rows.labels)), rows.labels]
    error = classwise_calibration_error(rows.labels, probabilities)
    print(f"    {name:20s} log loss {-np.log(chosen).mean():.4f}   class-wise ECE {error:.4f}", flush=True)


def main() -> None:
    """Prints the figures of each seed and family."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    for seed in range(options.first, options.first + options.seeds):
        num_members, scenario = setting(seed)
        cohort, members = make_tables(seed, num_members, scenario)
        mean = mean_in_logits(members.probabilities)
        stacked = StackerFitter(members, cohort.labels, cohort.folds).nested().probability
        for family in Family:
            print(f"seed {seed}, {scenario.value}, {num_members} members, {family.value}")
            rows = _rows(cohort, mean, family)
            places = np.nonzero(cohort.labels[:, family_findings(family)[0]] != MISSING_LABEL)
            search = PatternSearch(rows)
            for name, logits in search.held_out_logits(frozenset(), list(CALIBRATORS.values())).items():
                label = next(key for key, value in CALIBRATORS.items() if value == name)
                _print(label, rows, softmax(logits))
            _print("isotonic", rows, _isotonic(rows, softmax(rows.features[:, 0])))
            _print("stacked", rows, stacked[:, family_findings(family)[0]][places])


if __name__ == "__main__":
    main()
