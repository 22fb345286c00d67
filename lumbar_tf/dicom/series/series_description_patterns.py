"""Patterns in the free text of headers that classify a series.

The texts are not kept and appear in no message, because they may contain anything, including a patient's
name. The vocabularies were collected from the vendors' sequence names (Siemens, GE, Philips, Canon, Hitachi)
and the usual abbreviations of radiographers in English and German, with the Romance stems of body parts.
"""

import re
from collections.abc import Iterable
from enum import Enum


class Weighting(Enum):
    """Weighting of an image."""

    T1 = "t1"
    T2 = "t2"
    #: Recognized, but not graded: proton density, diffusion, gradient echo, ...
    OTHER = "other"


_SEPARATORS = re.compile(r"[^a-z0-9*+]+")
_LOCALIZER = re.compile(
    r"locali[sz]|scout|survey|calib|topogram|scano|\b(?:locs?|loca|locator|pilot|asset cal|counting|"
    r"3 ?pl(?:ane?s?)?|tri ?planar?|three plane|ref scan|plan scan)\b"
)
_DERIVED = re.compile(
    r"subtract|reformat|screen ?(?:save|shot)|secondary capture|key ?image|fat ?fraction|\b(?:mpr|mip|minip|"
    r"[a-z]?adc\w*|trace ?w?|sub|compos\w*|fused|fusion|\w*maps?|metabol\w*)\b"
)
_OTHER_WEIGHTING = re.compile(
    # Proton density; diffusion and other echo-planar; T2* and gradient echoes; steady-state free
    # precession; myelography and other fluid-only; vessels, time series and the rest.
    r"\b(?:pdw?|pd ?w? ?(?:fs|spair|spir|tse|fse)|dp|proton)\b|"
    r"\b(?:dwi?bs|dwi\w*|dti\w*|diff\w*|ep2d\w*|epi|ivim|b ?\d{3,4})\b|"
    r"t2w? ?\*|t2w? ?star|\b(?:t2s|gre|grass|spgr|flash|fl[23]d\w*|vibe|lava|thrive|swi|medic|merge|"
    r"m ?ffe|t?ffe|t1 ?ffe|t2 ?ffe|tfe|mprage|bravo|gradient)\b|"
    r"\b(?:ciss|fiesta|trufi\w*|b ?ffe|bssfp|ssfp|dess|cosmic|balanced)\b|"
    r"myelo|\b(?:tof|mra|angio\w*|twist|perf\w*|dce|dyn\w*|bold|svs|spectro\w*|cine|flow(?! ?comp)|"
    r"neurogra\w*|tractogra\w*)\b"
)
#: Adjacent letters are allowed: `SAGT1`, `sT1W`, `t2tse`. A following digit is not: T12 is a vertebra.
_T1 = re.compile(r"(?:\b|sag|ax|tra|cor|tse|fse|3d)s?t1(?!\d)")
_T2 = re.compile(r"(?:\b|sag|ax|tra|cor|tse|fse|3d)s?t2(?!\d)")
_PROTON_DENSITY = re.compile(r"\b(?:pdw?|dp|proton)\b")
_DUAL_ECHO = re.compile(r"\b(?:dual|double|multi) ?echo|\bde ?(?:tse|fse)\b|\b(?:tse|fse) ?(?:dual|double)\b")
_STIR = re.compile(r"\bs?(?:stir|tirm)\b")
_FLUID_SUPPRESSED = re.compile(r"flair|dark ?fluid")
_FAT_SUPPRESSED = re.compile(
    r"fat ?s(?:at|up)|(?:\b|t[12]w?|tse|fse)s?fs\b|\b(?:spair|spir|s?stir|tirm|m?dixon|ideal|water)\b"
)
_CONTRAST = re.compile(r"\b(?:gad\w*|gd|post(?! ?op)|km|ce|contrast|kontrast\w*|contraste)\b|\+ ?c\b|\bc ?\+")
_NO_CONTRAST = re.compile(r"\b(?:w ?o|without|non?|ohne|pre|sans|sin|nati[fv]\w*)\b")

_LUMBAR = re.compile(
    r"lumb|lomb|lendenw|\b(?:lws|lss?|l[1-5]|(?:th?)?l ?s? ?sp(?:ine?)?|l[1-5] ?(?:l[2-5]|s1))\b"
)
_OTHER_SPINE = re.compile(r"cerv|zervi|halsw|thora[ck]|brustw|dorsal|\b(?:[ct] ?sp(?:ine?)?|hws|bws|neck)\b")
#: Organs and joints that have examinations of their own.
_ORGAN = re.compile(
    r"brain|cerebr|cran|schadel|pituit|orbit|shoulder|schulter|breast|mamma|prostat|cardia|sacroil|iliosac|"
    r"\b(?:knees?|knie|ankles?|wrists?|elbows?|liver|heart|si ?joints?|sij|iac|tibia|kidneys?|rectum|"
    r"uterus)\b"
)
#: Parts near the lumbar spine, or of the patient's position: lumbar examinations mention them too.
_NEAR = re.compile(
    r"pelvi|becken|abdom|kopf|\b(?:head|hips?|foot|feet|hands?|sacrum|coccyx|femur|thighs?|legs?)\b"
)
#: How the patient lies: no part of the body.
_POSITIONING = re.compile(r"\b(?:head|feet|foot|legs?) ?(?:first|up|down)\b|\bpelvic ?tilt\w*")


def normalize_text(text: str) -> str:
    """Returns a text in lower case with single spaces between words; `*` and `+` are kept.

    >>> normalize_text("t2_TSE-sag, 512 T2* +C")
    't2 tse sag 512 t2* +c'
    """
    return _SEPARATORS.sub(" ", text.lower().replace("ä", "a")).strip()


def mentions_localizer(text: str) -> bool:
    """Returns whether a text mentions a localiser, scout or calibration."""
    return _LOCALIZER.search(normalize_text(text)) is not None


def mentions_derived(text: str) -> bool:
    """Returns whether a text mentions a reformat, map, subtraction or screen shot."""
    return _DERIVED.search(normalize_text(text)) is not None


def mentions_fat_suppression(text: str) -> bool:
    """Returns whether a text mentions any fat suppression, including STIR."""
    return _FAT_SUPPRESSED.search(normalize_text(text)) is not None


def mentions_contrast(text: str) -> bool:
    """Returns whether a text mentions a given contrast agent: `post`, `+C`, `Gd`, and not `without`."""
    words = normalize_text(text)
    return _CONTRAST.search(words) is not None and _NO_CONTRAST.search(words) is None


def mentions_lumbar(text: str) -> bool | None:
    """Returns whether a text mentions the lumbar spine (True) or only other parts of the body (False).

    None if it mentions no part of the body. The patient's position (`HEAD FIRST`, `PELVIC TILT`) is none.

    >>> [mentions_lumbar(text) for text in ("L-SPINE", "CSPINE", "cervical and lumbar", "SPINE")]
    [True, False, True, None]
    """
    words = _POSITIONING.sub(" ", normalize_text(text))
    if _LUMBAR.search(words):
        return True
    return False if mentions_other_part(text) else None


def mentions_other_part(text: str) -> bool:
    """Returns whether a text mentions another part of the body, besides the lumbar spine or without it."""
    words = _POSITIONING.sub(" ", normalize_text(text))
    return any(pattern.search(words) for pattern in (_OTHER_SPINE, _ORGAN, _NEAR))


def mentions_other_spine(text: str) -> bool:
    """Returns whether a text mentions the cervical or thoracic spine and not the lumbar spine."""
    return mentions_lumbar(text) is False and _OTHER_SPINE.search(normalize_text(text)) is not None


def mentions_organ(text: str) -> bool:
    """Returns whether a text mentions an organ or joint, and not the lumbar spine.

    Hips, pelvis, abdomen and head do not count: lumbar examinations mention them too.
    """
    return mentions_lumbar(text) is False and _ORGAN.search(normalize_text(text)) is not None


def mentions_fluid_suppression(text: str) -> bool:
    """Returns whether a text mentions FLAIR or dark fluid."""
    return _FLUID_SUPPRESSED.search(normalize_text(text)) is not None


def is_lumbar_study(texts: Iterable[str]) -> bool:
    """Returns whether any text of a study mentions the lumbar spine.

    The watcher grades the studies for which this is true, and the reader never leaves out all series of such
    a study because of the part of the body.

    Args:
        texts: StudyDescription, and BodyPartExamined, ProtocolName and SeriesDescription of all series.
    """
    return any(mentions_lumbar(text) for text in texts)


def mentions_several_echoes(text: str) -> bool:
    """Returns whether a text describes proton density and T2 together, as the names of dual echoes do.

    >>> [mentions_several_echoes(text) for text in ("pd+t2_tse_tra", "PDW/T2W TSE", "t2_tse", "T2 DUAL ECHO")]
    [True, True, False, True]
    """
    words = normalize_text(text)
    return _DUAL_ECHO.search(words) is not None or (
        _PROTON_DENSITY.search(words) is not None and _T2.search(words.replace("+", " ")) is not None
    )


def mentions_short_inversion(text: str) -> bool:
    """Returns whether a text mentions STIR or TIRM."""
    return _STIR.search(normalize_text(text)) is not None


def mentioned_weighting(text: str) -> Weighting | None:
    """Returns the weighting that a text mentions, None if it mentions none or both T1 and T2.

    >>> [mentioned_weighting(text).value for text in ("t1_tirm_sag_dark-fluid", "SAG STIR", "AX T2*")]
    ['t1', 't2', 'other']
    """
    words = normalize_text(text)
    if _OTHER_WEIGHTING.search(words):
        return Weighting.OTHER
    is_t1, is_t2 = _T1.search(words) is not None, _T2.search(words) is not None
    if is_t1 != is_t2:
        # T1 FLAIR is an ordinary T1; T2 FLAIR has dark fluid, and the models are not trained on it.
        is_dark = is_t2 and _FLUID_SUPPRESSED.search(words) is not None
        return Weighting.OTHER if is_dark else Weighting.T1 if is_t1 else Weighting.T2
    if not is_t1 and _STIR.search(words) and not _FLUID_SUPPRESSED.search(words):
        return Weighting.T2
    return None
