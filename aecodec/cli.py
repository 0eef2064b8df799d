"""The command `aecodec`: options and their help texts, exit statuses, and nothing else.

    batch plans which files, jobs does the work, console says what became of it

Only click and the standard library are imported here, so that help and `info` are immediate.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

import click
from click.core import ParameterSource

from aecodec import __version__, batch, console, container, files, jobs, rate
from aecodec.errors import AecError

Command = TypeVar("Command", bound=Callable[..., Any])

FAILED, USAGE, INTERRUPTED = 1, 2, 130
_TARGETS = ("quality", "size", "bpp", "psnr", "ssimulacra2")

STATUSES = """\b
Exit status:
  0    everything was done
  1    at least one file failed; the others were done
  2    the command line was not understood
  3    a damaged file was written in part (--best-effort)
  130  interrupted; no file is left half written"""


def main() -> NoReturn:
    """Entry point of the command."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # a name that the terminal cannot show must not end a batch
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    status = run(sys.argv[1:])
    if (
        not jobs.gate.closed
    ):  # else workers may be in the middle of a picture: nobody waits for them
        atexit._run_exitfuncs()  # of libraries: matplotlib has a folder to remove
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            if stream is not None:
                stream.flush()
    # Nothing is left to do: taking interpreter and graphs apart would add a tenth to the time of a
    # single picture.
    os._exit(status)


def run(arguments: Sequence[str]) -> int:
    """Run the command and return its exit status; errors become one line each."""
    try:
        status = _invoke(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except click.UsageError as error:
        error.show()
        return USAGE
    except click.ClickException as error:
        console.error(error.format_message())
        return error.exit_code
    except AecError as error:
        console.error(str(error))
        return FAILED
    except (KeyboardInterrupt, click.Abort):
        jobs.gate.close()
        return INTERRUPTED
    except BrokenPipeError:
        return _reader_gone()
    except OSError as error:
        console.error(f"standard output: {files.reason(error)}")
        return _reader_gone()


def _invoke(arguments: Sequence[str]) -> int:
    if "_AECODEC_COMPLETE" in os.environ:
        cli.main(list(arguments), prog_name="aecodec")  # answers the shell and exits
    # Not cli.main() otherwise: it ends the program itself where a pipe breaks.
    try:
        with cli.make_context("aecodec", list(arguments)) as context:
            status = cli.invoke(context)
    except click.exceptions.Exit as ended:
        status = ended.exit_code
    return status if isinstance(status, int) else 0


def _reader_gone() -> int:
    """Stop quietly: whoever read the output has closed it, or it cannot be written."""
    jobs.gate.close()
    with contextlib.suppress(OSError):
        # What is still buffered would fail once more when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FAILED


def _show_version(context: click.Context, parameter: click.Parameter, asked: bool) -> None:
    if not asked or context.resilient_parsing:
        return
    from aecodec import weights

    try:
        model = f"model {weights.id_of()}"
    except AecError:
        model = "no model installed"
    click.echo(f"aecodec {__version__}, format {container.VERSION}, {model}")
    context.exit()


@click.group(
    context_settings={"auto_envvar_prefix": "AECODEC", "help_option_names": ["-h", "--help"]},
    epilog=STATUSES,
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False,
    callback=_show_version, help="Show the versions of package, format and model.")  # fmt: skip
def cli() -> None:
    """A learned lossy image codec.

    \b
      aecodec compress photo.png                 writes photo.aec
      aecodec decompress photo.aec back.png
      aecodec info photo.aec

    Every option can be given a default by an environment variable:
    AECODEC_COMPRESS_QUALITY=60 is `aecodec compress --quality 60`.
    """


def _quality(context: click.Context, parameter: click.Parameter, value: float) -> float:
    if not 0 <= value <= 100:  # also refuses "nan"
        raise click.BadParameter(f"{value:g} is not between 0 and 100")
    return value


def _size(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    try:
        return rate.parse_size(value) if value is not None else None
    except AecError as error:
        raise click.BadParameter(str(error)) from error


def _metadata(context: click.Context, parameter: click.Parameter, value: str) -> str:
    return value.lower()


def _shared(command: Command) -> Command:
    """The options that both directions have."""
    for option in reversed((
        click.option("-o", "--output", metavar="FILE|FOLDER|-", type=click.Path(allow_dash=True),
            help="Where to write; a folder is made if it does not exist. Every argument is "
            "an input then."),
        click.option("-r", "--recursive", is_flag=True,
            help="Take the files in folders too; the output folder mirrors the tree."),
        click.option("-f", "--force", is_flag=True, help="Replace outputs that exist."),
        click.option("--skip-existing", is_flag=True,
            help="Leave outputs that exist as they are, without an error."),
        click.option("-j", "--jobs", type=click.IntRange(1), metavar="N",
            help="Files worked on at once.  [default: one per core]"),
        click.option("--device", type=click.Choice(["cpu", "cuda", "auto"], case_sensitive=False),
            help="Where the networks run; files do not depend on it.  "
            "[default: AECODEC_DEVICE, else cpu]"),
        click.option("--max-pixels", type=click.IntRange(1), default=container.MAX_PIXELS,
            metavar="N", show_default=True, help="Refuse larger pictures."),
        click.option("--json", "as_json", is_flag=True,
            help="Print one JSON object per file on standard output."),
        click.option("--quiet", is_flag=True, help="Print nothing but errors."),
    )):  # fmt: skip
        command = option(command)
    return command


@cli.command(epilog="""\b
Examples:
  aecodec compress photo.png                     photo.aec beside it
  aecodec compress photo.png small.aec -q 40
  aecodec compress *.jpg -o out/ --skip-existing
  aecodec compress -r photos -o archive          the tree below photos, in archive
  aecodec compress photo.png --size 60k          the best quality in 60,000 bytes
  aecodec compress photo.png -e 6                a smaller file, more slowly
  aecodec compress photo.png -m small            the same, and slower to decode
  convert photo.heic png:- | aecodec compress - photo.aec""")  # fmt: skip
@click.argument("arguments", metavar="IN... [OUT.aec|FOLDER|-]", nargs=-1, required=True,
    type=click.Path(allow_dash=True))  # fmt: skip
@click.option("-q", "--quality", type=float, default=rate.DEFAULT_QUALITY, show_default=True,
    metavar="0..100", callback=_quality,
    help="Higher is better and larger; fractions count.")  # fmt: skip
@click.option("--size", metavar="BYTES", callback=_size,
    help="Best quality in at most so many bytes (60000, 60k, 1.5M, 60KiB).")  # fmt: skip
@click.option("--bpp", type=float, metavar="BITS",
    help="Best quality in at most so many bits per pixel.")  # fmt: skip
@click.option("--psnr", type=float, metavar="DB", help="Smallest file of this PSNR.")
@click.option("--ssimulacra2", type=float, metavar="SCORE",
    help="Smallest file of this score (70: good, 90: no loss is seen); "
    "needs the package ssimulacra2.")  # fmt: skip
@click.option("-e", "--effort", type=click.IntRange(1, 9), metavar="1..9",
    help="Time for smaller files, from fast to slow.  "
    "[default: AECODEC_EFFORT, else 3]")  # fmt: skip
@click.option("-m", "--model", metavar="NAME",
    help="small: smaller files that decode in twice the time; or a model's id.  "
    "[default: AECODEC_MODEL, else default]")  # fmt: skip
@click.option("--time-limit", type=click.FloatRange(0, min_open=True), metavar="SECONDS",
    help="End the search of efforts 5 to 9 then, with the best it has found.")  # fmt: skip
@click.option("--metadata", type=click.Choice(["all", "icc", "none"], case_sensitive=False),
    default="all", show_default=True, callback=_metadata,
    help="What to keep: colour profile, EXIF and XMP; only the profile; nothing.")  # fmt: skip
@click.option("--first-frame", is_flag=True,
    help="Take the first picture of an animation instead of refusing it.")  # fmt: skip
@click.option("--verify/--no-verify", default=None,
    help="Decode every result back before it is written, and measure its PSNR.  "
    "[default: verify, unless --quiet]")  # fmt: skip
@_shared
@click.pass_context
def compress(context: click.Context, /, arguments: tuple[str, ...], **options: Any) -> int:
    """Compress pictures to .aec files.

    IN is a picture in any format that Pillow reads, a folder (with -r), a pattern such as
    "*.png", or - for standard input. The last argument is the output if it ends in .aec, is a
    folder, or is - for standard output. Without one, photo.png becomes photo.aec beside it.

    What repeats itself, as text, screens and drawings do, is kept exactly where that takes no more
    bytes: the whole picture, or parts of it.

    Prints bytes, ratio to the file read, bits per pixel, quality, PSNR (or "exact") and the seconds
    taken to compress.
    """
    from aecodec import effort, weights

    verify = options["verify"]
    settings = jobs.Compression(
        quality=options["quality"],
        target=_target(context, options),
        metadata=options["metadata"],
        max_pixels=options["max_pixels"],
        first_frame=options["first_frame"],
        verify=not options["quiet"] if verify is None else verify,
        # Refused once, and not for every file.
        effort=effort.level(options["effort"]).number,
        model=weights.id_of(options["model"] or ""),
        time_limit=options["time_limit"] or 0.0,
    )
    return _run(batch.compressing(), jobs.compress, settings, arguments, options)


@cli.command(epilog="""\b
Examples:
  aecodec decompress photo.aec                   photo.png beside it
  aecodec decompress photo.aec photo.jpg
  aecodec decompress *.aec -o out/ --format webp
  curl -s https://example.org/photo.aec | aecodec decompress - - | display""")  # fmt: skip
@click.argument("arguments", metavar="IN.aec... [OUT|FOLDER|-]", nargs=-1, required=True,
    type=click.Path(allow_dash=True))  # fmt: skip
@click.option("--format", type=click.Choice(list(jobs.FORMATS), case_sensitive=False),
    help="Format of the pictures.  [default: by the suffix of the output, else png]")  # fmt: skip
@click.option("--best-effort", is_flag=True,
    help="Write what can be decoded of a damaged file, and exit with status 3.")  # fmt: skip
@_shared
def decompress(arguments: tuple[str, ...], **options: Any) -> int:
    """Decompress .aec files to pictures.

    IN is an .aec file, a folder (with -r), a pattern such as "*.aec", or - for standard input.
    The last argument is the output if it is a folder, - for standard output, or anything that
    does not look like an .aec file. Without one, photo.aec becomes photo.png beside it.
    """
    format = (options["format"] or "").lower()
    settings = jobs.Decompression(format, options["max_pixels"], options["best_effort"])
    direction = batch.decompressing(jobs.FORMATS[format or "png"][1])
    return _run(direction, jobs.decompress, settings, arguments, options)


def _target(context: click.Context, options: dict[str, Any]) -> rate.Target | None:
    """The one target asked for; the command line goes before the environment."""
    for source in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT):
        given = [name for name in _TARGETS if context.get_parameter_source(name) is source]
        if len(given) > 1:
            names = " and ".join(f"--{name}" for name in given)
            raise click.UsageError(f"{names} exclude each other")
        if given == ["quality"]:
            return None
        if given:
            try:
                return rate.Target(given[0], options[given[0]])  # type: ignore[arg-type]
            except AecError as error:
                raise click.UsageError(f"--{given[0]}: {error}") from error
    return None


def _run(
    direction: batch.Direction,
    work: Callable[..., Callable[[batch.Job], jobs.Outcome]],
    settings: Any,
    arguments: Sequence[str],
    options: dict[str, Any],
) -> int:
    """Plan, work and report: the exit status."""
    if options["force"] and options["skip_existing"]:
        raise click.UsageError("--force and --skip-existing exclude each other")
    if options["device"]:
        os.environ["AECODEC_DEVICE"] = options["device"].lower()
    inputs, output = batch.split_output(arguments, options["output"], direction)
    try:
        plan = batch.plan(inputs, output, direction, recursive=options["recursive"])
    except batch.UsageError as error:
        raise click.UsageError(str(error)) from error
    payload = any(job.target == batch.PIPE for job in plan.jobs)
    if payload and options["as_json"]:
        raise click.UsageError("--json and the file itself cannot both go to standard output")
    say = console.Console(
        len(plan.jobs) + len(plan.failures),
        quiet=options["quiet"],
        as_json=options["as_json"],
        payload=payload,
    )
    for path, reason in plan.failures:
        message = f"{path}: {reason}"
        say.take(jobs.Outcome(batch.Job(path, ""), "failed", message=message))
    writing = jobs.Writing(options["force"], options["skip_existing"])
    workers = min(options["jobs"] or jobs.cores(), max(1, len(plan.jobs)))
    settings = jobs.share_cores(settings, workers)
    if say.progress and isinstance(settings, jobs.Compression):
        settings = dataclasses.replace(settings, progress=say.progress)
    jobs.run(plan.jobs, work(settings, writing), workers, say.take)
    say.finish()
    return say.status


@cli.command(epilog="""\b
Examples:
  aecodec info photo.aec
  aecodec info --json *.aec | jq .bpp""")  # fmt: skip
@click.argument("paths", metavar="FILE...", nargs=-1, required=True,
    type=click.Path(allow_dash=True))  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per file.")
def info(paths: tuple[str, ...], as_json: bool) -> int:
    """Show what .aec files say of themselves: size, quality, model, bits per pixel, chunks.

    Only the files are read: no model is opened and nothing is decoded.
    """
    from aecodec import details

    return details.show(paths, as_json)


@cli.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench(arguments: tuple[str, ...]) -> int:
    """Measure codecs side by side (needs the extra `bench`)."""
    # Imported here, and not for the list of commands: it takes seconds.
    try:
        from aecodec.bench.cli import bench as command
    except ImportError as error:
        raise click.ClickException(f"{error}: pip install 'aecodec[bench]'") from error
    result = command.main(
        list(arguments),
        prog_name="aecodec bench",
        standalone_mode=False,
        auto_envvar_prefix="AECODEC_BENCH",
    )
    return result if isinstance(result, int) else 0
