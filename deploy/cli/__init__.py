"""The `deploy` command: parse, call, print.

Nothing heavy is imported here or in the command files: `deploy --help` needs click alone.
"""

from __future__ import annotations

import signal
import sys
import traceback
from types import FrameType

import click

from deploy.cli import (
    analyze,
    bench,
    build,
    calibrate,
    compile,
    correct,
    debug,
    diagnose,
    diff,
    doctor,
    equalize,
    fuse,
    import_device,
    load,
    package,
    parity,
    plugins,
    quantize,
    serve,
    simplify,
    targets,
    verify,
    widen,
)
from deploy.errors import DeployError, one_line

_INTERRUPTED = "interrupted; run the same command again to go on from there"
# signals seen so far
_interrupted: list[int] = []

# `run` reads it from the arguments, so that it also holds where the arguments can't be parsed
verbose_option = click.option(
    "-v", "--verbose", is_flag=True, expose_value=False, help="Show the traceback of an error."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="onnx-deploy", prog_name="deploy")
@verbose_option
def cli() -> None:
    """Take an ONNX model to a vendor engine that is fast, small and provably still right.

    \b
    deploy build model.onnx --target cpu --int8 --data samples/

    Exit codes: 0 ok, 1 failed, 2 usage, 3 the engine missed a parity gate, 130 interrupted.
    """


for command in (
    build.command,
    load.command,
    widen.command,
    simplify.command,
    fuse.command,
    equalize.command,
    calibrate.command,
    quantize.command,
    correct.command,
    compile.command,
    parity.command,
    debug.command,
    diagnose.command,
    analyze.command,
    bench.command,
    doctor.command,
    targets.command,
    plugins.command,
    verify.command,
    package.command,
    serve.command,
    diff.command,
    import_device.command,
):
    cli.add_command(verbose_option(command))
for command in plugins.command.commands.values():
    verbose_option(command)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with the exit code of what happened."""
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    code = run(sys.argv[1:] if arguments is None else arguments)
    # what was to be done is done: an interrupt now must not turn it into a failure
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """The exit code of a command line; errors are printed as one line on standard error."""
    try:
        code = cli.main(arguments, prog_name="deploy", standalone_mode=False, obj=arguments)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "deploy"
        message = one_line(error.format_message()).removesuffix(".")
        return _fail(arguments, f"{message}; see {where} --help", 2)
    except (click.exceptions.Abort, KeyboardInterrupt):
        return _fail(arguments, _INTERRUPTED, 130)
    except DeployError as error:
        if _interrupted:
            return _fail(arguments, _INTERRUPTED, 130)
        return _fail(arguments, one_line(error, 2000), error.exit_code)
    except OSError as error:
        return _fail(arguments, _system(error), 1)
    except MemoryError:
        return _fail(arguments, "out of memory; use a smaller --batch or a machine with more", 1)
    # a defect of ours still ends in one readable line; -v shows the rest
    except Exception as error:
        # native modules turn an interrupt during their import into an ImportError
        if _interrupted:
            return _fail(arguments, _INTERRUPTED, 130)
        kind = type(error).__name__
        return _fail(arguments, f"internal error: {kind}: {one_line(error)}; report it", 1)
    return code if isinstance(code, int) else 0


def _fail(arguments: list[str], message: str, code: int) -> int:
    verbose = "-v" in arguments or "--verbose" in arguments
    if verbose:
        traceback.print_exc()
    hint = "" if verbose or not message.startswith("internal") else " (-v shows where)"
    click.echo(f"error: {message}{hint}", err=True)
    return code


def _system(error: OSError) -> str:
    """The operating system's refusal with the file it is about and what to do."""
    import errno

    where = f"{error.filename}: " if error.filename else ""
    reason = error.strerror or one_line(error)
    advice = {
        errno.ENOSPC: "free some space and run the same command again, finished stages are kept",
        errno.EFBIG: "raise the limit on file sizes (ulimit -f) or choose another place",
        errno.EDQUOT: "free some of your quota and run the same command again",
        errno.EACCES: "choose a place you may write to",
        errno.EPERM: "choose a place you may write to",
        errno.EROFS: "choose a place you may write to",
    }.get(error.errno or 0, "check the path")
    return f"{where}{reason}; {advice}"


def _interrupt(number: int, frame: FrameType | None) -> None:
    _interrupted.append(number)
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
