# Sourced by demo.sh, test.sh and .ci/run: finds a Python and makes, or reuses, a virtual environment. Works in bash 3.2 as well.

python_fits() { # INTERPRETER: does it start, and is it one that the package supports?
  "$1" -c 'import sys; sys.exit(not (3, 8) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1
}

find_python() { # prints $PYTHON, python3 or the newest python3.X that fits; otherwise one line on stderr and status 2
  local candidate
  if [ -n "${PYTHON:-}" ]; then
    if python_fits "$PYTHON"; then echo "$PYTHON"; return 0; fi
    echo "PYTHON=$PYTHON: not a working Python from 3.8 to 3.12; set PYTHON to one" >&2
    return 2
  fi
  for candidate in python3 python3.12 python3.11 python3.10 python3.9 python3.8; do
    if python_fits "$candidate"; then echo "$candidate"; return 0; fi
  done
  echo "no Python from 3.8 to 3.12 found (python3 is $(python3 --version 2>&1 | head -n 1)); install one or set PYTHON" >&2
  return 2
}

make_environment() { # FOLDER INTERPRETER EXTRAS: a virtual environment with this checkout installed, made again when setup.py changes
  local folder=$1 interpreter=$2 extras=$3 stamp
  stamp="$(cksum < setup.py) $("$interpreter" --version 2>&1) $PWD"
  # An environment with the extras of developers serves those who want none.
  if [ -x "$folder/bin/python" ] && grep -qsxF "$stamp" "$folder/installed$extras" "$folder/installed[dev]"; then return 0; fi
  echo "installing into $folder (a minute or two) ..." >&2
  "$interpreter" -m venv --clear "$folder" || {
    echo "$interpreter cannot make virtual environments; install its venv module (Debian: python3-venv)" >&2
    return 2
  }
  # The environment must not see packages of a surrounding one.
  env -u PYTHONPATH "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-input -e ".$extras" || return 1
  echo "$stamp" > "$folder/installed$extras"
}
