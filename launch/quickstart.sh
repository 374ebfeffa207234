#!/usr/bin/env bash
# Runs every study in miniature on real data and writes one report.
#
#   bash launch/quickstart.sh [--fresh]
#
#   --fresh  removes the results of earlier quickstarts first
#   --help   this text
#
#   PYTHON=/path/to/python3  makes the environment with this interpreter
#   VENV=DIR                 the environment's directory, by default .venv
#   EFFJAX_DATA=DIR          where to look for the data first; what is not there
#                            is fetched into the user's cache
#
# The same command again takes up what was interrupted and loads what is done.
# Exit status: 0 done; 1 a study failed, or none could be run; 2 a user's error.
set -u -o pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

# A study a line: its name, its config, the data that it needs.
STUDIES=(
  "bias configs/bias/fashion.py:quick fashion_mnist"
  "adult configs/bias/tabular.py:quick adult"
  "faces configs/bias/faces.py:quick age_gender lfw_subset"
  "spade configs/spade/fashion.py:miniature fashion_mnist"
  "personalize configs/personalize/synthetic.py:miniature smollm2"
  "edit configs/edit/iid.py:miniature"
)
PLACE=runs/quickstart

fresh=''
for argument in "$@"; do
  case $argument in
    -h | --help) usage "${BASH_SOURCE[0]}" && exit 0 ;;
    --fresh) fresh=yes ;;
    *) fail "unknown argument $argument; --help lists what there is" ;;
  esac
done
if [ -n "$fresh" ]; then
  rm -rf "$PLACE" || fail "$PLACE could not be removed"
fi

say "1/4 environment"
environment report language mail

say "2/4 data"
absent=" "
for name in $(printf '%s\n' "${STUDIES[@]}" | cut -d ' ' -f 3- | tr ' ' '\n' |
  sort -u); do
  "$PY" -m launch.fetch "$name" || absent="$absent$name "
done

say "3/4 studies"
# What is compiled is kept for the next time, in a directory of the user's own.
case ${XDG_CACHE_HOME:-} in
  /*) cache=$XDG_CACHE_HOME/effjax/jax ;;
  *) cache=${HOME:?}/.cache/effjax/jax ;;
esac
ran=0 failed=0 number=0 skipped=()
for line in "${STUDIES[@]}"; do
  read -r study config sources <<<"$line"
  number=$((number + 1)) lacks=""
  for name in $sources; do
    case $absent in *" $name "*) lacks="$lacks $name" ;; esac
  done
  if [ -n "$lacks" ]; then
    skipped+=("$study: the data$lacks could not be fetched")
    say "  [$number/${#STUDIES[@]}] SKIPPED ${skipped[${#skipped[@]} - 1]}"
    continue
  fi
  say "  [$number/${#STUDIES[@]}] $study: $config"
  status=0 start=$SECONDS
  "$PY" -m launch.run --config="$config" --workdir="$PLACE/$study" \
    --jax_cache_dir="$cache" || status=$?
  case $status in
    0) ran=$((ran + 1)) && say "  $study: $((SECONDS - start)) s" ;;
    130 | 143) exit "$status" ;;
    *)
      failed=$((failed + 1))
      skipped+=("$study: it failed with exit status $status")
      say "  FAILED $study; if its config has changed since an earlier" \
        "quickstart, --fresh starts over"
      ;;
  esac
done

say "4/4 report"
"$PY" -m launch.overview "$PLACE" \
  ${skipped[@]+"${skipped[@]/#/--skipped=}"} >/dev/null || exit 1
for reason in ${skipped[@]+"${skipped[@]}"}; do
  say "  SKIPPED $reason"
done
say "$SECONDS s; open this file in a browser:"
say "$ROOT/$PLACE/report.html"
[ "$ran" -gt 0 ] && [ "$failed" -eq 0 ]
