"""Settings of the documentation site: `make docs`."""

import importlib.metadata

project = "fedbbpt"
copyright = "the fedbbpt authors"
release = importlib.metadata.version("fedbbpt")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.napoleon", "sphinx_copybutton"]
html_theme = "furo"
html_title = f"fedbbpt {release}"
exclude_patterns = ["conf.py", "draw_packages.py"]

myst_heading_anchors = 4
myst_links_external_new_tab = True
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
copybutton_prompt_text = r"\$ |> "
copybutton_prompt_is_regexp = True
copybutton_line_continuation_character = "\\"
nitpicky = False
