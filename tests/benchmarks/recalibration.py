"""Gain, refusals and harm of a recalibration on simulated sites, by the number of labelled studies.

    python tests/benchmarks/recalibration.py [--seeds=5] [--first=0] [--studies=10,25,50,100,200,400]

A stacker of 4 members is fitted to the out-of-fold tables of 1,975 synthetic studies. The studies of a site
come from the same simulator with weights exp(tilt * min(number of severe findings, 6)), whose tilt makes
severe canal findings once, twice or four times as frequent (the others a little less). A site's labelled
studies and the 6,000 studies that everything is measured on are different ones.

Columns, over all seeds; a family counts once for each seed:

- refused: sites of which no version would be written;
- families: those that were recalibrated;
- gain: mean decrease of the log loss of the probability head over all families, 0 where one is not
  recalibrated; and of the canal alone;
- unchecked: the mean gain if every family were recalibrated, without the nested check;
- harmed: recalibrated families whose loss rose, with the mean and the largest rise;
- competition: mean decrease of the weighted log loss of the competition head over the recalibrated families;
- coverage: of the recalibrated families' prediction sets by grade (Normal/Mild, Moderate, Severe), before and
  after; and their mean size.

The ridges and the confidence of the check were chosen on the seeds 100 to 111.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from synthetic_oof import NUM_STUDIES, SHARED_SD, Scenario, draw_recipes, make_cohort, make_member

from lumbar_tf.ensemble.candidates import CLASS_WEIGHTS, default_candidates
from lumbar_tf.ensemble.features import centred_logs
from lumbar_tf.ensemble.recalibrated_stacker import recalibrate_stacker
from lumbar_tf.ensemble.recalibration import LocalRows, choose_ridge, fit_calibration
from lumbar_tf.ensemble.stacker import Head, Stacked, StackerCoefficients, apply_stacker, family_findings
from lumbar_tf.ensemble.stacking_run import StackerFitter
from lumbar_tf.labels import MISSING_LABEL, Family, Severity
from lumbar_tf.tables.out_of_fold import Members

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_NUM_MEMBERS = 4
_NUM_POOL = 3000
_NUM_TEST = 6000
_FACTORS = (1, 2, 4)
_LARGEST_COUNT = 6


@dataclass(frozen=True)
class Region:
    """Studies of a seed: the fitted stacker, a pool of local studies, and others to measure on."""

    stacker: StackerCoefficients
    tables: Floats
    labels: Ints
    test: slice

    def stacked(self, stacker: StackerCoefficients) -> Stacked:
        """Returns a stacker's predictions for the studies to measure on."""
        return apply_stacker(stacker, self.tables[:, self.test])


def make_region(seed: int) -> Region:
    """Fits the stacker of a seed."""
    whole = make_cohort(seed, NUM_STUDIES + _NUM_POOL + _NUM_TEST)
    shared = SHARED_SD * np.random.default_rng([seed, 2]).normal(size=whole.latent.shape)
    recipes = draw_recipes(seed, _NUM_MEMBERS, Scenario.CALIBRATION)
    tables = np.stack(
        [make_member(whole, recipe, shared, (seed, 10 + place)) for place, recipe in enumerate(recipes)]
    )
    names = tuple(f"network_{place}" for place in range(_NUM_MEMBERS))
    sources = tuple("second" if place % 2 else "first" for place in range(_NUM_MEMBERS))
    fitted = slice(NUM_STUDIES)
    members = Members(names, sources, tables[:, fitted])
    fitter = StackerFitter(members, whole.labels[fitted], whole.folds[fitted], forms=default_candidates())
    return Region(fitter.fit(), tables, whole.labels, slice(NUM_STUDIES + _NUM_POOL, None))


def site_weights(labels: Ints, factor: float) -> Floats:
    """Returns weights of studies that make severe canal findings `factor` times as frequent; sum 1."""
    counts = np.minimum((labels == Severity.SEVERE).sum(axis=1), _LARGEST_COUNT)
    rows, _ = family_findings(Family.CANAL)
    severe = (labels[:, rows] == Severity.SEVERE).sum(axis=1)
    known = (labels[:, rows] != MISSING_LABEL).sum(axis=1)

    def excess(tilt: float) -> float:
        weights = np.exp(tilt * counts)
        return float(weights @ severe / (weights @ known) - factor * severe.sum() / known.sum())

    weights = np.exp((brentq(excess, 0.0, 3.0) if factor > 1 else 0.0) * counts)
    return np.asarray(weights / weights.sum())


@dataclass(frozen=True)
class Figures:
    """Means over the findings of a family at a site, weighted by study."""

    loss: float
    weighted: float
    coverage: Floats
    size: float


def measure(stacked: Stacked, labels: Ints, weights: Floats, family: Family) -> Figures:
    """Measures a stacker's predictions of a family."""
    rows, _ = family_findings(family)
    known = labels[:, rows] != MISSING_LABEL
    grades = labels[:, rows][known]
    rank = np.arange(len(grades))
    share = np.broadcast_to(weights[:, None], known.shape)[known]
    tilted = share * CLASS_WEIGHTS[grades]
    probability, competition = (stacked.head(head)[:, rows][known][rank, grades] for head in Head)
    sets = stacked.sets[:, rows][known]
    coverage = [np.average(sets[grades == k, k], weights=share[grades == k]) for k in range(3)]
    return Figures(
        float(np.average(-np.log(probability), weights=share)),
        float(np.average(-np.log(competition), weights=tilted)),
        np.array(coverage),
        float(np.average(sets.sum(axis=1), weights=share)),
    )


def unchecked_gain(region: Region, local: Ints, weights: Floats, family: Family) -> float:
    """Returns the gain of a family that is recalibrated whatever the check finds."""
    rows, _ = family_findings(family)

    def local_rows(stacked: Stacked, labels: Ints) -> LocalRows:
        known = labels[:, rows] != MISSING_LABEL
        logits = centred_logs(stacked.probability[:, rows][known])
        return LocalRows(logits, labels[:, rows][known], np.nonzero(known)[0])

    own = local_rows(apply_stacker(region.stacker, region.tables[:, local]), region.labels[local])
    calibration = fit_calibration(own, choose_ridge(own, own.patients % 5))
    test = local_rows(region.stacked(region.stacker), region.labels[region.test])
    return float(np.average(test.losses() - test.losses(calibration), weights=weights[test.patients]))


@dataclass(frozen=True)
class FamilyResult:
    """A family at a site before and after the recalibration, which may have been refused."""

    family: Family
    is_refused: bool
    is_changed: bool
    before: Figures
    after: Figures
    unchecked: float

    @property
    def gain(self) -> float:
        """Decrease of the log loss of the probability head."""
        return self.before.loss - self.after.loss


def run_site(region: Region, seed: int, factor: float, num_studies: int) -> list[FamilyResult]:
    """Recalibrates for one site and returns the figures of each family."""
    pool = np.arange(NUM_STUDIES, NUM_STUDIES + _NUM_POOL)
    drawn = np.random.default_rng([seed, 5, num_studies]).choice(
        pool, num_studies, replace=False, p=site_weights(region.labels[pool], factor)
    )
    test_labels = region.labels[region.test]
    weights = site_weights(test_labels, factor)
    names = [str(study) for study in drawn]
    try:
        found = recalibrate_stacker(
            region.stacker, region.tables[:, drawn], region.labels[drawn], names
        ).stacker
    except ValueError:  # too few studies
        found = None
    before, after = region.stacked(region.stacker), region.stacked(found or region.stacker)
    return [
        FamilyResult(
            family,
            is_refused=found is None,
            is_changed=found is not None and found.family(family) is not region.stacker.family(family),
            before=measure(before, test_labels, weights, family),
            after=measure(after, test_labels, weights, family),
            unchecked=unchecked_gain(region, drawn, weights, family),
        )
        for family in Family
    ]


def _table_row(results: list[FamilyResult], factor: float, num_studies: int) -> str:
    """Returns a line of the table; gains and harm in units of 0.0001."""
    num_sites = len(results) // len(Family)
    gains = np.array([result.gain for result in results]) * 1e4
    canal = gains[[result.family is Family.CANAL for result in results]]
    own = [result for result in results if result.is_changed]
    harm = np.array([-result.gain * 1e4 for result in own if result.gain < 0])
    cells = [
        f"{factor:g}",
        f"{num_studies}",
        f"{sum(result.is_refused for result in results) // len(Family)} of {num_sites}",
        f"{len(own)} of {len(results)}",
        f"{gains.mean():.0f}; {canal.mean():.0f}",
        f"{np.mean([result.unchecked for result in results]) * 1e4:.0f}",
        f"{harm.size}" + (f" ({harm.mean():.0f}, {harm.max():.0f})" if harm.size else ""),
    ]
    if not own:
        return f"| {' | '.join([*cells, '-', '-', '-'])} |"
    weighted = np.mean([result.before.weighted - result.after.weighted for result in own]) * 1e4
    coverage, sizes = [], []
    for figures in ([result.before for result in own], [result.after for result in own]):
        by_grade = np.mean([each.coverage for each in figures], axis=0)
        coverage.append(", ".join(f"{value:.2f}" for value in by_grade))
        sizes.append(f"{np.mean([each.size for each in figures]):.2f}")
    cells += [f"{weighted:.0f}", " to ".join(coverage), " to ".join(sizes)]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Prints a row for each site and number of studies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--studies", default="10,25,50,100,200,400")
    options = parser.parse_args()
    columns = "severe x | studies | refused | families | gain; canal | unchecked | harmed | competition"
    print(f"| {columns} | coverage | size |")
    print("|---" * 10 + "|", flush=True)
    with threadpool_limits(limits=1):
        regions = [make_region(options.first + place) for place in range(options.seeds)]
        for factor in _FACTORS:
            for num_studies in map(int, options.studies.split(",")):
                results = [
                    result
                    for place, region in enumerate(regions)
                    for result in run_site(region, options.first + place, factor, num_studies)
                ]
                print(_table_row(results, factor, num_studies), flush=True)


if __name__ == "__main__":
    main()
