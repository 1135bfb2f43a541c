"""`python -m ablate`, and the script `ablate`."""

import atexit
import gc
import logging
import os
import sys

from ablate import interrupts


def main() -> None:
    """Train what the command line says; ends with code 2 and one line where the command is wrong."""
    command("run")


def command(action: str) -> None:
    """Do with the trials of the command line what a function of `ablate.launcher` does: `run` or `examine`."""
    interrupts.listen()
    # At its end Python goes through all objects for garbage: with MLflow loaded they are 400,000, and it takes 0.6 s.
    atexit.register(gc.freeze)
    try:
        _command(action)
    except KeyboardInterrupt:
        print("ablate: interrupted", file=sys.stderr)
        sys.exit(130)


def _command(action: str) -> None:
    # Hydra's parser takes overrides in one piece only: -m may stand anywhere between them.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda word: word not in ("-m", "--multirun"))
    wants_traceback = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"
    import hydra

    from ablate import launcher
    from ablate.config import conf_dir

    notices = logging.StreamHandler()
    notices.setFormatter(logging.Formatter("ablate: %(message)s"))
    notices.setLevel(logging.INFO)
    logging.getLogger("ablate").addHandler(notices)
    logging.getLogger("ablate").setLevel(logging.DEBUG)
    launcher.register(getattr(launcher, action))
    entry = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(launcher.task)
    try:
        entry()
    except launcher.TrialFailedError as error:
        launcher.refuse(error, code=1)
    except Exception as error:
        if wants_traceback or not launcher.is_mistake(error):
            raise
        launcher.refuse(error)
    sys.exit(launcher.CohortLauncher.exit_code)


if __name__ == "__main__":
    main()
