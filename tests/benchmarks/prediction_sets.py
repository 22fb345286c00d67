"""Coverage by true grade and size of prediction sets, on synthetic tables, and on studies of other sites.

    python tests/benchmarks/prediction_sets.py [--seeds=20] [--first=0] [--members=4] [--shared=0.6]
        [--searched]

A stacker is fitted to the out-of-fold tables of 1,975 studies. Columns:

- one threshold: for comparison, nested, one threshold of p(label) for all grades of a family;
- nested: out of fold, as `evaluate` measures it;
- new: 1,975 other studies of the same site, graded by the final stacker;
- frequencies: those studies drawn again, each with a weight of 1 + 3 for each severe finding;
- severity: the same studies with every latent severity 0.5 higher, so that each grade has other cases, too;
- no plane: the new studies without the second of the two sources.

Values are means over the seeds, with the smallest and the largest in brackets. `--shared` is the standard
deviation of the noise that members share: smaller values make better ensembles. `--searched` chooses the
stacker's form as `stack` does, which takes minutes.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from synthetic_oof import NUM_STUDIES, Cohort, Scenario, draw_recipes, make_cohort, make_member

from lumbar_tf.ensemble.candidates import default_candidates
from lumbar_tf.ensemble.prediction_sets import COVERAGE, grade_sets
from lumbar_tf.ensemble.stacker import apply_stacker, family_findings
from lumbar_tf.ensemble.stacking_run import StackerFitter
from lumbar_tf.labels import MISSING_LABEL, Family, Severity
from lumbar_tf.tables.out_of_fold import Members

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_COLUMNS = ("one threshold", "nested", "new", "frequencies", "severity", "no plane")
_MORE_SEVERE = 0.5


def _look(cohort: Cohort, num_members: int, seed: int, shared_sd: float) -> Floats:
    """Returns the members' predictions, [num_members, num_studies, 25, 3]."""
    shared = shared_sd * np.random.default_rng([seed, 2]).normal(size=cohort.latent.shape)
    recipes = draw_recipes(seed, num_members, Scenario.CALIBRATION)
    return np.stack(
        [
            make_member(cohort, recipe, shared, (seed, 10 + place), shared_sd=shared_sd)
            for place, recipe in enumerate(recipes)
        ]
    )


def _shifted(cohort: Cohort) -> Cohort:
    latent = cohort.latent + _MORE_SEVERE
    labels = (latent[..., None] > cohort.cuts).sum(axis=-1)
    return replace(
        cohort, latent=latent, labels=np.where(cohort.labels == MISSING_LABEL, MISSING_LABEL, labels)
    )


def _one_threshold(probability: Floats, labels: Ints, folds: Ints) -> Bools:
    """Returns nested sets with one conformal threshold for all grades of a family."""
    sets = np.zeros(probability.shape, np.bool_)
    for family in Family:
        rows, _ = family_findings(family)
        own, known = probability[:, rows], labels[:, rows]
        for fold in np.unique(folds):
            inside = known[folds != fold]
            scores = np.take_along_axis(own[folds != fold], np.maximum(inside, 0)[..., None], -1)[..., 0]
            scores = scores[inside != MISSING_LABEL]
            level = np.ceil((scores.size + 1) * COVERAGE) / scores.size
            threshold = -np.quantile(-scores, level, method="inverted_cdf")
            place = np.ix_(folds == fold, rows)
            sets[place] = grade_sets(own[folds == fold], np.full(3, threshold))
    return sets


def _measure(sets: Bools, labels: Ints) -> Floats:
    """Returns coverage of the three grades, and mean size, of each family, [3, 4]."""
    values = []
    for family in Family:
        rows, _ = family_findings(family)
        own, known = sets[:, rows], labels[:, rows]
        coverage = [own[known == grade][:, grade].mean() for grade in range(3)]
        values.append([*coverage, own[known != MISSING_LABEL].sum(axis=-1).mean()])
    return np.array(values)


def measure(seed: int, num_members: int, shared_sd: float, *, is_searched: bool) -> Floats:
    """Returns the table of a seed, [column, family, 4]."""
    whole = make_cohort(seed, 2 * NUM_STUDIES)
    tables, later = (_look(cohort, num_members, seed, shared_sd) for cohort in (whole, _shifted(whole)))
    names = tuple(f"network_{place}" for place in range(num_members))
    sources = tuple("second" if place % 2 else "first" for place in range(num_members))
    fitted, new = slice(NUM_STUDIES), slice(NUM_STUDIES, None)
    labels, folds = whole.labels[fitted], whole.folds[fitted]
    forms = None if is_searched else default_candidates()
    with threadpool_limits(limits=1):
        fitter = StackerFitter(Members(names, sources, tables[:, fitted]), labels, folds, forms=forms)
        nested, stacker = fitter.nested(), fitter.fit()
    fresh, fresh_labels = apply_stacker(stacker, tables[:, new]).sets, whole.labels[new]
    weights = 1.0 + 3.0 * (fresh_labels == Severity.SEVERE).sum(axis=1)
    drawn = np.random.default_rng([seed, 4]).choice(NUM_STUDIES, NUM_STUDIES, p=weights / weights.sum())
    hidden = tables[:, new].copy()
    hidden[[source == "second" for source in sources]] = np.nan
    return np.stack(
        [
            _measure(_one_threshold(nested.probability, labels, folds), labels),
            _measure(nested.sets, labels),
            _measure(fresh, fresh_labels),
            _measure(fresh[drawn], fresh_labels[drawn]),
            _measure(apply_stacker(stacker, later[:, new]).sets, _shifted(whole).labels[new]),
            _measure(apply_stacker(stacker, hidden).sets, fresh_labels),
        ]
    )


def main() -> None:
    """Prints a row for each family and grade."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--shared", type=float, default=0.6)
    parser.add_argument("--searched", action="store_true")
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.seeds)
    values = np.stack(
        [measure(seed, options.members, options.shared, is_searched=options.searched) for seed in seeds]
    )
    print(f"| | {' | '.join(_COLUMNS)} |")
    print("|---" * (1 + len(_COLUMNS)) + "|")
    for place, family in enumerate(Family):
        for figure, name in enumerate((*(grade.title for grade in Severity), "mean size")):
            cells = (
                f"{own.mean():.3f} [{own.min():.3f}, {own.max():.3f}]"
                for own in values[:, :, place, figure].T
            )
            print(f"| {family.value}, {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
