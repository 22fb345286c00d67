"""Reporting checklists, filled from the files of a project; what these do not contain is a named blank.

Items and facts are data: `checklists/*.yaml`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ConfigDict

from lumbar_tf.bundle.model_card import format_interval
from lumbar_tf.config import PlaneConfig
from lumbar_tf.files import write_table_atomically
from lumbar_tf.labels import Plane
from lumbar_tf.models.bundle_folder import read_ensemble_json
from lumbar_tf.reports.dataset_card import RecordsSummary
from lumbar_tf.reports.pages import write_page
from lumbar_tf.training.runs import RUN_NAME, find_plane_configs

if TYPE_CHECKING:
    from jinja2 import Environment

PAGE_NAME = "checklist.html"
TABLE_NAME = "checklist.csv"
#: Files in `checklists`, in the order of the page.
_CHECKLISTS = ("claim_2024.yaml", "tripod_ai.yaml")
_FACTS = "facts.yaml"
#: Beginning of what only the authors can write.
BLANK = "blank: to be filled by the authors"


class Input(Enum):
    """Inputs that facts are rendered from; the value is the option's name."""

    RECORDS = "records"
    RUNS = "runs"
    BUNDLE = "bundle"
    METRICS = "metrics"


class Status(Enum):
    """Extent to which an item is filled."""

    FILLED = "filled"
    IN_PART = "in part"
    BLANK = "blank"


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FactTemplate(_Entry):
    """Template of a fact.

    Attributes:
        source: kind of input.
        files: files that contain it.
        text: Jinja template of its text.
    """

    source: Input
    files: str
    text: str


class ChecklistItem(_Entry):
    """Item of a checklist.

    Attributes:
        number: its number in the reference.
        section: section of the reference.
        name: its subject, not the wording of the reference.
        facts: keys of the facts that fill it.
        authors: what the authors add to the facts; "" where the facts are enough.
    """

    number: str
    section: str
    name: str
    facts: tuple[str, ...] = ()
    authors: str = ""


class Checklist(_Entry):
    """A checklist.

    Attributes:
        name: short name.
        reference: citation.
        doi: its DOI.
        items: all items in order.
    """

    name: str
    reference: str
    doi: str
    items: tuple[ChecklistItem, ...]


@dataclass(frozen=True)
class Fact:
    """Text about a project, and the files that contain it."""

    text: str
    files: str


@dataclass(frozen=True)
class FilledItem:
    """An item with what is known about it.

    Attributes:
        item: the item.
        facts: what the files contain.
        absent: inputs that would fill it and were not given.
    """

    item: ChecklistItem
    facts: tuple[Fact, ...]
    absent: tuple[Input, ...]

    @property
    def status(self) -> Status:
        """Whether it is filled, in part, or blank."""
        if not self.facts:
            return Status.BLANK
        return Status.IN_PART if self.item.authors or self.absent else Status.FILLED

    @property
    def blank(self) -> str:
        """Missing content, and who or which option provides it; "" if there is none."""
        needed = [f"--{name.value}" for name in self.absent]
        hint = f" (more with {', '.join(needed)})" if needed else ""
        if self.status is Status.FILLED:
            return ""
        return f"{BLANK}{': ' + self.item.authors if self.item.authors else ''}{hint}"


@dataclass(frozen=True, eq=False)
class RunSummary:
    """Training run of a plane.

    Attributes:
        plane: the plane.
        config: its configuration.
        origin: content of the plane's `run.json`.
        devices: devices that trained its networks.
    """

    plane: Plane
    config: PlaneConfig
    origin: Mapping[str, Any]
    devices: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ProjectFiles:
    """Contents of the files of a project; None or empty where they were not given.

    Attributes:
        records: summary of the records.
        runs: training runs.
        bundle: content of `ensemble.json`.
        metrics: content of `metrics.json`.
    """

    records: RecordsSummary | None = None
    runs: Sequence[RunSummary] = ()
    bundle: Mapping[str, Any] | None = None
    metrics: Mapping[str, Any] | None = None

    @property
    def is_synthetic(self) -> bool:
        """Whether the records, the runs or the bundle are of synthetic studies."""
        bundle = (self.bundle or {}).get("training", {})
        return bool(
            (self.records and self.records.manifest.is_synthetic)
            or any(run.origin.get("is_synthetic") for run in self.runs)
            or bundle.get("is_synthetic")
        )


def summarise_runs(folder: Path) -> tuple[RunSummary, ...]:
    """Reads the configuration and the origin of each plane's run.

    Raises:
        ValueError: the folder contains no run.
    """
    found = []
    for plane, config in find_plane_configs(folder).items():
        members = [_read_json(path) for path in sorted((folder / plane.value).glob(f"*/{RUN_NAME}"))]
        devices = {fold["device"] for member in members for fold in member.get("folds", {}).values()}
        origin = _read_json(folder / plane.value / RUN_NAME)
        found.append(RunSummary(plane, config, origin, tuple(sorted(devices))))
    if not found:
        raise ValueError(f"Runs must contain the folder of a plane with its config.yaml. Received: {folder}.")
    return tuple(found)


def _read_json(path: Path) -> dict[str, Any]:
    """Reads a file that must hold an object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, RecursionError, ValueError) as error:
        raise ValueError(f"{path} must be a JSON file. Received: {type(error).__name__}.") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object. Received: {type(content).__name__}.")
    return content


def read_project(
    *,
    records: RecordsSummary | None = None,
    runs: Path | None = None,
    bundle: Path | None = None,
    metrics: Path | None = None,
) -> ProjectFiles:
    """Reads the files of a project.

    Args:
        records: summary of the records.
        runs: folder of all planes' runs.
        bundle: folder of an exported version.
        metrics: `metrics.json` of `lumbar_tf.evaluate`.

    Raises:
        ValueError: a file is absent or malformed.
    """
    return ProjectFiles(
        records=records,
        runs=() if runs is None else summarise_runs(runs),
        bundle=None if bundle is None else read_ensemble_json(bundle),
        metrics=None if metrics is None else _read_json(metrics),
    )


def read_checklists() -> tuple[Checklist, ...]:
    """Returns the checklists of the package."""
    return tuple(Checklist.model_validate(_read_yaml(name)) for name in _CHECKLISTS)


def _read_yaml(name: str) -> dict[str, Any]:
    text = (files("lumbar_tf.reports") / "checklists" / name).read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.safe_load(text)
    return content


def find_facts(project: ProjectFiles) -> dict[str, Fact]:
    """Returns the facts that the files of a project contain, by key."""
    from jinja2 import UndefinedError

    values = {
        **{name.value: value for name, value in _inputs(project).items()},
        "devices": sorted({device for run in project.runs for device in run.devices}),
    }
    facts = {}
    for key, template in fact_templates().items():
        if template.source.value in values:
            try:
                text = " ".join(_environment().from_string(template.text).render(values).split())
            except UndefinedError:
                # Files of an earlier version lack the value.
                continue
            if text:
                facts[key] = Fact(text, template.files)
    return facts


@cache
def fact_templates() -> dict[str, FactTemplate]:
    """Returns the templates of all facts by key."""
    return {key: FactTemplate.model_validate(value) for key, value in _read_yaml(_FACTS).items()}


def _inputs(project: ProjectFiles) -> dict[Input, Any]:
    """Returns the inputs that were given."""
    return {name: value for name in Input if (value := getattr(project, name.value))}


@cache
def _environment() -> "Environment":
    # Imported here so that a command's --help does not wait for it. The text is escaped by the page.
    from jinja2 import Environment, StrictUndefined

    environment = Environment(undefined=StrictUndefined)  # noqa: S701
    environment.filters["interval"] = format_interval
    return environment


def fill_checklist(checklist: Checklist, project: ProjectFiles) -> tuple[FilledItem, ...]:
    """Returns all items of a checklist with what the files of a project contain."""
    facts, given = find_facts(project), _inputs(project)
    templates = fact_templates()
    filled = []
    for item in checklist.items:
        sources = {templates[key].source for key in item.facts}
        absent = tuple(name for name in Input if name in sources and name not in given)
        filled.append(FilledItem(item, tuple(facts[key] for key in item.facts if key in facts), absent))
    return tuple(filled)


def write_checklists(folder: Path, project: ProjectFiles) -> dict[str, tuple[FilledItem, ...]]:
    """Writes `checklist.html`, and `checklist.csv` for a word processor or spreadsheet; returns the items."""
    checklists = read_checklists()
    filled = {checklist.name: fill_checklist(checklist, project) for checklist in checklists}
    values = {
        "checklists": [(checklist, filled[checklist.name]) for checklist in checklists],
        "statuses": list(Status),
        "given": [name.value for name in _inputs(project)],
    }
    write_page(folder / PAGE_NAME, "checklist.html", values, is_synthetic=project.is_synthetic)
    rows = [
        [
            name,
            entry.item.number,
            entry.item.section,
            entry.item.name,
            entry.status.value,
            " ".join(fact.text for fact in entry.facts),
            "; ".join(dict.fromkeys(fact.files for fact in entry.facts)),
            entry.blank,
        ]
        for name, entries in filled.items()
        for entry in entries
    ]
    header = ["checklist", "item", "section", "subject", "status", "content", "files", "blank"]
    write_table_atomically(folder / TABLE_NAME, header, rows)
    return filled
