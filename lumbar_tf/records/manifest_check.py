"""Whether a manifest can be read, and whether it agrees with itself."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from lumbar_tf.labels import Plane
from lumbar_tf.records.issues import IssueCode, RecordIssue
from lumbar_tf.records.manifest import MANIFEST_NAME, Manifest, Shard
from lumbar_tf.records.schema import SCHEMA_VERSION


def load_manifest(folder: Path) -> tuple[Manifest | None, list[RecordIssue]]:
    """Reads the manifest, or says what keeps it from being read."""

    def fault(damage: IssueCode, message: str) -> tuple[None, list[RecordIssue]]:
        return None, [RecordIssue(damage, MANIFEST_NAME, message)]

    path = folder / MANIFEST_NAME
    if not path.is_file():
        return fault(IssueCode.MANIFEST_ABSENT, "it is absent: the build did not finish")
    try:
        data = path.read_bytes()
        version = str(json.loads(data)["schema_version"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        return fault(IssueCode.MANIFEST_DAMAGED, f"it is no manifest ({type(error).__name__})")
    major = SCHEMA_VERSION.partition(".")[0]
    if version.partition(".")[0] != major:
        return fault(IssueCode.MANIFEST_SCHEMA, f"the schema version must be {major}.x")
    try:
        return Manifest.model_validate_json(data), []
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        return fault(IssueCode.MANIFEST_DAMAGED, f"{place}: {error.errors()[0]['msg']}")


def _is_plain(file: str, plane: str) -> bool:
    """Whether a shard's path is `<plane>/<name>`, so that nothing outside the folder is read."""
    parts = PurePosixPath(file).parts
    return len(parts) == 2 and parts[0] == plane and parts[1] != ".." and "\\" not in file


def known_shards(manifest: Manifest) -> Iterator[tuple[Plane, Shard]]:
    """Yields the shards that may be read, with their planes."""
    planes = {each.value: each for each in Plane}
    for name, shards in manifest.planes.items():
        for shard in shards:
            if name in planes and _is_plain(shard.file, name):
                yield planes[name], shard


def contradictions(manifest: Manifest) -> Iterator[RecordIssue]:
    """What the manifest says against itself."""

    def fault(message: str, study_id: str = "") -> RecordIssue:
        return RecordIssue(IssueCode.MANIFEST_CONTRADICTION, MANIFEST_NAME, message, study_id)

    known = list(known_shards(manifest))
    num_named = sum(len(shards) for shards in manifest.planes.values())
    if len(known) != num_named:
        yield fault(f"{num_named - len(known)} shards are not named <plane>/<file>")
    if len({shard.file for _, shard in known}) != len(known):
        yield fault("a shard is named twice")
    for _, shard in known:
        if shard.num_examples != len(shard.study_ids):
            yield fault(f"{shard.file}: num_examples {shard.num_examples}, study ids {len(shard.study_ids)}")
    by_study = Counter(each.study_id for each in manifest.studies)
    yield from (fault("the study is listed twice", each) for each, count in by_study.items() if count > 1)
    listed = Counter((study, plane.value) for plane, shard in known for study in shard.study_ids)
    counted = {(each.study_id, plane) for each in manifest.studies for plane in each.num_slices}
    for (study_id, plane), count in sorted(listed.items()):
        if count > 1:
            yield fault(f"{plane}: the shards list the study {count} times", study_id)
        if (study_id, plane) not in counted:
            yield fault(f"{plane}: a shard lists the study, its slices are not counted", study_id)
    for study_id, plane in sorted(counted - listed.keys()):
        yield fault(f"{plane}: its slices are counted, no shard lists the study", study_id)
    if not manifest.options.is_pseudonymised:
        groups = {each.study_id: each.patient_group for each in manifest.studies}
        for study_id, group in groups.items():
            if groups.get(group) != group:
                yield fault("patient_group must be a study of the same patient", study_id)
