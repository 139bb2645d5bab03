"""Sphinx reads this beside the pages that docs/generate.py has put together; `make docs` does both."""

project = "hpcspawner"
author = "The hpcspawner team"
extensions = ["myst_parser", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
# Console sessions are copied without prompts and output.
copybutton_prompt_text = "$ "
copybutton_exclude = ".linenos, .gp, .go"
# Code blocks of other programs' configuration, which pygments reads more strictly than they do.
suppress_warnings = ["misc.highlighting_failure"]
html_theme = "pydata_sphinx_theme"
html_title = "hpcspawner"
# No page asks another host for anything.
html_theme_options = {"navbar_end": ["theme-switcher"], "show_prev_next": False, "use_edit_page_button": False}
html_show_sourcelink = False
