"""Writes a census as one self-contained HTML page and as JSON."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lumbar_tf import __version__
from lumbar_tf.files import write_json_atomically, write_text_atomically
from lumbar_tf.labels import FINDINGS, Condition, Plane, Severity, finding_index
from lumbar_tf.reports.census import Breakdown, CaseList, Census
from lumbar_tf.reports.label_contradictions import Contradiction
from lumbar_tf.reports.montage import Montage
from lumbar_tf.reports.page_templates import data_uri, page_templates

PAGE_NAME = "inspection.html"
JSON_NAME = "inspection.json"

#: Labels in the order of the census' columns.
LABEL_NAMES = (*(each.title for each in Severity), "Missing")

_KIND_TITLES = {
    "fault": "Faults: broken or contradictory, left out",
    "note": "Notes: odd, but kept",
    "choice": "Choices: sound, but nothing that is graded here, left out",
}


def write_page(path: Path, census: Census, montages: Iterable[str], *, is_synthetic: bool = False) -> None:
    """Writes the page, whole or not at all.

    Args:
        path: the HTML file.
        census: the counts.
        montages: from `render_montage`, taken one by one as the page is written.
        is_synthetic: whether all studies are synthetic.
    """
    stream = (
        page_templates()
        .get_template("inspection.html")
        .generate(
            version=__version__,
            is_synthetic=is_synthetic,
            census=census,
            figures=_figures(census),
            planes=list(Plane),
            combinations=_shares(census),
            breakdowns=[_table(each.condensed()) for each in census.breakdowns if each.rows],
            label_names=LABEL_NAMES,
            labels=_label_rows(census),
            left_out=_by_kind(census.left_out),
            contradiction_titles={each.value: each.title for each in Contradiction},
            montages=_trusted(montages),
        )
    )
    write_text_atomically(path, stream)


def render_montage(montage: Montage) -> str:
    """Returns a study's pictures as a piece of HTML for `write_page`."""
    template = page_templates().get_template("montage.html")
    return template.render(montage=montage, data_uri=data_uri)


def write_census_json(path: Path, census: Census) -> None:
    """Writes the numbers of the page, and all rows where the page shows the most frequent."""
    write_json_atomically(path, _as_json(census), end="\n")


def _trusted(montages: Iterable[str]) -> Iterator[Any]:
    """Marks what `render_montage` has escaped already."""
    from markupsafe import Markup

    for each in montages:
        yield Markup(each)  # noqa: S704 - rendered by this module's own template, with autoescape


def _figures(census: Census) -> list[tuple[str, int]]:
    """The numbers at the top of the page."""
    counts = {kind: sum(each.count for each in census.left_out if each.kind == kind) for kind in _KIND_TITLES}
    return [
        ("studies", census.num_studies),
        ("usable studies", census.num_usable),
        ("graded studies", census.num_graded),
        ("level points", census.num_points),
        ("series kept", sum(each.num_series for each in census.planes)),
        ("series left out", census.num_series_left_out),
        ("faults", counts["fault"]),
        ("contradictions", sum(each.count for each in census.contradictions)),
    ]


def _shares(census: Census) -> list[tuple[tuple[Plane, ...], int, float]]:
    """Planes, number of studies, and percent of all."""
    return [(planes, count, 100 * count / census.num_studies) for planes, count in census.combinations]


def _table(breakdown: Breakdown) -> dict[str, Any]:
    """A breakdown's rows with their totals."""
    rows = [(name, [counts.get(plane, 0) for plane in Plane]) for name, counts in breakdown.rows]
    return {
        "title": breakdown.attribute.value,
        "rows": [(name, counts, sum(counts)) for name, counts in rows],
        "largest": max(sum(counts) for _, counts in rows),
    }


def _label_rows(census: Census) -> list[tuple[str, list[tuple[str, list[int]]]]]:
    """By condition, its levels with their four counts."""
    if census.labels is None:
        return []
    counts = census.labels.tolist()
    return [
        (
            condition.value.replace("_", " ").capitalize(),
            [
                (each.level.title, counts[finding_index(condition, each.level)])
                for each in FINDINGS
                if each.condition is condition
            ],
        )
        for condition in Condition
    ]


def _by_kind(lists: Iterable[CaseList]) -> list[tuple[str, list[CaseList]]]:
    lists = list(lists)
    groups = [(title, [each for each in lists if each.kind == kind]) for kind, title in _KIND_TITLES.items()]
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
            each.plane.value: {
                "num_studies": each.num_studies,
                "num_series": each.num_series,
                "num_slices": each.num_slices,
            }
            for each in census.planes
        },
        "studies_by_planes": [
            {"planes": [plane.value for plane in planes], "num_studies": count}
            for planes, count in census.combinations
        ],
        "series_by": {
            each.attribute.name.lower(): [
                {"value": name, **{plane.value: counts.get(plane, 0) for plane in Plane}}
                for name, counts in each.rows
            ]
            for each in census.breakdowns
        },
        "labels": {
            finding.name: dict(zip(LABEL_NAMES, row, strict=True))
            for finding, row in zip(FINDINGS, labels, strict=False)
        },
        "left_out_or_noted": [_case_list(each) for each in census.left_out],
        "contradictions": [_case_list(each) for each in census.contradictions],
    }


def _case_list(each: CaseList) -> dict[str, Any]:
    return {
        "code": each.code,
        "kind": each.kind,
        "count": each.count,
        "num_studies": each.num_studies,
        "first_cases": [vars(case) for case in each.cases],
    }
