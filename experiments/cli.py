"""The command ``mer``: how it starts, and how it ends whatever happens."""

import os
import signal
import sys
import traceback

from data_modules.processes import verbosity, whole_files
from experiments.arguments import parse
from experiments.commands import COMMANDS
from mer import InputError

STATUS_OF_WRONG_INPUT = 2


def main(arguments: list[str] | None = None) -> int:
    """Run a command.

    Returns:
        Exit status: 0; 1 if folds failed; 2 if the input was wrong; 130 if it was interrupted.
    """
    if arguments is None:
        arguments = sys.argv[1:]
        _end_tidily()
    try:
        return _run(arguments)
    except InputError as error:
        if verbosity.is_verbose():
            traceback.print_exc()
        print(f"mer: {error}", file=sys.stderr)
        return STATUS_OF_WRONG_INPUT
    except BrokenPipeError:  # `mer ... | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # where no file of a sweep is written: a log that standard output is sent to, a library's
        if error.errno not in whole_files.FULL:
            raise
        print(
            f"mer: {error.filename or 'a file'} cannot be written: {whole_files.REMEDIES[error.errno]}", file=sys.stderr
        )
        return STATUS_OF_WRONG_INPUT
    except KeyboardInterrupt as interrupt:
        done = f", {interrupt}" if str(interrupt) else ""
        print(f"mer: interrupted{done}; run the same command again to go on", file=sys.stderr)
        return 130


def _end_tidily() -> None:
    """Have no process and no file of this program outlive it: what ends it, a closed terminal too, is as Ctrl-C."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # not if `nohup` has it ignored
            signal.signal(number, interrupt)
    whole_files.use_own_temporary_folder()


def _run(arguments: list[str]) -> int:
    parser, options = parse(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    verbosity.choose(options.quiet, options.verbose)
    if options.command == "sweep":
        return COMMANDS["sweep"](options, main)  # a job of SLURM is this program, too
    return COMMANDS[options.command](options)


if __name__ == "__main__":
    sys.exit(main())
