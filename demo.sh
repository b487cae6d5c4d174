#!/usr/bin/env bash
# Installs into .venv, makes a sample data set with wrong poses and tilts, refines it and says where everything is:
#   ./demo.sh [--scipion] [FOLDER]
#   --scipion   the same as protocols of a Scipion project, without its windows: sample, refine, filter, refine, post-process
set -euo pipefail
here=$PWD
cd "$(dirname "$0")"
. .ci/environment.sh

scipion=
if [ "${1:-}" = --scipion ]; then scipion=1; shift; fi
out=${1:-$PWD/demo-output}
case $out in /*) ;; *) out=$here/$out ;; esac
python=$(find_python)
make_environment .venv "$python" ""
export PATH="$PWD/.venv/bin:$PATH"
unset PYTHONPATH

if [ -n "$scipion" ]; then
  cores=$(python -c 'import os; print(os.cpu_count() or 1)')
  exec python -m pyp_cspr.workflow "$out/scipion" "threads=$cores" "chunk_threads=$(( cores > 2 ? cores / 2 : 1 ))"
fi

errors=(--pose-error 4 --position-error 8 --tilt-error 0.5 --axis-error 0.5 --shift-error 4)
[ -e "$out/sample/truth.star" ] || cspr sample "$out/sample" "${errors[@]}"
cspr check "$out/sample" --reference "$out/sample/reference.mrc"
cspr refine "$out/sample" --reference "$out/sample/reference.mrc" --out "$out/run" --symmetry C3
cspr compare "$out/run" "$out/sample/truth.star" --symmetry C3

to_truth() { cspr fsc "$1" "$out/sample/reference.mrc" --mask b | tail -n 1 | sed 's/.*curve: //'; }
echo
echo "FSC with the true map falls to 0.5 at: before $(to_truth "$out/run/iterations/000/map.mrc"), after $(to_truth "$out/run/map.mrc")"

cat <<EOF

Sample data    $out/sample
Map            $out/run/map.mrc  (sharpened: map_sharpened.mrc)
Half maps      $out/run/half1.mrc  $out/run/half2.mrc
FSC            $out/run/fsc.csv
Refined stars  $out/run/optimisation_set.star
Report         $out/run/report.html  (open it in a browser)
EOF
