"""Where arrays come from, as errors and notices name it."""

from __future__ import annotations

from dataclasses import dataclass, field

from ablate.errors import ConfigError


@dataclass(frozen=True)
class Origin:
    """A file as the user named it, `data.path=mine.npz`, and what is to be said of how it was taken.

    A notice is one line: what was found, what was made of it, and how to confirm it or to say otherwise.
    `is_of_any_task`: whether there is a key `data.task` for it, since its targets may be meant as no classes.
    """

    named: str
    is_of_any_task: bool = False
    notices: list[str] = field(default_factory=list)

    def error(self, complaint: str) -> ConfigError:
        return ConfigError(f"{self.named}: {complaint}")

    def notice(self, sentence: str) -> None:
        self.notices.append(f"{self.named}: {sentence}")

    def also(self, other: Origin) -> None:
        """What is to be said of another file too, unless the same is said of this one."""
        said = {notice.removeprefix(self.named) for notice in self.notices}
        self.notices.extend(notice for notice in other.notices if notice.removeprefix(other.named) not in said)
