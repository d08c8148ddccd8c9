"""`python -m ptlearn`: the same as the command `ptlearn`."""

from ptlearn.course.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
