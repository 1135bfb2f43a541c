"""`python -m ablate.check key=value ...`: the checks before training, alone."""

from ablate.commands.entry import command


def main() -> None:
    """Print the checks; exit code 1 if one found something, 2 and one line if the command is wrong."""
    command("examine")


if __name__ == "__main__":
    main()
