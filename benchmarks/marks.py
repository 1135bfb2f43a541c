"""Pages written by hand, with a place for figures: between the lines `<!-- NAME -->` and `<!-- end of NAME -->`."""

from pathlib import Path


def around(page: Path, name: str) -> tuple[str, str]:
    """What stands in a page up to its place, and from the end of it on, the marks included.

    Raises ValueError where there is no such page, or no such place in it.
    """
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, opened, rest = (page.read_text(encoding="utf-8") if page.is_file() else "").partition(f"{start}\n")
    _, closed, after = rest.partition(end)
    if not (opened and closed):
        raise ValueError(f"--into {page}: no page with the lines {start} and {end}")
    return before + opened, closed + after


def put(page: Path, name: str, text: str) -> None:
    """Put a text into the place, instead of what is there. Raises ValueError as `around` does."""
    before, after = around(page, name)
    page.write_text(f"{before}{text.rstrip()}\n{after}", encoding="utf-8")
