"""`python -m ablate`, and the script `ablate`."""

import logging
import os
import sys


def main() -> None:
    """Run what the command line says; ends with code 2 and one line where the command is wrong."""
    wants_traceback = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from ablate import launcher
    from ablate.config import conf_dir
    from ablate.errors import ConfigError

    notices = logging.StreamHandler()
    notices.setFormatter(logging.Formatter("ablate: %(message)s"))
    notices.setLevel(logging.INFO)
    logging.getLogger("ablate").addHandler(notices)
    logging.getLogger("ablate").setLevel(logging.DEBUG)
    launcher.register()
    entry = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(launcher.task)
    try:
        entry()
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        if wants_traceback:
            raise
        launcher.refuse(error)
    sys.exit(launcher.CohortLauncher.exit_code)


if __name__ == "__main__":
    main()
