"""`python -m ablate.report runs/<sweep> ...`: rebuild the report of one sweep, or of several together."""

import sys

from ablate.commands.report import main

if __name__ == "__main__":
    sys.exit(main())
