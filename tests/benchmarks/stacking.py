"""What stacking brings on synthetic out-of-fold tables, beside the plain mean and the best member.

    python tests/benchmarks/stacking.py [--seeds=20] [--first=0] [--lightgbm]
    python tests/benchmarks/stacking.py --write=DIR [--first=0]   (one seed's tables, for `lumbar_tf.stack`)

LightGBM is no requirement of the package; without it its column is left out. Every figure is nested: fold a
is answered by what was fitted on the other folds.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from synthetic_oof import NUM_STUDIES, Cohort, Scenario, make_tables, write_cohort

from lumbar_tf.ensemble.features import member_features
from lumbar_tf.ensemble.stacker import Stacked, family_findings, mean_in_logits
from lumbar_tf.ensemble.stacking_run import StackerFitter
from lumbar_tf.evaluation.metrics import competition_score
from lumbar_tf.evaluation.reliability import classwise_calibration_error
from lumbar_tf.labels import FINDINGS, MISSING_LABEL, Condition, Family
from lumbar_tf.tables.out_of_fold import Members

Floats = NDArray[np.float64]
_NUM_MEMBERS = (2, 3, 4, 5, 6, 7, 7)
_CLASS_WEIGHTS = np.array([1.0, 2.0, 4.0])


def _score(labels: NDArray[np.int64], probabilities: Floats) -> float:
    """Returns the competition score; infinite where a labelled finding has no answer."""
    answered = np.isfinite(probabilities).all(axis=-1) | (labels == MISSING_LABEL)
    return competition_score(labels, probabilities).score if answered.all() else np.inf


def _tempered(cohort: Cohort, probabilities: Floats) -> Floats:
    """Returns one member's answers after its own nested temperature and tilt of each family."""
    alone = Members(("one",), ("one",), probabilities[None])
    return StackerFitter(alone, cohort.labels, cohort.folds).nested().competition


def _boosted(cohort: Cohort, members: Members) -> Floats | None:
    """Returns nested answers of LightGBM on the members' log-probabilities, level, side and context."""
    try:
        from lightgbm import LGBMClassifier
    except ImportError:
        return None
    answers = np.zeros((*cohort.labels.shape, 3))
    features = member_features(members.probabilities)
    mean = mean_in_logits(members.probabilities)[..., 1:].reshape(len(cohort.labels), -1)
    for family in Family:
        rows, levels = family_findings(family)
        own = np.where(np.isfinite(members.probabilities), features, np.nan)[:, :, rows]
        own = own.transpose(1, 2, 0, 3).reshape(len(mean), len(rows), -1)
        table = np.concatenate(
            [
                own,
                np.broadcast_to(levels[None, :, None], (*own.shape[:2], 1)),
                np.broadcast_to(np.arange(len(rows))[None, :, None], (*own.shape[:2], 1)),
                np.broadcast_to(mean[:, None], (*own.shape[:2], mean.shape[1])),
            ],
            axis=-1,
        )
        known = cohort.labels[:, rows] != MISSING_LABEL
        for fold in np.unique(cohort.folds):
            inside = cohort.folds == fold
            training = known & ~inside[:, None]
            chosen = cohort.labels[:, rows][training]
            model = LGBMClassifier(
                n_estimators=150,
                learning_rate=0.03,
                num_leaves=7,
                min_child_samples=60,
                reg_lambda=5.0,
                colsample_bytree=0.5,
                subsample=0.7,
                subsample_freq=1,
                n_jobs=1,
                verbose=-1,
                random_state=0,
            )
            model.fit(table[training], chosen, sample_weight=_CLASS_WEIGHTS[chosen])
            said = model.predict_proba(table[inside].reshape(-1, table.shape[-1]))
            answers[np.ix_(inside, rows)] = said.reshape(inside.sum(), len(rows), 3)
    return answers


def _errors(labels: NDArray[np.int64], probabilities: Floats, by: Callable[[int], object]) -> Floats:
    """Returns the class-wise calibration error of each group of findings, NaN where nothing is answered."""
    groups: dict[object, list[int]] = {}
    for index in range(len(FINDINGS)):
        groups.setdefault(by(index), []).append(index)
    errors = []
    for rows in groups.values():
        is_answered = np.isfinite(probabilities[:, rows]).all(axis=-1)
        shown = np.where(is_answered, labels[:, rows], MISSING_LABEL)
        errors.append(
            classwise_calibration_error(shown.ravel(), np.nan_to_num(probabilities[:, rows]).reshape(-1, 3))
            if (shown != MISSING_LABEL).any()
            else np.nan
        )
    return np.array(errors)


def _condition(index: int) -> Condition:
    return FINDINGS[index].condition


def setting(seed: int) -> tuple[int, Scenario]:
    """Returns the number of members and the scenario of a seed."""
    return _NUM_MEMBERS[seed % len(_NUM_MEMBERS)], list(Scenario)[seed % len(Scenario)]


def _line(seed: int, *, boosts: bool) -> dict[str, float]:
    num_members, scenario = setting(seed)
    cohort, members = make_tables(seed, num_members, scenario)
    labels = cohort.labels
    start = time.process_time()
    nested: Stacked = StackerFitter(members, labels, cohort.folds).nested()
    seconds = time.process_time() - start
    alone = [_score(labels, each) for each in members.probabilities]
    best = int(np.argmin(alone))
    boosted = _boosted(cohort, members) if boosts else None
    errors = _errors(labels, nested.probability, _condition)
    theirs = np.stack([_errors(labels, each, _condition) for each in members.probabilities])
    figures = {
        "stack": _score(labels, nested.competition),
        "mean": _score(labels, mean_in_logits(members.probabilities)),
        "best": alone[best],
        "tempered": _score(labels, _tempered(cohort, members.probabilities[best])),
        "boosted": _score(labels, boosted) if boosted is not None else np.nan,
        "ece": errors.max(),
        "member_ece": np.nanmin(theirs),
        "below": float(np.nanmin(theirs - errors)),
        "seconds": seconds,
    }
    print(
        f"{seed:4d} {scenario.value:12s}{num_members:4d}"
        + "".join(f"{value:10.4f}" for value in figures.values()),
        flush=True,
    )
    return {**figures, "scenario": float(list(Scenario).index(scenario))}


def main() -> None:
    """Prints a line a seed and what the issue asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--lightgbm", action="store_true")
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    if options.write:
        write_cohort(options.write, *make_tables(options.first, *setting(options.first)))
        return
    print(f"{NUM_STUDIES} studies, 5 folds; scores nested, smaller is better")
    titles = ("stack", "mean", "best one", "its T+tilt", "boosted", "worst ECE", "members'", "by", "CPU s")
    print("seed scenario members" + "".join(f"{title:>10s}" for title in titles))
    with threadpool_limits(limits=1):  # as `stack_tables` does
        lines = [_line(options.first + seed, boosts=options.lightgbm) for seed in range(options.seeds)]
    stack, mean, best = (np.array([line[name] for line in lines]) for name in ("stack", "mean", "best"))
    differs = np.array([line["scenario"] > 0 for line in lines])
    print(f"no worse than the mean by 0.0005: {(stack <= mean + 0.0005).sum()} of {len(lines)}")
    print(f"better than the best member: {(stack < best).sum()} of {len(lines)}")
    clearly = (mean - stack >= 0.0015)[differs].sum()
    print(f"0.0015 better than the mean where calibration differs: {clearly} of {differs.sum()}")
    print(f"worst class-wise ECE of a condition: {max(line['ece'] for line in lines):.4f}")
    print(f"below every member's on every condition: {sum(line['below'] > 0 for line in lines)}")


if __name__ == "__main__":
    main()
