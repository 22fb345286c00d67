"""Weighting of a series: what its physics exclude, then its description, then its timing."""

import re

from lumbar_tf.dicom.series.header import SeriesHeader
from lumbar_tf.dicom.series.image_kinds import DixonPart, is_diffusion_weighted
from lumbar_tf.dicom.series.series_description_patterns import (
    Weighting,
    mentioned_weighting,
    mentions_fat_suppression,
    mentions_fluid_suppression,
    mentions_several_echoes,
    mentions_short_inversion,
)

# Bounds in ms between the ranges of Westbrook and Talbot, MRI in Practice, 5th edition, "Summary of
# parameters" (1.5 T and 3 T): spin echo has TE up to 30 and TR up to 800 for T1, TE from 70 for T2; fast
# spin echo TE up to 20 and TR up to 600 for T1 (900 in the 4th edition), TE from 90 for T2.
_LONGEST_T1_ECHO = 30.0
_LONGEST_T1_REPETITION = 1200.0
_SHORTEST_T2_ECHO = 60.0
# 3D fast spin echoes with driven equilibrium (SPACE, CUBE, VISTA) are T2 from TR 1000 on.
_SHORTEST_T2_REPETITION = 900.0
# Proton density: the echo time of T1 with the repetition time of T2 (from 2000).
_LONGEST_DENSITY_ECHO = 45.0
_SHORTEST_DENSITY_REPETITION = 1800.0
# The first echo of a dual echo is this short; T2 with fat suppression goes down to 40.
_LONGEST_FIRST_ECHO = 35.0
# An inversion pulse nulls tissue at TI = T1 (ln 2 - ln(1 + exp(-TR / T1))). Fat, T1 = 250 to 380 from 0.5 to
# 3 T: 170 to 260; scanners offer 100 to 230. Fluid, T1 = 4000: 680 to 1380 for the TR of 1500 to 3500 of T1
# FLAIR, 1970 and more for the TR of 6000 and more of T2 FLAIR.
_FAT_INVERSION = (80.0, 300.0)
_T1_FLAIR_INVERSION = (400.0, 1450.0)
_LONGEST_T1_FLAIR_ECHO = 50.0
_SHORTEST_T2_FLAIR_INVERSION = 1500.0

# Spin echoes have a refocusing pulse, which takes time; gradient echoes reach TE 1 and TR 2. Spin echo T1
# starts at TE 8 and TR 300, and fast T1 at 3 T goes a little below.
_SHORTEST_SPIN_ECHO = 5.0
_SHORTEST_SPIN_ECHO_REPETITION = 200.0
# The excitation of a spin echo is 90 degrees, refocusing 35 and more; 3D T1 gradient echoes have 5 to 20, T2*
# gradient echoes 20 to 40.
_LARGEST_GRADIENT_FLIP_DEGREES = 30.0
_SMALLEST_SPIN_FLIP_DEGREES = 45.0
# T2 ends at about 200; myelography has 500 to 1200 and shows fluid only.
_LONGEST_T2_ECHO = 350.0
# T2 FLAIR without InversionTime: an inversion pulse and a repetition time that only fluid's long TI needs.
_SHORTEST_FLAIR_REPETITION = 5500.0

_CONTRASTS = {
    "T1": Weighting.T1,
    "T2": Weighting.T2,
    "STIR": Weighting.T2,
    "PROTON_DENSITY": Weighting.OTHER,
}
#: AcquisitionContrast, or value 3 of ImageType or FrameType, of sequences other than the spin echoes that are
#: graded (DICOM PS3.3 C.8.13.1.1.1 and C.8.13.3.1).
_OTHER_CONTRASTS = frozenset(
    ("ANGIO", "DIFFUSION", "FLOW_ENCODED", "FLUOROSCOPY", "PERFUSION", "PHASE_CONTRAST", "SPECTROSCOPY")
    + ("TAGGING", "T2_STAR", "TIME_OF_FLIGHT", "TOF", "VELOCITY")
)
#: Names of Siemens' sequences (SequenceName, `*fl2d1`, `ep_b800`, `tfl3d1`) and of GE's: echo-planar,
#: gradient echo and steady-state free precession.
_OTHER_SEQUENCES = re.compile(
    r"\*?(?:\w+_b\d|ep[_f2si]|fl[23]d|tf[il]|fid|me[23]d|gre|swi|qfl|ci3d|de3d|psi)|"
    r"(?:.*[^a-z])?(?:epi2?|e?fgre(?:3d)?|f?spgr|mpgr|ssfp|fiesta|cosmic|lava|merge)(?![a-z])"
)


def classify_weighting(header: SeriesHeader) -> tuple[Weighting | None, bool]:
    """Classifies the weighting of a series.

    Sequences other than spin echoes are OTHER regardless of their description, by the attributes of PS3.3
    C.8.3 and C.8.13: gradient echo ("T2" means T2* there), echo-planar, diffusion, T2 FLAIR, myelography.
    Nor does the description decide about an echo that is too short for T2: the first echo of a dual echo.

    Args:
        header: series attributes.

    Returns:
        The weighting, None if it cannot be determined; and whether description and timing contradict each
        other, in which case the description is used.
    """
    if _is_other_sequence(header):
        return Weighting.OTHER, False
    mentioned = _mentioned_weighting(header)
    by_timing = classify_timing(header)
    if mentioned is None or (mentioned is Weighting.T2 and _is_first_echo(header)):
        return by_timing, False
    return mentioned, mentioned is not Weighting.OTHER and by_timing not in (None, mentioned)


def _mentioned_weighting(header: SeriesHeader) -> Weighting | None:
    """Returns the weighting by the texts; None if they describe several echoes, of which this is one."""
    if mentions_several_echoes(header.description):
        return None
    return mentioned_weighting(header.description) or mentioned_weighting(header.protocol)


def _is_first_echo(header: SeriesHeader) -> bool:
    """Returns whether an echo is too short for T2 without the timing of T1 or an inversion pulse."""
    is_inverted = "IR" in header.scanning_sequence or mentions_short_inversion(header.description)
    return (
        header.echo_time_ms is not None
        and header.echo_time_ms <= _LONGEST_FIRST_ECHO
        and not is_inverted
        and classify_timing(header) is not Weighting.T1
    )


def classify_timing(header: SeriesHeader) -> Weighting | None:
    """Returns the weighting of a spin echo by its timing, None outside the usual ranges.

    >>> classify_timing(SeriesHeader(echo_time_ms=11.0, repetition_time_ms=550.0))
    <Weighting.T1: 't1'>
    >>> classify_timing(SeriesHeader(echo_time_ms=105.0, repetition_time_ms=3600.0))
    <Weighting.T2: 't2'>
    """
    echo, repetition = header.echo_time_ms, header.repetition_time_ms
    contrast = _CONTRASTS.get(header.acquisition_contrast)
    if echo is None:
        return contrast
    if header.inversion_time_ms is not None:
        return _classify_inverted(header.inversion_time_ms, echo) or contrast
    if echo >= _SHORTEST_T2_ECHO and (repetition is None or repetition >= _SHORTEST_T2_REPETITION):
        return Weighting.T2
    if repetition is None:
        return contrast
    if echo <= _LONGEST_T1_ECHO and repetition <= _LONGEST_T1_REPETITION:
        return Weighting.T1
    if echo <= _LONGEST_DENSITY_ECHO and repetition >= _SHORTEST_DENSITY_REPETITION:
        return Weighting.OTHER
    return contrast


def is_fat_suppressed(header: SeriesHeader) -> bool:
    """Returns whether options, texts or an inversion time that nulls fat indicate fat suppression.

    The in-phase image of a Dixon family shows fat, although its description mentions the method.
    """
    inversion = header.inversion_time_ms
    if header.dixon_part is DixonPart.IN_PHASE:
        return False
    return (
        header.is_fat_suppressed
        or header.dixon_part is DixonPart.WATER
        or mentions_fat_suppression(header.description)
        or header.acquisition_contrast == "STIR"
        or (inversion is not None and _FAT_INVERSION[0] <= inversion <= _FAT_INVERSION[1])
    )


def _classify_inverted(inversion: float, echo: float) -> Weighting | None:
    if _FAT_INVERSION[0] <= inversion <= _FAT_INVERSION[1]:
        return Weighting.T2
    if _T1_FLAIR_INVERSION[0] <= inversion <= _T1_FLAIR_INVERSION[1] and echo <= _LONGEST_T1_FLAIR_ECHO:
        return Weighting.T1
    return Weighting.OTHER if inversion >= _SHORTEST_T2_FLAIR_INVERSION else None


def _is_other_sequence(header: SeriesHeader) -> bool:
    """Returns whether the physics exclude a T1, T2 or proton density spin echo."""
    sequence = set(header.scanning_sequence)
    contrasts = {header.acquisition_contrast, *header.image_type[2:3]}
    return (
        ("GR" in sequence and "SE" not in sequence)
        or "EP" in sequence
        or bool(contrasts & _OTHER_CONTRASTS)
        or is_diffusion_weighted(header.b_value)
        or _OTHER_SEQUENCES.match(header.sequence_name) is not None
        or _has_gradient_echo_timing(header)
        or _is_fluid_attenuated(header)
        or (header.echo_time_ms is not None and header.echo_time_ms > _LONGEST_T2_ECHO)
    )


def _has_gradient_echo_timing(header: SeriesHeader) -> bool:
    """Returns whether echo time, repetition time or flip angle are impossible for a spin echo."""
    echo, repetition, flip = header.echo_time_ms, header.repetition_time_ms, header.flip_angle_degrees
    if echo is not None and echo < _SHORTEST_SPIN_ECHO:
        return True
    if repetition is not None and repetition < _SHORTEST_SPIN_ECHO_REPETITION:
        return True
    is_spin_echo = "SE" in header.scanning_sequence
    limit = _LARGEST_GRADIENT_FLIP_DEGREES if is_spin_echo else _SMALLEST_SPIN_FLIP_DEGREES
    return flip is not None and flip <= limit


def _is_fluid_attenuated(header: SeriesHeader) -> bool:
    """Returns whether the images are T2 FLAIR; T1 FLAIR, with a short echo, is an ordinary T1."""
    echo, inversion = header.echo_time_ms, header.inversion_time_ms
    if inversion is not None:
        return inversion >= _SHORTEST_T2_FLAIR_INVERSION
    if echo is None or echo <= _LONGEST_T1_FLAIR_ECHO:
        return False
    is_named = header.acquisition_contrast == "FLUID_ATTENUATED" or any(
        mentions_fluid_suppression(text) for text in (header.description, header.protocol)
    )
    is_inverted = "IR" in header.scanning_sequence and not (
        header.is_fat_suppressed or mentions_fat_suppression(header.description)
    )
    repetition = header.repetition_time_ms or 0.0
    return is_named or (is_inverted and repetition >= _SHORTEST_FLAIR_REPETITION)
