"""`python -m ablate`, and the script `ablate`."""

from ablate.commands.entry import command


def main() -> None:
    """Train what the command line says; exit code 2 and one line if the command is wrong."""
    command("run")


if __name__ == "__main__":
    main()
