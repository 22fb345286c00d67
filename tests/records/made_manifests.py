"""Manifests of a few studies, in memory: what tests of the tables beside the records begin with."""

from collections.abc import Mapping

from lumbar_tf.records.manifest import BuildOptions, Manifest, StudyEntry


def make_manifest(patient_groups: Mapping[str, str]) -> Manifest:
    """A manifest in two folds that holds nothing but studies, each with its patient's group."""
    return Manifest(
        schema_version="2.0.0",
        packages={},
        options=BuildOptions(studies_per_shard=1, num_folds=2, fold_seed=0),
        planes={},
        studies=tuple(
            StudyEntry(study_id=study, patient_group=group, source_digest="", num_slices={})
            for study, group in patient_groups.items()
        ),
        rejects=(),
    )
