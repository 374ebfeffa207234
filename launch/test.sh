#!/usr/bin/env bash
# Runs the tests in a virtual environment of the project's own, which it makes.
#
#   bash launch/test.sh [--slow] [--peers] [--all] [arguments of pytest ...]
#
#   --slow   the slow tests too
#   --peers  only the comparisons with libraries that need torch; installs a CPU
#            build of torch and those libraries first
#   --all    everything that needs no accelerator
#   --help   this text
#
#   PYTHON=/path/to/python3  makes the environment with this interpreter
#   VENV=DIR                 the environment's directory, by default .venv
#   WORKERS=N                processes that share the tests, by default one for
#                            each core, four at most; one where arguments of
#                            pytest are given
#   EFFJAX_DATA=DIR          where to look for real data first; tests that need
#                            data are skipped, with a reason, where there is none
#
# For instance: bash launch/test.sh tests/pruning -k topk
set -u -o pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

# Its builds for the CPU bear "+cpu" in their version.
TORCH=2.13.0

slow='' peers='' rest=()
for argument in "$@"; do
  case $argument in
    -h | --help) usage "${BASH_SOURCE[0]}" && exit 0 ;;
    --slow) slow=yes ;;
    --peers) peers=yes ;;
    --all) slow=yes peers=yes ;;
    *) rest+=("$argument") ;;
  esac
done

case $slow,$peers in
  yes,yes) selection=(-m "not gpu") ;;
  yes,) selection=(-m "not peers and not gpu") ;;
  ,yes) selection=(-m peers) ;;
  *) selection=() ;;
esac

if [ "${#rest[@]}" -gt 0 ]; then
  workers=${WORKERS:-1}
else
  workers=${WORKERS:-$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)}
  [ -n "${WORKERS:-}" ] || [ "$workers" -le 4 ] || workers=4
fi
case $workers in
  1) parallel=() ;;
  # A file stays with one process, which compiles its programs once; the order
  # of the files is that of tests/conftest.py.
  [2-9] | [1-9][0-9])
    parallel=(-n "$workers" --dist loadfile --no-loadscope-reorder)
    ;;
  *) fail "WORKERS=$workers is not a number of processes from 1 to 99" ;;
esac

say "1/2 environment"
environment test
if [ -n "$peers" ]; then
  if ! "$PY" -c 'import importlib.metadata as m; m.version("torch")' \
    2>/dev/null; then
    say "  pip installs torch $TORCH"
    if ! install "torch==$TORCH+cpu"; then
      [ "$(uname -s)" != Linux ] ||
        say "  there is no build for the CPU alone where pip looks; the one it" \
          "takes now brings CUDA along, about 3 GB. To avoid that, stop this" \
          "and run it with PIP_FIND_LINKS= or PIP_EXTRA_INDEX_URL= naming a" \
          "place that has torch $TORCH+cpu"
      install "torch==$TORCH" || fail "pip could not install torch $TORCH;" \
        "$VENV/install.log has what it said"
    fi
  fi
  environment test peers
fi

say "2/2 tests"
exec "$PY" -m pytest ${selection[@]+"${selection[@]}"} \
  ${parallel[@]+"${parallel[@]}"} ${rest[@]+"${rest[@]}"}
