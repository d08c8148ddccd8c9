#!/usr/bin/env bash
# Gradescope runs this once, as root, when it builds the image: Python, and the course with all that it needs.
set -euo pipefail
autograder=${AUTOGRADER:-/autograder}
course=$autograder/source/course
torch_index=${TORCH_INDEX:-}  # the address of PyTorch's own index of CPU builds saves 2.5 GB; see the course's README

python=python3
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || python=python3.11
apt-get update
apt-get install -y --no-install-recommends "$python" "$python-venv"
"$python" -m venv "$autograder/venv"
if [ -n "$torch_index" ]; then
    "$autograder/venv/bin/pip" install -c "$course/constraints.txt" --no-deps --index-url "$torch_index" torch
fi
"$autograder/venv/bin/pip" install -c "$course/constraints.txt" -e "$course[dev]"
