"""HTML from the Jinja2 templates in studio/ui/templates. Values are escaped unless a template marks them as safe."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parents[1] / "templates", encoding="utf-8"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(name: str, **values: object) -> str:
    """Return the HTML of a template, such as "noise/panels.html". Raises UndefinedError for a missing value."""
    return _ENVIRONMENT.get_template(name).render(**values)
