"""How often intervals hold a second ensemble's answer, on synthetic tables, and how wide they are.

    python tests/benchmarks/intervals.py [--seeds=4] [--first=0] [--members=2,3,5,7] [--unsearched] [--hide]

Two ensembles of the same recipes have noise of their own, and stackers of their own, fitted to the same
labels of 1,500 studies; the first one's intervals are asked for the second one's answers on 475 others. The
members of a set share a part of their noise, or have as much noise and share none of it. They read two
sources; `--hide` hides the second one's half of them in the studies that are asked, as a missing plane does.
`--unsearched` fits each stacker without choosing its form (seconds instead of minutes).
"""

import argparse
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from synthetic_oof import SHARED_SD, Cohort, Scenario, draw_recipes, make_cohort, make_member

from lumbar_tf.ensemble.candidates import default_candidates
from lumbar_tf.ensemble.family_fitting import Forms
from lumbar_tf.ensemble.intervals import member_intervals
from lumbar_tf.ensemble.stacker import StackerCoefficients, apply_stacker
from lumbar_tf.ensemble.stacking_run import StackerFitter
from lumbar_tf.labels import FINDINGS, Family
from lumbar_tf.tables.out_of_fold import Members

Floats = NDArray[np.float64]

_NUM_FITTED = 1500
_EDGES = (0.0, 0.01, 0.1, 0.5, 0.9, 1.0)


def _draw(
    cohort: Cohort, num_members: int, scenario: Scenario, seed: int, again: int, *, shares: bool
) -> Members:
    """Returns an ensemble's tables; another `again` is the same networks trained anew."""
    shared = SHARED_SD * np.random.default_rng([seed, 2]).normal(size=cohort.latent.shape)
    recipes = draw_recipes(seed, num_members, scenario)
    if not shares:
        shared = np.zeros_like(shared)
        recipes = tuple(replace(each, noise=float(np.hypot(each.noise, SHARED_SD))) for each in recipes)
    tables = [
        make_member(
            cohort, each, shared, (seed + 7919 * again, 10 + place), shared_sd=SHARED_SD if shares else 0.0
        )
        for place, each in enumerate(recipes)
    ]
    names = tuple(each.name for each in recipes)
    sources = tuple("second" if place % 2 else "first" for place in range(num_members))
    return Members(names, sources, np.stack(tables))


def _fit(members: Members, cohort: Cohort, forms: Forms | None) -> StackerCoefficients:
    fitted = slice(_NUM_FITTED)
    shown = Members(members.names, members.sources, members.probabilities[:, fitted])
    with threadpool_limits(limits=1):
        return StackerFitter(shown, cohort.labels[fitted], cohort.folds[fitted], forms=forms).fit()


def measure(
    num_members: int, scenario: Scenario, seed: int, *, shares: bool, hides: bool, forms: Forms | None
) -> tuple[Floats, Floats, Floats]:
    """Returns whether each number was held, the width, and the answer, float64 [475, 25, 3]."""
    cohort = make_cohort(seed)
    pair = [_draw(cohort, num_members, scenario, seed, again, shares=shares) for again in (0, 1)]
    stackers = [_fit(each, cohort, forms) for each in pair]
    fresh = [each.probabilities[:, _NUM_FITTED:].copy() for each in pair]
    for shown in fresh if hides else ():
        shown[1::2] = np.nan
    found = member_intervals(stackers[0], fresh[0])
    own, other = (
        apply_stacker(stacker, shown).probability for stacker, shown in zip(stackers, fresh, strict=True)
    )
    return ((found.low <= other) & (other <= found.high)).astype(np.float64), found.high - found.low, own


def main() -> None:
    """Prints a row a set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--members", default="2,3,5,7")
    parser.add_argument("--unsearched", action="store_true")
    parser.add_argument("--hide", action="store_true")
    options = parser.parse_args()
    forms = default_candidates() if options.unsearched else None
    print(
        "| members | set | held | by family and grade | by p (edges .01 .1 .5 .9) | median width: all,",
        end="",
    )
    print(" severe, 0.1<=p<0.5 |")
    print("|---|---|---|---|---|---|")
    for num_members in map(int, options.members.split(",")):
        for scenario in (Scenario.ALIKE, Scenario.CALIBRATION):
            for shares in (True, False):
                seeds = range(options.first, options.first + options.seeds)
                parts = [
                    measure(num_members, scenario, seed, shares=shares, hides=options.hide, forms=forms)
                    for seed in seeds
                ]
                words = f"{scenario.value}, {'shared noise' if shares else 'nothing shared'}"
                _print_row(num_members, words, *(np.concatenate(part) for part in zip(*parts, strict=True)))


def _print_row(num_members: int, words: str, held: Floats, widths: Floats, own: Floats) -> None:
    of = np.array([finding.condition.family for finding in FINDINGS])
    parts = [held[:, of == family][..., grade].mean() for family in Family for grade in range(3)]
    bins = [held[(own >= a) & (own < b)].mean() for a, b in pairwise(_EDGES)]
    middle = widths[(own >= 0.1) & (own < 0.5)]
    print(
        f"| {num_members} | {words} | {held.mean():.3f} | {min(parts):.3f} to {max(parts):.3f} | "
        f"{' '.join(f'{each:.3f}' for each in bins)} | {np.median(widths):.3f}, "
        f"{np.median(widths[..., 2]):.3f}, {np.median(middle):.3f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
