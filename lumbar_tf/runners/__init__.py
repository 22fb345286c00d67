"""Where independent jobs run: this process, local processes, a Ray cluster."""

from lumbar_tf.runners.jobs import Runner, run_jobs
from lumbar_tf.runners.outcomes import JobError

__all__ = ["JobError", "Runner", "run_jobs"]
