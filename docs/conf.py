"""Configuration of Sphinx."""

from importlib.metadata import version as installed

project = "losskit"
author = "The losskit developers"
copyright = "the losskit developers"
version = release = installed("losskit")

extensions = ["myst_parser"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nitpicky = True

html_theme = "furo"
html_title = f"losskit {version}"
html_copy_source = False
