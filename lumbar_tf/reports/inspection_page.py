"""Census of a data set as a self-contained HTML page and as JSON."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lumbar_tf import __version__
from lumbar_tf.files import write_json_atomically
from lumbar_tf.labels import FINDINGS, Condition, Plane, Severity
from lumbar_tf.reports.census import Breakdown, CaseList, Census
from lumbar_tf.reports.label_contradictions import Contradiction
from lumbar_tf.reports.montage import Montage
from lumbar_tf.reports.pages import page_templates, write_page

PAGE_NAME = "inspection.html"
JSON_NAME = "inspection.json"

#: Names of the columns of `Census.labels`.
LABEL_NAMES = (*(severity.title for severity in Severity), "Missing")

_KIND_TITLES = {
    "fault": "Faults: damaged or contradictory, left out",
    "note": "Notes: unusual, but kept",
    "choice": "Choices: valid, but not needed for grading, left out",
}


def write_inspection_page(
    path: Path, census: Census, montages: Iterable[str], *, is_synthetic: bool = False
) -> None:
    """Writes the page, atomically.

    Args:
        path: the HTML file.
        census: the counts.
        montages: HTML fragments from `render_montage`, consumed one by one while the page is written.
        is_synthetic: whether all studies are synthetic.
    """
    values = {
        "census": census,
        "figures": _figures(census),
        **census_values(census),
        "left_out": _by_kind(census.left_out),
        "contradiction_titles": {kind.value: kind.title for kind in Contradiction},
        "montages": _trusted(montages),
    }
    write_page(path, "inspection.html", values, is_synthetic=is_synthetic)


def render_montage(montage: Montage) -> str:
    """Returns a study's pictures as an HTML fragment for `write_inspection_page`."""
    return page_templates().get_template("montage.html").render(montage=montage)


def write_census_json(path: Path, census: Census) -> None:
    """Writes the counts of the page; unlike the page, with all rows of every breakdown."""
    write_json_atomically(path, _as_json(census), end="\n")


def _trusted(montages: Iterable[str]) -> Iterator[Any]:
    """Marks fragments of `render_montage`, which are escaped already, as safe."""
    from markupsafe import Markup

    for montage in montages:
        yield Markup(montage)  # noqa: S704 - rendered by this module's own template, with autoescape


def _figures(census: Census) -> list[tuple[str, int]]:
    """Returns the numbers at the top of the page."""
    num_faults = sum(cases.count for cases in census.left_out if cases.kind == "fault")
    return [
        ("studies", census.num_studies),
        ("usable studies", census.num_usable),
        ("graded studies", census.num_graded),
        ("level points", census.num_points),
        ("series kept", sum(plane.num_series for plane in census.planes)),
        ("series left out", census.num_series_left_out),
        ("faults", num_faults),
        ("contradictions", sum(cases.count for cases in census.contradictions)),
    ]


def census_values(census: Census) -> dict[str, Any]:
    """Returns the variables of the template `census.html`, except for the census itself."""
    return {
        "planes": list(Plane),
        "combinations": _shares(census),
        "breakdowns": [_table(breakdown.condensed()) for breakdown in census.breakdowns if breakdown.rows],
        "label_names": LABEL_NAMES,
        "labels": _label_rows(census),
    }


def _shares(census: Census) -> list[tuple[tuple[Plane, ...], int, float]]:
    """Returns planes, number of studies, and percentage of all studies."""
    return [(planes, count, 100 * count / census.num_studies) for planes, count in census.combinations]


def _table(breakdown: Breakdown) -> dict[str, Any]:
    """Returns a breakdown's rows with their totals."""
    rows = [(name, [counts.get(plane, 0) for plane in Plane]) for name, counts in breakdown.rows]
    return {
        "title": breakdown.attribute.value,
        "rows": [(name, counts, sum(counts)) for name, counts in rows],
        "largest": max(sum(counts) for _, counts in rows),
    }


def _label_rows(census: Census) -> list[tuple[str, list[tuple[str, list[int]]]]]:
    """Returns the levels of each condition with their four counts."""
    if census.labels is None:
        return []
    counts = census.labels.tolist()
    return [
        (
            condition.value.replace("_", " ").capitalize(),
            [
                (finding.level.title, counts[row])
                for row, finding in enumerate(FINDINGS)
                if finding.condition is condition
            ],
        )
        for condition in Condition
    ]


def _by_kind(lists: Iterable[CaseList]) -> list[tuple[str, list[CaseList]]]:
    lists = list(lists)
    groups = [
        (title, [cases for cases in lists if cases.kind == kind]) for kind, title in _KIND_TITLES.items()
    ]
    return [(title, members) for title, members in groups if members]


def _as_json(census: Census) -> dict[str, Any]:
    labels = census.labels.tolist() if census.labels is not None else []
    return {
        "lumbar_tf": __version__,
        "num_studies": census.num_studies,
        "num_usable_studies": census.num_usable,
        "num_graded_studies": census.num_graded,
        "num_points": census.num_points,
        "num_series_left_out": census.num_series_left_out,
        "planes": {
            count.plane.value: {
                "num_studies": count.num_studies,
                "num_series": count.num_series,
                "num_slices": count.num_slices,
            }
            for count in census.planes
        },
        "studies_by_planes": [
            {"planes": [plane.value for plane in planes], "num_studies": count}
            for planes, count in census.combinations
        ],
        "series_by": {
            breakdown.attribute.name.lower(): [
                {"value": name, **{plane.value: counts.get(plane, 0) for plane in Plane}}
                for name, counts in breakdown.rows
            ]
            for breakdown in census.breakdowns
        },
        "labels": {
            finding.name: dict(zip(LABEL_NAMES, row, strict=True))
            for finding, row in zip(FINDINGS, labels, strict=False)
        },
        "left_out_or_noted": [_case_list(cases) for cases in census.left_out],
        "contradictions": [_case_list(cases) for cases in census.contradictions],
    }


def _case_list(cases: CaseList) -> dict[str, Any]:
    return {
        "code": cases.code,
        "kind": cases.kind,
        "count": cases.count,
        "num_studies": cases.num_studies,
        "first_cases": [vars(case) for case in cases.cases],
    }
