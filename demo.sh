#!/usr/bin/env bash
# Installs into .venv, makes the sample data set, reconstructs it and says where everything is: ./demo.sh [FOLDER]
set -euo pipefail
cd "$(dirname "$0")"
. .ci/environment.sh

out=${1:-demo-output}
python=$(find_python)
make_environment .venv "$python" ""
export PATH="$PWD/.venv/bin:$PATH"
unset PYTHONPATH

[ -e "$out/sample/truth.star" ] || cspr sample "$out/sample"
cspr reconstruct "$out/sample" --out "$out/run" --symmetry C3
cspr compare "$out/run" "$out/sample/truth.star"

cat <<EOF

Sample data    $out/sample
Map            $out/run/map.mrc
Half maps      $out/run/half1.mrc  $out/run/half2.mrc
FSC            $out/run/fsc.csv
Report         $out/run/report.html  (open it in a browser)
EOF
