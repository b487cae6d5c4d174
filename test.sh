#!/usr/bin/env bash
# All checks and tests, in .venv: ./test.sh [--fast] [pytest arguments]
#   --fast    leave out the slow tests and the coverage limit
#   PYTHON=   the interpreter to use (default python3), 3.8 to 3.12; only 3.9 and later measure coverage
set -euo pipefail
cd "$(dirname "$0")"
. .ci/environment.sh

fast=
if [ "${1:-}" = --fast ]; then fast=1; shift; fi

python=$(find_python)
make_environment .venv "$python" "[dev]"
bin=$PWD/.venv/bin
export PATH="$bin:$PATH" MPLBACKEND=Agg
unset PYTHONPATH

step() { printf '\n== %s\n' "$*"; }

step "ruff";    ruff check .
step "mypy";    mypy
step "imports"; lint-imports | tail -n 20
step "no syntax or library newer than Python 3.8"
vermin --quiet --no-tips --violations --target=3.8- --backport typing --exclude tomllib pyp_cspr setup.py

coverage=(--cov --cov-report=)
if ! python -c 'import sys; sys.exit(sys.version_info < (3, 9))'; then coverage=(); fi
rm -f .coverage .coverage.*

step "kernels with compilation off"
NUMBA_DISABLE_JIT=1 pytest -q -m "kernel and not slow" ${coverage[@]+"${coverage[@]}"}

append=(${coverage[@]+"${coverage[@]}" --cov-append})
if [ -n "$fast" ]; then
  step "fast tests"
  exec pytest -m "not slow" -n 2 --dist loadfile --durations=10 ${append[@]+"${append[@]}"} "$@"
fi
step "fast tests, and their coverage"
if [ ${#append[@]} -gt 0 ]; then append+=(--cov-report=term --cov-fail-under=90); fi
pytest -m "not slow" -n 2 --dist loadfile --durations=10 ${append[@]+"${append[@]}"} "$@"
# Several at a time, file by file: many wait for Scipion, a queue or a window. Coverage is not measured, which would slow down
# every process that they start.
step "slow tests"
exec pytest -m slow -n 3 --dist loadfile --durations=10 "$@"
