"""Tells a series' plane from its headers, where no table does.

This covers what a lumbar protocol names plainly; anything in doubt is left out, not guessed.
"""

import re
from dataclasses import dataclass

import numpy as np

from lumbar_tf.imaging.geometry import SliceGeometry
from lumbar_tf.labels import Plane

#: Spin-echo lumbar protocols: T1 echoes lie near 10 ms, T2 near 100 ms (STIR 40 ms and more). Between
#: the two bounds lies proton density, which no grader here was made for.
_LONGEST_T1_ECHO_MS = 30.0
_SHORTEST_T2_ECHO_MS = 60.0

_NOT_DIAGNOSTIC = re.compile(r"loc(ali[sz]er)?|scout|survey|3.?pl|calib|myelo", re.IGNORECASE)
_T1 = re.compile(r"T1", re.IGNORECASE)
_T2 = re.compile(r"T2|STIR|TIRM", re.IGNORECASE)


@dataclass(frozen=True)
class SeriesHeader:
    """What a slice's header says of its series.

    Attributes:
        description: SeriesDescription, "" where absent.
        echo_time_ms: EchoTime, None where absent.
    """

    description: str
    echo_time_ms: float | None


def is_sagittal(geometry: SliceGeometry) -> bool | None:
    """Whether a slice is nearer sagittal (True) than axial (False); None when it is coronal.

    >>> is_sagittal(SliceGeometry((0, 0, 0), (0, 1, 0), (0, 0, -1), 1.0, 1.0, 4, 4))
    True
    """
    return (True, None, False)[int(np.argmax(np.abs(geometry.normal)))]


def tell_plane(geometry: SliceGeometry, header: SeriesHeader) -> Plane | None:
    """Returns the plane that geometry and header agree on, or None.

    >>> axial = SliceGeometry((0, 0, 0), (1, 0, 0), (0, 1, 0), 1.0, 1.0, 4, 4)
    >>> tell_plane(axial, SeriesHeader("Ax T2 TSE", None))
    <Plane.AXIAL_T2: 'axial_t2'>
    """
    sagittal = is_sagittal(geometry)
    is_t2 = _is_t2(header)
    if sagittal is None or is_t2 is None or _NOT_DIAGNOSTIC.search(header.description):
        return None
    if sagittal:
        return Plane.SAGITTAL_T2 if is_t2 else Plane.SAGITTAL_T1
    return Plane.AXIAL_T2 if is_t2 else None


def _is_t2(header: SeriesHeader) -> bool | None:
    named_t1, named_t2 = _T1.search(header.description), _T2.search(header.description)
    if bool(named_t1) != bool(named_t2):
        return bool(named_t2)
    if header.echo_time_ms is None:
        return None
    if header.echo_time_ms >= _SHORTEST_T2_ECHO_MS:
        return True
    return False if header.echo_time_ms <= _LONGEST_T1_ECHO_MS else None
