"""How a Hydra command starts: signals, log messages, the entry point, and errors in one line."""

import atexit
import gc
import logging
import os
import sys

import ablate
from ablate import interrupts
from ablate.errors import ConfigError

# What is said before the keys, which all commands share.
_ABOUT = {
    "run": "",
    "examine": """\
ablate.check checks gradient and sign by numbers, as every trial is before it trains, and trains nothing.

  python -m ablate.check loss=mse lr=0.1            one trial; code 1 where something is found
  python -m ablate.check -m loss=mse,ce             each of a sweep that differs

Presets and keys are those of the command that trains:

""",
}


def command(action: str) -> None:
    """Call a function of `ablate.commands.launcher`, `run` or `examine`, with the trials of the command line."""
    interrupts.listen()
    interrupts.outlive_readers()
    # At exit Python collects garbage over all objects: with MLflow loaded there are 400,000, which takes 0.6 s.
    atexit.register(gc.freeze)
    try:
        _command(action)
    except KeyboardInterrupt:
        print("ablate: interrupted", file=sys.stderr)
        sys.exit(130)


def _command(action: str) -> None:
    if not {"-h", "--he", "--hel", "--help"}.isdisjoint(sys.argv[1:]):
        _help(action)
        return
    if "--version" in sys.argv[1:]:
        print(f"ablate {ablate.__version__}")
        return
    wants_traceback = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"
    import hydra

    from ablate.commands import launcher, refusals
    from ablate.config.groups import conf_dir

    if wrong := refusals.no_such_option(sys.argv[1:]):
        refusals.refuse(ConfigError(wrong))
    # Hydra's parser needs all overrides together: allow -m anywhere between them.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda word: word not in ("-m", "--multirun"))

    notices = logging.StreamHandler()
    notices.setFormatter(logging.Formatter("ablate: %(message)s"))
    notices.setLevel(logging.INFO)
    logging.getLogger("ablate").addHandler(notices)
    logging.getLogger("ablate").setLevel(logging.DEBUG)
    launcher.register(getattr(launcher, action))
    entry = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(launcher.task)
    try:
        launcher.start(entry)
    except launcher.TrialFailedError as error:
        refusals.refuse(error, code=1)
    except Exception as error:
        if wants_traceback or not refusals.is_mistake(error):
            raise
        refusals.refuse(error)
    sys.exit(launcher.CohortLauncher.exit_code)


def _help(action: str) -> None:
    # Hydra would compose a configuration first, and copy all that is declared for each of its groups: twice the time.
    from ablate.config.help import help_text

    print(f"{_ABOUT[action]}{help_text()}")
