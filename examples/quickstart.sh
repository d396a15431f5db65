#!/usr/bin/env bash
# Set up Flawscope in .venv, learn a woven textile from 40 good pictures and inspect nine it has never seen.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check -e .
export FLAWSCOPE_HOME=${FLAWSCOPE_HOME:-$PWD/out/home}
flawscope() { .venv/bin/python cli.py "$@"; }
flawscope enroll textile examples/textile/good --defects examples/textile/defects --false-alarm 0.1 --replace
status=0
flawscope inspect examples/textile/test --product textile --out out/textile --no-chat || status=$?
echo
echo "Overlays, heat maps and reports: out/textile"
[ "$status" -eq 1 ]  # some of the nine are defective, so NG is the right answer
