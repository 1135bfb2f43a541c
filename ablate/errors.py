"""The one kind of error that the user can fix, and any error in a line."""


class ConfigError(Exception):
    """A wrong command, configuration or input file.

    The message is one line: it names the key or file and its value, what was expected, and what to do.
    The command line prints it without a traceback and ends with code 2. `trial` is the number of the trial that
    the error concerns, if it concerns one.
    """

    def __init__(self, message: str, trial: int | None = None) -> None:
        super().__init__(message)
        self.trial = trial


def in_a_line(error: BaseException) -> str:
    """An error in one line: what we say of it as it stands, what another says after the name of its class."""
    said = " ".join(str(error).split())
    return said if said and isinstance(error, ConfigError) else f"{type(error).__name__}: {said}"
