"""Self-contained HTML pages and pictures of studies, cohorts, evaluations and training runs."""
