"""What the benchmarks share: the program under test and how a figure is told."""
import json
import os
import statistics
import subprocess
import sys
import time

QUICK = "--quick" in sys.argv[1:]
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BIN = os.environ.get("SBX_BIN", os.path.join(ROOT, "build/release/bin"))
HOME = os.environ.setdefault("SBX_HOME", os.path.expanduser("~/.cache/sbx-bench"))


def sbx(*arguments, check=True):
    done = subprocess.run([os.path.join(BIN, "sbx"), *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if check and done.returncode != 0:
        sys.exit(f"sbx {' '.join(arguments)}: exit status {done.returncode}\n{done.stderr}")
    return done.stdout


def timed(action):
    """Milliseconds."""
    began = time.monotonic()
    action()
    return (time.monotonic() - began) * 1000


def report(figure, samples, unit, baseline, more_is_better=False, **context):
    """One JSON line; ratio is above 1 where sbx is better than the baseline."""
    ordered = sorted(samples)
    p50 = statistics.median(ordered)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    ratio = None
    if p50 and baseline:
        ratio = round(p50 / baseline if more_is_better else baseline / p50, 2)
    line = {"figure": figure, "value": round(p50, 2), "unit": unit, "baseline": round(baseline, 2) if baseline else None,
            "ratio": ratio, "n": len(ordered), "p50": round(p50, 2), "p95": round(p95, 2), **context}
    print(json.dumps(line), flush=True)
