"""How `make demo` makes a page of a notebook: `jupyter nbconvert --config notebooks/_config/static_page.py`.

A page is one file that needs nothing from outside: MathJax is in it, and pictures have their alt text.
"""

from importlib.resources import files
from pathlib import Path

c = get_config()  # noqa: F821

# A page without a kernel shows a panel's picture instead of the panel, and leaves progress bars out
# (about each of which nbconvert would warn). A kernel that nobody else can reach need not warn of listeners.
c.ExecutePreprocessor.store_widget_state = False
c.ExecutePreprocessor.extra_arguments = ["--IPKernelApp.log_level=40"]
c.NbConvertBase.display_data_priority = ["image/png", "text/html"]

c.TemplateExporter.template_file = "static_page.html.j2"
c.TemplateExporter.extra_template_paths = [
    str(Path(__file__).parent),
    str(files("mathjax") / "static/mathjax/es5"),
]
