#!/usr/bin/env bash
# Runs all tests and benchmarks of a GPU in at most nine minutes: the GPU may be available for only fifteen, once.
#
#   bash bench/fifteen.sh [FOLDER]               writes results to FOLDER; default: build/fifteen
#   bash bench/fifteen.sh --second [FOLDER]      repeats the parts that failed, and adds loading, eight bits and training
#   bash bench/fifteen.sh --rehearse ...         the same without a GPU, with a tiny model in Triton's interpreter
#
# Each part is a process of its own with a time limit.  It writes FOLDER/PART.log, .json and .status.  If a part
# fails, the others still run.  Short tables are printed at the end.
#
#   PYTHON         the Python interpreter
#   LIMIT_SCALE    factor of all time limits, for a slower machine
#   LIMIT_PART     seconds of one part, such as LIMIT_prefill=10
#   LIMIT_total    seconds until the tables; then the running part is ended, and the others are skipped
#   GPTOSS_PLANT   injects faults into a rehearsal: bench/gpu/rehearsal.py
set -u
cd "$(dirname "$0")/.." || exit 1
rehearse='' second=''
card=(nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,power.limit --format=csv,noheader)
while true; do
    case ${1:-} in
        --rehearse) rehearse=--rehearse ;;
        --second) second=yes ;;
        *) break ;;
    esac
    shift
done
out=${1:-build/fifteen}
python=${PYTHON:-python3}
scale=${LIMIT_SCALE:-1}
total=${LIMIT_total:-$((540 * scale))}
mkdir -p "$out"
if [ -z "$second" ]; then
    rm -f "$out"/*.json "$out"/*.status "$out"/*.log
    rm -rf "$out/triton"
fi
if [ -n "$rehearse" ]; then
    export TRITON_INTERPRET=1 TRITON_CACHE_DIR=$out/triton     # an empty cache, as on a new machine
    card=(echo "none: a rehearsal")
fi
export PYTHONUNBUFFERED=1 PYTHONFAULTHANDLER=1      # so that a log is complete however the process ends
ulimit -c 0
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
started=$SECONDS

part() {    # NAME LIMIT COMMAND...
    local name=$1 limit=LIMIT_$1 began=$SECONDS left=$((total - SECONDS + started)) code told
    limit=${!limit:-$(($2 * scale))}
    limit=$((limit < left ? limit : left))
    shift 2
    if grep -qsE "^(ok|skipped)" "$out/$name.status"; then  # of the first run
        return
    fi
    if [ "$limit" -le 0 ]; then
        echo "NOT RUN: no time was left" | tee "$out/$name.status" | sed "s/^/$name: /"
        return
    fi
    timeout --signal=ABRT --kill-after=5 "$limit" "$@" >"$out/$name.log" 2>&1     # Python says where it was
    code=$?
    if [ $code -eq 137 ] && [ $((SECONDS - began)) -ge "$limit" ]; then     # killed by timeout, not because memory ran out
        code=124
    fi
    case $code in
        0) told=ok ;;
        5) told="skipped: no test ran" ;;       # pytest's own
        124) told="TIMED OUT after $limit s" ;;
        *) told="FAILED, exit code $code: $(why "$out/$name.log")" ;;
    esac
    echo "$told, $((SECONDS - began)) s" >"$out/$name.status"
    echo "$name: $told, $((SECONDS - began)) s; $((SECONDS - started)) s in all"
}

why() {     # LOG
    { grep -E "^([A-Za-z.]*(Error|Exception)|Fatal Python error)\b" "$1" || grep -v "^{" "$1"; } | tail -n 1 | cut -c 1-120
}

bench() {   # NAME LIMIT PARTS OPTIONS...
    part "$1" "$2" "$python" -m bench.gpu $rehearse --only "$3" "${@:4}" --results "$out/$1.json" \
        --commit "$(git rev-parse --short HEAD 2>/dev/null)"
}

main() {    # a function, so that all of this file is read before the first part runs
    part versions 60 "$python" -c '
import sys, torch, triton, tests.tiny_checkpoint
print(sys.version.split()[0], "torch", torch.__version__, "triton", triton.__version__, tests.__file__)'
    part card 20 "${card[@]}"
    part warm 120 env -u TRITON_INTERPRET "$python" -m bench.gpu.warm $rehearse
    bench check 90 check
    for file in tests/gpu/test_*.py; do
        part "$(basename "$file" .py)" 120 "$python" -m pytest -q -m gpu --timeout 110 "$file" &
    done
    wait
    bench decode 60 copy,overlap,decode
    bench prefill 45 copy,overlap,prefill
    bench kernels 60 copy,kernels
    bench profile 45 overlap,profile
    bench engine 90 overlap,engine
    if [ -n "$second" ]; then
        bench load 90 load
        bench eight_bits 60 copy,overlap,decode --dense int8 --kv-cache-dtype fp8
        local training=(--tokens 32000 --minutes 1)     # eight minutes for the whole: 570,000 tokens a second
        [ -n "$rehearse" ] && training=(--device cpu --no-compile --workers 1 --makers 1 --tokens 500 --steps 20)
        part train 110 "$python" -m demo.train --start demo/weights --run "$out/train" --held 1 "${training[@]}"
    fi

    echo
    grep -h -E "^(FAILED|ERROR) " "$out"/test_*.log | cut -c 1-160 | head -n 20
    "$python" -m bench.gpu.summary "$out"
    code=$?
    echo "$((SECONDS - started)) s in all; logs and results in $out"
    exit $code
}

main
