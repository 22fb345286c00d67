"""Signal of tissues from their relaxation times and the pulse sequence."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lumbar_tf.config.variety import ContrastVariety
from lumbar_tf.synthetic.patch import SyntheticContrast, Tissue


@dataclass(frozen=True)
class Relaxation:
    """Relaxation of a tissue.

    Attributes:
        t1_ms: T1 at 1.5 T and 3 T, ms.
        t2_ms: T2 at 1.5 T and 3 T, ms; of fat the apparent T2 in a train of refocusing pulses, which is
            longer (Henkelman et al. 1992, "Why fat is bright in RARE and fast spin-echo imaging").
        density: proton density relative to water.
        fat: share of the signal that is fat's and that fat suppression removes.
    """

    t1_ms: tuple[float, float]
    t2_ms: tuple[float, float]
    density: float
    fat: float = 0.0


# Fat, marrow and muscle: de Bazelaire et al. 2004, Radiology 230:652. Cord, nerve, cartilage: Stanisz et al.
# 2005, MRM 54:507. CSF: Rooney et al. 2007, MRM 57:308. Discs: Pfirrmann grades I and V, Marinelli et al.
# 2009, Spine 34:520. Marrow is a mixture of about equal parts of fat and water. Cortical bone and ligaments
# have almost no signal. Blood flows out of the slice.
RELAXATION: Mapping[Tissue, Relaxation] = {
    Tissue.FAT: Relaxation((343, 382), (120, 130), 0.90, 0.95),
    Tissue.MARROW: Relaxation((549, 586), (75, 75), 0.80, 0.5),
    Tissue.CORTEX: Relaxation((800, 900), (25, 25), 0.12),
    Tissue.MUSCLE: Relaxation((856, 898), (40, 38), 0.80),
    Tissue.CSF: Relaxation((4000, 4160), (1800, 1500), 1.00),
    Tissue.CORD: Relaxation((745, 993), (76, 78), 0.80),
    Tissue.ROOT: Relaxation((815, 1083), (77, 78), 0.75),
    Tissue.ANNULUS: Relaxation((900, 1000), (42, 40), 0.55),
    Tissue.NUCLEUS: Relaxation((1200, 1350), (190, 170), 0.90),
    Tissue.DRY_NUCLEUS: Relaxation((900, 1000), (48, 45), 0.65),
    Tissue.FLAVUM: Relaxation((850, 900), (42, 40), 0.60),
    Tissue.LIGAMENT: Relaxation((800, 900), (25, 25), 0.15),
    Tissue.JOINT: Relaxation((1024, 1168), (110, 100), 0.80),
    Tissue.BLOOD: Relaxation((1441, 1932), (250, 250), 0.06),
    Tissue.BOWEL: Relaxation((800, 900), (85, 80), 0.80),
}


@dataclass(frozen=True)
class PulseSequence:
    """Timing of a spin echo, fast or not.

    Attributes:
        tr_ms: repetition time.
        te_ms: effective echo time.
        ti_ms: inversion time; None without inversion.
        fat_left: share of fat's signal that spectral fat suppression leaves.
    """

    tr_ms: float
    te_ms: float
    ti_ms: float | None = None
    fat_left: float = 1.0


def spin_echo_signal(relaxation: Relaxation, sequence: PulseSequence, *, tesla_3: bool) -> float:
    """Returns the signal magnitude of a tissue relative to fully relaxed water.

    S = density * |1 - 2 exp(-TI/T1) + exp(-TR/T1)| * exp(-TE/T2), without inversion (1 - exp(-TR/T1)).

    >>> water = Relaxation((4000, 4160), (1800, 1500), 1.0)
    >>> round(spin_echo_signal(water, PulseSequence(tr_ms=4000, te_ms=0), tesla_3=False), 4)
    0.6321
    """
    t1_ms, t2_ms = relaxation.t1_ms[tesla_3], relaxation.t2_ms[tesla_3]
    recovered = 1 - np.exp(-sequence.tr_ms / t1_ms)
    if sequence.ti_ms is not None:
        recovered = abs(1 - 2 * np.exp(-sequence.ti_ms / t1_ms) + np.exp(-sequence.tr_ms / t1_ms))
    left = 1 - relaxation.fat * (1 - sequence.fat_left)
    return float(relaxation.density * recovered * np.exp(-sequence.te_ms / t2_ms) * left)


def draw_sequence(
    weighting: SyntheticContrast, variety: ContrastVariety, *, tesla_3: bool, rng: np.random.Generator
) -> PulseSequence:
    """Draws the timing of a series: typical ranges of lumbar protocols."""
    is_suppressed = rng.random() < variety.fat_suppressed_rate
    is_stir = rng.random() < 0.5
    if weighting is SyntheticContrast.T1:
        fat_left = float(rng.uniform(0.1, 0.5)) if is_suppressed and rng.random() < 0.2 else 1.0
        return PulseSequence(float(rng.uniform(400, 850)), float(rng.uniform(7, 18)), fat_left=fat_left)
    tr_ms, te_ms = float(rng.uniform(2200, 6000)), float(rng.uniform(70, 135))
    if not is_suppressed:
        return PulseSequence(tr_ms, te_ms)
    if is_stir:
        null_ms = np.log(2) * RELAXATION[Tissue.FAT].t1_ms[tesla_3]
        return PulseSequence(tr_ms, float(rng.uniform(40, 90)), ti_ms=float(null_ms * rng.uniform(0.65, 1.0)))
    return PulseSequence(tr_ms, te_ms, fat_left=float(rng.uniform(0.05, 0.4)))


def draw_signals(
    weighting: SyntheticContrast, variety: ContrastVariety, *, tesla_3: bool, rng: np.random.Generator
) -> Mapping[Tissue, float]:
    """Draws the signal of each tissue in a series, relative to the strongest."""
    sequence = draw_sequence(weighting, variety, tesla_3=tesla_3, rng=rng)
    sd = variety.free_sd if rng.random() < variety.free_rate else variety.signal_sd
    signals = {
        tissue: spin_echo_signal(relaxation, sequence, tesla_3=tesla_3) * float(np.exp(rng.normal(0, sd)))
        for tissue, relaxation in RELAXATION.items()
    }
    strongest = max(signals.values())
    return {tissue: signal / strongest for tissue, signal in signals.items()}
