"""Localizers, graders and how they are trained."""
