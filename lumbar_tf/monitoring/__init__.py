"""Monitoring of a served ensemble for changes of its inputs and predictions.

`quantities` measures a predicted study, `log` keeps one row for each, `reference` and `bundle_reference`
describe the expected distributions, and `drift` compares.
"""
