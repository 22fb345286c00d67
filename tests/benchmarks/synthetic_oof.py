"""Out-of-fold tables that imitate real ones, with known truth: no image, no network.

A study's 25 latent severities are one Gaussian draw, correlated between levels, sides and conditions as the
public labels are; thresholds give each finding its real share of the three grades. What a network could at
best see is a noisy look at the latent value, in part shared by all networks. A member answers with the
posterior of its own look (or, if it sees whole studies, of its 25 looks) and is then put out of calibration.
"""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from lumbar_tf.labels import FINDINGS, MISSING_LABEL, NUM_FINDINGS, Condition, Family, Level, Severity
from lumbar_tf.synthetic.severity import LABEL_COUNTS
from lumbar_tf.tables.folds import write_folds
from lumbar_tf.tables.out_of_fold import Members, write_out_of_fold_table

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NUM_STUDIES = 1975
NUM_FOLDS = 5
#: Loadings of the latent severity, found by hand so that the labels' Spearman correlations come near the
#: public ones: left and right foramen at L4/L5 .36, left and right subarticular .56, canal with subarticular
#: .58, canal L3/L4 with L4/L5 .40.
_PATIENT = {Family.CANAL: 0.66, Family.FORAMINAL: 0.47, Family.SUBARTICULAR: 0.52}
_LEVEL = {Family.CANAL: 0.66, Family.FORAMINAL: 0.20, Family.SUBARTICULAR: 0.62}
_LEVEL_FAMILY = {Family.CANAL: 0.0, Family.FORAMINAL: 0.52, Family.SUBARTICULAR: 0.15}


#: Of the part of the members' noise that they share: what no ensemble can average out.
SHARED_SD = 0.6


@dataclass(frozen=True)
class Cohort:
    """Studies with labels, and what members may see of them.

    Attributes:
        latent: float64 [num_studies, 25], each finding standard normal.
        covariance: of the latent values within a study, [25, 25].
        cuts: thresholds between the three grades, [25, 2].
        labels: int64 [num_studies, 25], -1 where missing.
        folds: int64 [num_studies].
    """

    latent: Floats
    covariance: Floats
    cuts: Floats
    labels: Ints
    folds: Ints


@dataclass(frozen=True)
class MemberRecipe:
    """How one synthetic member sees and speaks.

    Attributes:
        name: of the member.
        noise: standard deviation of its own look, beside the shared one.
        sees_study: whether it answers from all 25 looks.
        sharpness: its logits are multiplied by this: over-confident above 1.
        tilt: the part of ln 1, 2, 4 in its logits: 1 for a network trained with the competition's weights.
        fold_spread: standard deviation of what each fold's network adds to the logits of a class.
        families: what it covers.
        missing: share of studies that it has no row of.
    """

    name: str
    noise: float
    sees_study: bool = False
    sharpness: float = 1.0
    tilt: float = 1.0
    fold_spread: float = 0.1
    families: tuple[Family, ...] = tuple(Family)
    missing: float = 0.0


def _covariance() -> Floats:
    """Returns the latent correlation of the 25 findings, [25, 25]."""
    covariance = np.eye(NUM_FINDINGS)
    for i, one in enumerate(FINDINGS):
        for j, other in enumerate(FINDINGS):
            if i == j:
                continue
            a, b = one.condition.family, other.condition.family
            value = _PATIENT[a] * _PATIENT[b]
            distance = abs(list(Level).index(one.level) - list(Level).index(other.level))
            value += _LEVEL[a] * _LEVEL[b] * (distance == 0) + 0.1 * (distance == 1)
            if a is b and distance == 0:
                value += _LEVEL_FAMILY[a] ** 2
            covariance[i, j] = value
    # The nearest matrix that is a covariance: no eigenvalue below 0.02, a diagonal of 1.
    values, vectors = np.linalg.eigh(covariance)
    mended = (vectors * np.maximum(values, 0.02)) @ vectors.T
    scale = np.sqrt(np.diag(mended))
    result: Floats = mended / scale[:, None] / scale
    return result


def make_cohort(seed: int, num_studies: int = NUM_STUDIES) -> Cohort:
    """Draws a cohort with the public label table's frequencies and missing labels."""
    generator = np.random.default_rng([seed, 1])
    covariance = _covariance()
    latent = generator.multivariate_normal(np.zeros(NUM_FINDINGS), covariance, num_studies, method="cholesky")
    counts = np.array([LABEL_COUNTS[condition] for condition in Condition]).reshape(NUM_FINDINGS, 4)
    shares = counts[:, :3] / counts[:, :3].sum(axis=1, keepdims=True)
    cuts = ndtri(shares.cumsum(axis=1)[:, :2])
    labels = (latent[..., None] > cuts).sum(axis=-1)
    is_missing = generator.random(labels.shape) < counts[:, 3] / counts.sum(axis=1)
    labels = np.where(is_missing, MISSING_LABEL, labels)
    folds = generator.permutation(np.arange(num_studies) % NUM_FOLDS)
    return Cohort(latent, covariance, cuts, labels, folds)


def _posterior(cohort: Cohort, looks: Floats, variance: float, *, sees_study: bool) -> Floats:
    """Returns p(grade | look) of looks = latent + noise of `variance`, [num_studies, 25, 3]."""
    if sees_study:
        gain = np.linalg.solve(cohort.covariance + variance * np.eye(NUM_FINDINGS), cohort.covariance).T
        mean = looks @ gain.T
        spread = np.sqrt(np.diag(cohort.covariance - gain @ cohort.covariance))
    else:
        mean, spread = looks / (1 + variance), np.full(NUM_FINDINGS, np.sqrt(variance / (1 + variance)))
    below = ndtr((cohort.cuts - mean[..., None]) / spread[:, None])
    edges = np.concatenate([np.zeros_like(below[..., :1]), below, np.ones_like(below[..., :1])], axis=-1)
    return np.diff(edges, axis=-1)


def make_member(
    cohort: Cohort,
    recipe: MemberRecipe,
    shared: Floats,
    seed: tuple[int, int],
    *,
    shared_sd: float = SHARED_SD,
) -> Floats:
    """Returns a member's out-of-fold probabilities, float64 [num_studies, 25, 3], NaN where it has none.

    Args:
        cohort: the studies.
        recipe: of the member.
        shared: noise that all members' looks share, [num_studies, 25].
        seed: of its own noise.
        shared_sd: standard deviation of `shared`, which the member knows.
    """
    generator = np.random.default_rng(seed)
    looks = cohort.latent + shared + recipe.noise * generator.normal(size=cohort.latent.shape)
    variance = shared_sd**2 + recipe.noise**2
    probabilities = _posterior(cohort, looks, variance, sees_study=recipe.sees_study)
    logits = np.log(np.maximum(probabilities, 1e-7)) * recipe.sharpness
    logits += recipe.tilt * np.log([1.0, 2.0, 4.0])
    logits += recipe.fold_spread * generator.normal(size=(NUM_FOLDS, 3))[cohort.folds][:, None, :]
    logits *= np.exp(recipe.fold_spread * generator.normal(size=NUM_FOLDS))[cohort.folds][:, None, None]
    said = np.exp(logits - logits.max(axis=-1, keepdims=True))
    said /= said.sum(axis=-1, keepdims=True)
    is_covered = np.array([finding.condition.family in recipe.families for finding in FINDINGS])
    said[:, ~is_covered] = np.nan
    said[generator.random(len(said)) < recipe.missing] = np.nan
    return said


class Scenario(Enum):
    """What the members of an ensemble are like."""

    #: Of nearly one skill, all see whole studies, all trained with the competition's weights: the plain mean
    #: leaves a stacker little.
    ALIKE = "alike"
    #: Of different skill and calibration; most see one finding at a time.
    CALIBRATION = "calibration"
    #: The same, and some cover only some conditions, or miss studies.
    PARTIAL = "partial"


#: Part of the competition's weights that a member was trained with, drawn for members that differ.
_TILTS = (0.0, 0.5, 1.0, 1.0, 1.3)
_PARTIAL_COVER = ((Family.FORAMINAL,), (Family.CANAL, Family.SUBARTICULAR))


def draw_recipes(seed: int, num_members: int, scenario: Scenario) -> tuple[MemberRecipe, ...]:
    """Draws members; the first two cover everything, and the first misses no study."""
    generator = np.random.default_rng([seed, 3])
    recipes = []
    for index in range(num_members):
        name = f"network_{index}"
        if scenario is Scenario.ALIKE:
            recipes.append(MemberRecipe(name, float(generator.uniform(0.25, 0.35)), sees_study=True))
            continue
        noise, sees_study = float(generator.uniform(0.2, 0.45)), bool(generator.random() < 0.2)
        tilt, sharpness = float(generator.choice(_TILTS)), float(np.exp(generator.normal(0.15, 0.3)))
        is_partial, cover = generator.random() < 0.4, _PARTIAL_COVER[generator.integers(2)]
        missing = float(generator.choice([0.0, 0.01, 0.03]))
        families: tuple[Family, ...] = tuple(Family)
        if scenario is Scenario.PARTIAL and index >= 2 and is_partial:
            families = cover
        missing = missing if scenario is Scenario.PARTIAL and index else 0.0
        recipes.append(MemberRecipe(name, noise, sees_study, sharpness, tilt, 0.1, families, missing))
    return tuple(recipes)


def make_tables(
    seed: int, num_members: int, scenario: Scenario, num_studies: int = NUM_STUDIES
) -> tuple[Cohort, Members]:
    """Returns a cohort and its members' out-of-fold tables, the same for the same seed."""
    cohort = make_cohort(seed, num_studies)
    shared = SHARED_SD * np.random.default_rng([seed, 2]).normal(size=cohort.latent.shape)
    recipes = draw_recipes(seed, num_members, scenario)
    tables = [
        make_member(cohort, recipe, shared, seed=(seed, 10 + index)) for index, recipe in enumerate(recipes)
    ]
    names = tuple(recipe.name for recipe in recipes)
    return cohort, Members(names, names, np.stack(tables))


def write_cohort(folder: Path, cohort: Cohort, members: Members) -> None:
    """Writes train.csv, folds.csv and a foreign table a member, oof/network_0.csv and so on."""
    study_ids = [f"{10_000_000 + index}" for index in range(len(cohort.labels))]
    (folder / "oof").mkdir(parents=True, exist_ok=True)
    for name, table in zip(members.names, members.probabilities, strict=True):
        write_out_of_fold_table(folder / "oof" / f"{name}.csv", study_ids, table)
    lines = [",".join(["study_id", *(finding.name for finding in FINDINGS)])]
    for study, row in zip(study_ids, cohort.labels, strict=True):
        words = ("" if value == MISSING_LABEL else Severity(value).title for value in row)
        lines.append(",".join([study, *words]))
    (folder / "train.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_folds(folder / "folds.csv", dict(zip(study_ids, cohort.folds.tolist(), strict=True)))


#: Pairs of findings whose Spearman correlation is published, with its value: see `_PATIENT`.
PUBLISHED_CORRELATIONS: tuple[tuple[Condition, Level, Condition, Level, float], ...] = (
    (
        Condition.LEFT_NEURAL_FORAMINAL_NARROWING,
        Level.L4_L5,
        Condition.RIGHT_NEURAL_FORAMINAL_NARROWING,
        Level.L4_L5,
        0.36,
    ),
    (
        Condition.LEFT_SUBARTICULAR_STENOSIS,
        Level.L4_L5,
        Condition.RIGHT_SUBARTICULAR_STENOSIS,
        Level.L4_L5,
        0.56,
    ),
    (
        Condition.SPINAL_CANAL_STENOSIS,
        Level.L4_L5,
        Condition.LEFT_SUBARTICULAR_STENOSIS,
        Level.L4_L5,
        0.58,
    ),
    (Condition.SPINAL_CANAL_STENOSIS, Level.L3_L4, Condition.SPINAL_CANAL_STENOSIS, Level.L4_L5, 0.40),
)
