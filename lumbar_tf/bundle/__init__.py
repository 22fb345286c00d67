"""Exported ensembles: the servable graph of all members and the stacker, export, self-test and loading."""
