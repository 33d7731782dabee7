#!/bin/sh
# Makes a virtual environment and installs this package into it.
#
#   tools/setup.sh [FOLDER]                 editable, with the tools of development, exact versions of constraints.txt
#   tools/setup.sh --latest [FOLDER]        the same with the newest versions that pyproject.toml allows
#   tools/setup.sh --lowest [FOLDER]        the same with the oldest ones, in a new environment
#   tools/setup.sh --wheel FOLDER           a wheel of this package and nothing but what its extras need
#   tools/setup.sh --compile FILE           writes constraints for all supported Pythons and platforms to FILE
#
# EXTRAS: groups of optional dependencies with commas between. CONSTRAINTS: another file than constraints.txt.
# The Makefile calls this script. It needs a Python of 3.11 or newer and nothing else.
set -eu
cd "$(dirname "$0")/.."
mode=--constrained
case ${1:-} in --*) mode=$1; shift ;; esac
target=${1:-.venv}
python="$target/bin/python"
uv_home=.cache/uv

# A pyenv shim exists for versions that are not active, so each candidate is run, not merely found.
fits() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    for name in python3.13 python3.12 python3.11 python3 python; do
        if fits "$name"; then command -v "$name"; return; fi
    done
    echo "error: no Python of 3.11 or newer found; install one, for example with your system's package manager" >&2
    return 1
}

# Some systems' Python comes without pip; its authors publish it as one file that runs by itself.
find_pip() {
    if "$1" -m pip --version >/dev/null 2>&1; then echo "-m pip"; return; fi
    mkdir -p .cache
    "$1" -c 'import urllib.request as r; r.urlretrieve("https://bootstrap.pypa.io/pip/pip.pyz", ".cache/pip.pyz")' \
        >/dev/null 2>&1 && echo .cache/pip.pyz
}

# The machine's uv, if it knows --torch-backend. Otherwise uv is installed for this project alone: --target works also
# where the system's Python is externally managed (PEP 668).
find_uv() {
    if uv pip install --help 2>/dev/null | grep -q -e --torch-backend; then echo uv; return; fi
    if [ ! -x "$uv_home/bin/uv" ]; then
        pip=$(find_pip "$1") || return 1
        # shellcheck disable=SC2086 # "-m pip" is two words
        "$1" $pip install --quiet --disable-pip-version-check --target "$uv_home" uv >&2 || return 1
    fi
    "$uv_home/bin/uv" --version >/dev/null 2>&1 && echo "$uv_home/bin/uv"
}

# Without an NVIDIA driver the CPU build of torch saves 3 GB. PyTorch's own index has it; PyPI does not for Linux.
torch_backend() {
    if "$1" -c 'import urllib.request as r; r.urlopen("https://download.pytorch.org/whl/cpu/torch/", timeout=5)' \
        >/dev/null 2>&1; then echo "--torch-backend auto"; fi
}

found=$(find_python)
uv=$(find_uv "$found") || {
    echo "error: uv cannot be installed; install it yourself, for example with: $found -m pip install uv" >&2
    exit 1
}

if [ "$mode" = --compile ]; then
    exec "$uv" pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 --upgrade --quiet \
        --no-emit-index-url --no-annotate --custom-compile-command "make upgrade" --output-file "$target"
fi

clear=
pins="--constraint ${CONSTRAINTS:-constraints.txt}"
package="-e .[train,data,ray,regions,serve,video${EXTRAS:+,$EXTRAS}] --group dev"
case $mode in
--constrained) ;;
--latest) pins=--upgrade ;;
--lowest) pins="--resolution lowest-direct" clear=--clear ;;
--wheel)
    rm -rf .cache/wheel
    "$uv" build --quiet --wheel --out-dir .cache/wheel
    package="$(echo .cache/wheel/*.whl)${EXTRAS:+[$EXTRAS]}"
    ;;
*)
    echo "error: unknown option $mode" >&2
    exit 2
    ;;
esac

echo "Setting up $target with $("$found" -V)"
if [ -n "$clear" ] || ! fits "$python"; then "$uv" venv --quiet --clear --python "$found" "$target"; fi
# shellcheck disable=SC2046,SC2086 # each of these holds several words
"$uv" pip install --python "$python" $(torch_backend "$found") $pins $package

# Where the environment forbids Python to keep what it compiles, every later command would compile it again, which more
# than doubles the time to an answer.
[ "$mode" = --wheel ] || PYTHONDONTWRITEBYTECODE='' "$python" -c 'import maskselect.training.cli; maskselect.load("ras")'
