"""``accelerate launch``, and at its end the exit status of the script that it launched, without a traceback of its own.

The script has said what there is to say, and accelerate would end in a traceback of the launcher, or with --quiet in
the status 1 whatever happened. And Ctrl-C, which the launcher gets beside the script, does not end the launcher first:
the script saves a checkpoint and says so before the prompt comes back.
"""

from __future__ import annotations

import signal
import subprocess
import sys

from accelerate.commands.launch import launch_command, launch_command_parser
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError


def launch() -> None:
    """What ``accelerate launch`` does with the arguments of the command line."""
    parser = launch_command_parser()
    # As if the command line had said it: the config file, which asks for quiet, does not change it any more, and a
    # script that fails raises here with its status.
    parser.set_defaults(quiet=False, nondefault={"quiet"})
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, lambda *_: None)  # not SIG_IGN, which the script would inherit
    try:
        launch_command(arguments)
    except subprocess.CalledProcessError as error:
        sys.exit(status_of(error.returncode))
    except ChildFailedError as error:  # of several processes
        sys.exit(status_of(error.get_first_failure()[1].exitcode))
    except SignalException as error:  # their launcher has told them, and waited
        sys.exit(128 + int(error.sigval))


def status_of(code: int) -> int:
    """What a shell gives for a process that ended with `code`, negative after a signal."""
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    launch()
