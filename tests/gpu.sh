#!/usr/bin/env bash
# Checks and measures on a GPU what the kit does there, in at most six minutes, and prints one Markdown table:
#
#   tests/gpu.sh                 # exit code 1 if a check failed, 2 if something is missing
#   tests/gpu.sh --device cpu    # the same checks in a tiny form
#
# It needs no network, no pytest and nothing of notebooks, panels and the command line, but torch, timm, accelerate and
# the packages below. Those that are missing where there is no network can be brought along in a folder; the script
# prints the commands that fill it, such as
#
#   pip install --target gpu-site --only-binary :all: --python-version 3.12 joblib lazy-loader pydantic
#   pip install --target gpu-site --only-binary :all: --python-version 3.12 --no-deps scipy shapely
#   GPU_SITE=gpu-site tests/gpu.sh
set -euo pipefail
cd "$(dirname "$0")/.."

export PYTHONPATH="${GPU_SITE:+$(realpath "$GPU_SITE"):}$PWD:$PWD/tests${PYTHONPATH:+:$PYTHONPATH}"
# cuBLAS gives the same sums every time, and torch.compile compiles every time.
export HF_HUB_OFFLINE=1 CUBLAS_WORKSPACE_CONFIG=:4096:8 TORCHINDUCTOR_FORCE_DISABLE_CACHES=1
python="${PYTHON:-python3}"

"$python" - <<'END'
import sys
from importlib.util import find_spec

OWN = f"Python {sys.version_info.major}.{sys.version_info.minor}"
if sys.version_info < (3, 11):
    print(f"error: this is {OWN}; the kit needs 3.11 or newer: PYTHON=python3.12 tests/gpu.sh", file=sys.stderr)
    sys.exit(2)
# What is imported, by the name of its package where that is another.
needed = ("accelerate einops filelock joblib lazy_loader numpy PIL=pillow pydantic safetensors scipy shapely timm torch "
          "torchvision tqdm yaml=pyyaml")
names = [name.partition("=") for name in needed.split()]
missing = [package or name.replace("_", "-") for name, _, package in names if find_spec(name) is None]
if missing:
    pip = f"  pip install --target gpu-site --only-binary :all: --python-version {OWN.split()[1]}"
    # Small ones come with what they need; the others need NumPy and torch, which are better not brought along.
    small = [name for name in missing if name in "einops filelock joblib lazy-loader pydantic pyyaml tqdm".split()]
    large = [name for name in missing if name not in small]
    ways = [" ".join([pip, *small])] * bool(small) + [" ".join([pip, "--no-deps", *large])] * bool(large)
    print(f"error: missing here: {', '.join(missing)}. Where there is a network:", *ways,
          "then bring that folder along: GPU_SITE=gpu-site tests/gpu.sh", sep="\n", file=sys.stderr)
    sys.exit(2)
END

# A check that hangs must not hold the machine.
exec timeout "${GPU_SECONDS:-360}" "$python" -m tools.gpu_checks "$@"
