"""Contrasts of a series: the images that are one stack, each group with a header of its own.

A series may hold several images of every place: the echoes of a multi-echo sequence, magnitude and phase,
the parts of a Dixon family, b-values, time points. File names, the order of files and InstanceNumber do not
influence the result.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lumbar_tf.dicom.geometry import SliceGeometry
from lumbar_tf.dicom.series.header import SeriesHeader
from lumbar_tf.dicom.series.image_kinds import Component, is_diffusion_weighted
from lumbar_tf.dicom.series.stack import SAME_CENTRE_MM, SAME_PLANE_MM

#: Echo times of one stack may differ by this factor: blocks of an axial series are planned one by one. The
#: echoes of one sequence at one place are separated regardless.
_SAME_ECHO_FACTOR = 1.25
#: Mapping sequences have up to 32 echoes. Further images of a place are treated as repetitions.
_MAX_PARTS = 64

#: Attributes that may name the contrasts of a series: the text of a header, "" for the usual value.
_NAMES: tuple[Callable[[SeriesHeader], str], ...] = (
    lambda header: header.component.value,
    lambda header: "" if header.dixon_part is None else header.dixon_part.value,
    lambda header: "" if header.echo_time_ms is None else f"TE {header.echo_time_ms:.4g} ms",
    lambda header: f"b {header.b_value or 0:.4g} s/mm2",
    lambda header: "" if header.inversion_time_ms is None else f"TI {header.inversion_time_ms:.4g} ms",
    lambda header: "" if header.echo_number is None else f"echo {header.echo_number}",
    lambda header: "" if header.repetition_time_ms is None else f"TR {header.repetition_time_ms:.4g} ms",
    lambda header: "fat suppression" if header.is_fat_suppressed else "no fat suppression",
)


@dataclass(frozen=True, eq=False)
class Contrast:
    """Images of one contrast of a series.

    Attributes:
        header: header of most of the images.
        members: indices of the images, in ascending order.
        places: places in the series that the images show, as numbers.
        name: attributes that distinguish the contrast from the others of the series, such as `TE 105 ms`; ""
            for ordinary images of a series with one contrast.
        is_repetition: whether the images are later time points of another contrast.
    """

    header: SeriesHeader
    members: tuple[int, ...]
    places: frozenset[int]
    name: str = ""
    is_repetition: bool = False


@dataclass(eq=False)
class _Part:
    """A contrast that images are added to."""

    header: SeriesHeader
    is_repetition: bool
    members: list[int] = field(default_factory=list)
    places: set[int] = field(default_factory=set)

    def add(self, members: Iterable[int], places: Sequence[int]) -> None:
        self.members.extend(members)
        self.places.update(places[index] for index in members)


def split_contrasts(
    headers: Sequence[SeriesHeader],
    geometries: Sequence[SliceGeometry],
    kind: Callable[[SeriesHeader], Hashable],
) -> tuple[Contrast, ...]:
    """Splits the images of a series into contrasts.

    Images with equal headers belong together. Images with different headers belong to one stack if they are
    of one kind, have about the same echo time and show different places: values of single images may vary.

    Args:
        headers: header of each image.
        geometries: geometry of each image.
        kind: evaluation of a header by the caller. Images of different kinds are never one contrast.

    Returns:
        The contrasts, the largest first. Every image is in one of them.
    """
    groups = _group_by_header(headers)
    places = find_places(geometries)
    if len(groups) == 1 and len({header.temporal_position for header in headers}) == 1:
        (header,) = groups
        contrast = Contrast(header, tuple(range(len(headers))), frozenset(places))
        return (_name(header, [header], contrast),)
    parts: dict[Hashable, list[_Part]] = defaultdict(list)
    for header, members in sorted(groups.items(), key=lambda item: (-len(item[1]), repr(item[0]))):
        for is_repetition, images in enumerate(_split_time_points(members, headers, places)):
            if images:
                part = _find_part(parts[kind(header)], header, {places[index] for index in images})
                if part is None:
                    part = _Part(header, bool(is_repetition))
                    parts[kind(header)].append(part)
                part.add(images, places)
    return _freeze([part for of_kind in parts.values() for part in of_kind])


def _group_by_header(headers: Sequence[SeriesHeader]) -> dict[SeriesHeader, list[int]]:
    groups: dict[SeriesHeader, list[int]] = defaultdict(list)
    for index, header in enumerate(headers):
        groups[replace(header, temporal_position=None)].append(index)
    return groups


def _split_time_points(
    members: Sequence[int], headers: Sequence[SeriesHeader], places: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Splits images with equal headers into the first image of every place and its repetitions."""
    first: dict[int, int] = {}
    for index in members:
        time = headers[index].temporal_position or 0
        first[places[index]] = min(time, first.get(places[index], time))
    is_first = [(headers[index].temporal_position or 0) == first[places[index]] for index in members]
    pairs = list(zip(members, is_first, strict=True))
    return [index for index, kept in pairs if kept], [index for index, kept in pairs if not kept]


def _find_part(parts: Sequence[_Part], header: SeriesHeader, places: set[int]) -> _Part | None:
    """Returns the part of a kind that further images continue; None if they are a new contrast."""
    for part in parts:
        if part.places.isdisjoint(places) and is_same_echo(part.header, header):
            return part
    return parts[-1] if len(parts) >= _MAX_PARTS else None


def is_same_echo(header: SeriesHeader, other: SeriesHeader) -> bool:
    """Returns whether echo times differ by less than a quarter, or both are absent."""
    if header.echo_time_ms is None or other.echo_time_ms is None:
        return header.echo_time_ms == other.echo_time_ms
    return abs(math.log(header.echo_time_ms / other.echo_time_ms)) <= math.log(_SAME_ECHO_FACTOR)


def _freeze(parts: Sequence[_Part]) -> tuple[Contrast, ...]:
    headers = [part.header for part in parts]
    ordered = sorted(parts, key=lambda part: (-len(part.members), part.is_repetition, repr(part.header)))
    contrasts = [
        _name(
            part.header,
            headers,
            Contrast(
                part.header,
                tuple(sorted(part.members)),
                frozenset(part.places),
                is_repetition=part.is_repetition,
            ),
        )
        for part in ordered
    ]
    return _number_equal_names(contrasts)


def _number_equal_names(contrasts: Sequence[Contrast]) -> tuple[Contrast, ...]:
    counts = Counter(contrast.name for contrast in contrasts)
    seen: Counter[str] = Counter()
    numbered = []
    for contrast in contrasts:
        seen[contrast.name] += 1
        if len(contrasts) > 1 and (counts[contrast.name] > 1 or not contrast.name):
            name = ", ".join(filter(None, (contrast.name, f"group {seen[contrast.name]}")))
            contrast = replace(contrast, name=name)
        numbered.append(contrast)
    return tuple(numbered)


def _name(header: SeriesHeader, headers: Sequence[SeriesHeader], contrast: Contrast) -> Contrast:
    """Names a contrast by the attributes that distinguish the contrasts of its series."""
    names = [name(header) for name in _distinguishing_attributes(headers)]
    if len(headers) == 1:
        if header.component is not Component.MAGNITUDE:
            names.append(header.component.value)
        if header.dixon_part is not None:
            names.append(header.dixon_part.value)
        if is_diffusion_weighted(header.b_value):
            names.append(f"b {header.b_value:.4g} s/mm2")
    if contrast.is_repetition:
        names.append("later time points")
    return replace(contrast, name=", ".join(filter(None, names)))


def _distinguishing_attributes(headers: Sequence[SeriesHeader]) -> list[Callable[[SeriesHeader], str]]:
    """Returns the attributes of `_NAMES` that separate headers which those before do not separate."""
    chosen: list[Callable[[SeriesHeader], str]] = []
    num_separated = 1
    for name in _NAMES:
        values = {tuple(attribute(header) for attribute in (*chosen, name)) for header in headers}
        if len(values) > num_separated:
            chosen.append(name)
            num_separated = len(values)
    return chosen


def find_places(geometries: Sequence[SliceGeometry]) -> list[int]:
    """Numbers the places that images show: images in one plane with the same centre have equal numbers.

    The numbers of a place depend on the geometries, not on their order.
    """
    order = sorted(range(len(geometries)), key=lambda index: _sort_key(geometries[index]))
    cells: dict[tuple[int, ...], list[int]] = defaultdict(list)
    examples: list[SliceGeometry] = []
    places = [0] * len(geometries)
    for index in order:
        geometry = geometries[index]
        cell = tuple(np.floor(geometry.centre / SAME_CENTRE_MM).astype(int).tolist())
        for place in (place for near in _neighbours(cell) for place in cells.get(near, ())):
            if _is_same_place(geometry, examples[place]):
                places[index] = place
                break
        else:
            places[index] = len(examples)
            cells[cell].append(len(examples))
            examples.append(geometry)
    return places


def _sort_key(geometry: SliceGeometry) -> tuple[tuple[float, ...], ...]:
    return (geometry.position, geometry.row_direction, geometry.column_direction)


def _neighbours(cell: tuple[int, ...]) -> list[tuple[int, ...]]:
    x, y, z = cell
    return [(x + i, y + j, z + k) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)]


def _is_same_place(geometry: SliceGeometry, other: SliceGeometry) -> bool:
    shift = geometry.centre - other.centre
    is_parallel = float(geometry.normal @ other.normal) > 0.999
    is_near = float(np.linalg.norm(shift)) < SAME_CENTRE_MM
    return is_parallel and is_near and abs(float(shift @ other.normal)) <= SAME_PLANE_MM
