"""`python -m ablate.explain runs/<sweep>/<trial>`: what is known about a trial, and what to try next."""

import sys

from ablate import interrupts


def main() -> None:
    """Explain the trial named on the command line; exit code 2 and one line if there is no such trial."""
    interrupts.listen()
    try:
        # It loads for a second, in which Ctrl-C may come.
        from ablate.commands import explain

        explain.main()
    except KeyboardInterrupt:
        print("ablate: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
