"""Pages from Jinja2 templates. They are Markdown, so nothing is escaped; a name that has no value is an error."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ablate.report import markdown


def environment(folder: Path) -> Environment:
    """The templates of a folder. All of them may call `table(head, rows)`."""
    made = Environment(
        loader=FileSystemLoader(folder, encoding="utf-8"),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.globals["table"] = markdown.table
    return made


def render(template: Path, **data: Any) -> str:
    """A template with its data."""
    return environment(template.parent).get_template(template.name).render(data)
