"""The one kind of error that the user can fix."""


class ConfigError(Exception):
    """A wrong command, configuration or input file.

    The message is one line: it names the key or file and its value, what was expected, and what to do.
    The command line prints it without a traceback and ends with code 2. `trial` is the number of the trial that
    the error concerns, if it concerns one.
    """

    def __init__(self, message: str, trial: int | None = None) -> None:
        super().__init__(message)
        self.trial = trial
