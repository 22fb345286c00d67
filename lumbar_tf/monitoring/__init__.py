"""Whether a served ensemble still sees, and says, what it was built on.

`images` and `quantities` measure one answered study, `log` keeps a row of each, `reference` holds what is
expected, and `drift` compares.
"""
