# shellcheck shell=bash
# Read by the scripts beside it with `source`: finds a Python, makes the
# project's virtual environment and keeps it complete.
#
#   PYTHON=  the interpreter to make it with, 3.11 or newer; by default the
#            newest that is found and runs
#   VENV=    its directory, by default .venv in the project
#
# Sets ROOT, the project's directory, and makes it the current one; after
# `environment EXTRA ...`, PY is the environment's interpreter.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

say() {
  printf '%s\n' "$*"
}

fail() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 2
}

# Prints the comment at the top of a script, which is its help.
usage() {
  awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$1"
}

# Makes a path with a slash independent of the current directory.
_absolute() {
  case $1 in
    /* | "") printf '%s' "$1" ;;
    */*) printf '%s/%s' "$PWD" "$1" ;;
    *) printf '%s' "$1" ;;
  esac
}

# Prints the version of an interpreter; fails if it does not run, as a shim of a
# version manager may.
version_of() {
  "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null
}

_supported() {
  case $1 in
    3.1[1-9].* | 3.[2-9][0-9].*) return 0 ;;
    *) return 1 ;;
  esac
}

# Sets `interpreter` to what PYTHON= names, or to the newest that works.
_find_python() {
  local candidate version old=""
  if [ -n "${PYTHON:-}" ]; then
    version=$(version_of "$PYTHON") || fail "PYTHON=$PYTHON does not run"
    _supported "$version" ||
      fail "PYTHON=$PYTHON is Python $version; effjax needs 3.11 or newer"
    interpreter=$PYTHON
    return
  fi
  for candidate in python3.13 python3.12 python3.11 python3 python; do
    version=$(version_of "$candidate") || continue
    if _supported "$version"; then
      interpreter=$candidate
      return
    fi
    old="$old $candidate is $version;"
  done
  fail "no Python 3.11 or newer was found here;${old} name one with" \
    "PYTHON=/path/to/python3"
}

# Makes the environment, unless there is one that works and is of the version
# that PYTHON= asks for.
_make() {
  local version wanted
  if version=$(version_of "$VENV/bin/python") && _supported "$version" &&
    "$VENV/bin/python" -c 'import pip' 2>/dev/null; then
    [ -n "${PYTHON:-}" ] || return 0
    _find_python
    wanted=$(version_of "$interpreter")
    [ "$wanted" != "$version" ] || return 0
    say "  $VENV has Python $version, PYTHON= is $wanted: made anew"
  elif [ -e "$VENV" ] && [ ! -e "$VENV/pyvenv.cfg" ] &&
    [ -n "$(ls -A "$VENV")" ]; then
    fail "$VENV is not a virtual environment, and not empty; choose another" \
      "directory with VENV="
  fi
  _find_python
  say "  $VENV with Python $(version_of "$interpreter")"
  if "$interpreter" -c 'import ensurepip' 2>/dev/null; then
    "$interpreter" -m venv --clear "$VENV"
  elif "$interpreter" -m pip --version >/dev/null 2>&1; then
    # Debian parts ensurepip from Python; its pip can fill an environment too.
    "$interpreter" -m venv --clear --without-pip "$VENV"
    "$interpreter" -m pip --quiet --python "$VENV/bin/python" install pip
  else
    fail "$interpreter has neither ensurepip nor pip; on Debian that is the" \
      "package python3-venv. PYTHON= names another interpreter"
  fi
}

# Runs pip install; its output goes to a log and is shown as a few lines.
install() {
  local log=$VENV/install.log count=0 line name
  "$PY" -m pip install --disable-pip-version-check --no-input \
    --progress-bar off "$@" 2>&1 | while IFS= read -r line; do
    printf '%s\n' "$line" >>"$log"
    case $line in
      "Collecting "* | "Processing "*)  # the latter are files on this machine
        count=$((count + 1))
        name=${line#* }
        name=${name%%[ <>=!~;(]*}
        if [ -t 1 ]; then
          printf '\r\033[K  package %d: %s' "$count" "${name##*/}"
        elif [ $((count % 40)) -eq 0 ]; then
          say "  $count packages found"
        fi
        ;;
      "Installing collected packages"*)
        [ ! -t 1 ] || printf '\r\033[K'
        [ "$count" -eq 0 ] || say "  installing $count packages"
        ;;
    esac
  done
  local status=${PIPESTATUS[0]}
  [ ! -t 1 ] || printf '\r\033[K'
  return "$status"
}

# What the installation was made from; another content asks for pip again.
_stamp() {
  {
    cat pyproject.toml
    say "$(version_of "$PY") $ROOT"
  } | cksum
}

# environment EXTRA ...: makes the environment hold effjax with these extras.
# Asks pip only if pyproject.toml has changed since or something is missing, and
# goes on without it if nothing is.
environment() {
  local extras stamp missing start=$SECONDS
  extras=$(IFS=, && printf '%s' "$*")
  # Two scripts at once would spoil each other's work; the lock is the directory.
  if command -v flock >/dev/null; then
    exec 9<"$ROOT"
    flock 9
  fi
  _make || fail "the virtual environment $VENV could not be made"
  PY=$VENV/bin/python
  stamp=$(_stamp)
  if [ "$(cat "$VENV/stamp" 2>/dev/null)" != "$stamp" ] ||
    ! "$PY" -m launch.installed "$@" >/dev/null 2>&1; then
    say "  pip installs effjax[$extras]; all it says goes to" \
      "$VENV/install.log"
    : >"$VENV/install.log"
    if install --editable ".[$extras]"; then
      say "$stamp" >"$VENV/stamp"
    elif missing=$("$PY" -m launch.installed "$@"); then
      say "  pip failed, but everything is there already; going on"
    else
      grep -v '^WARNING' "$VENV/install.log" | tail -n 5 >&2
      fail "pip could not install what is missing:" \
        "$(printf '%s' "$missing" | tr '\n' ',' | sed 's/,/, /g')"
    fi
  fi
  if command -v flock >/dev/null; then
    exec 9<&-
  fi
  say "  Python $(version_of "$PY"), jax $("$PY" -c \
    'import importlib.metadata as m; print(m.version("jax"))') in $VENV" \
    "($((SECONDS - start)) s)"
}

PYTHON=$(_absolute "${PYTHON:-}")
VENV=$(_absolute "${VENV:-}")
cd "$ROOT" || exit 2
VENV=${VENV:-.venv}
