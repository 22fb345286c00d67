"""Execution of independent jobs in this process, local processes or a Ray cluster."""

from lumbar_tf.runners.jobs import Runner, run_jobs
from lumbar_tf.runners.outcomes import JobError, JobShare

__all__ = ["JobError", "JobShare", "Runner", "run_jobs"]
