#!/bin/sh
# Makes the virtual environment and installs this package with its development tools into it.
# Usage: tools/setup.sh [FOLDER [EXTRAS]], default .venv, and none of the optional dependencies of pyproject.toml.
# Called by the Makefile; needs nothing but a Python of 3.11 or newer.
set -eu
cd "$(dirname "$0")/.."
venv=${1:-.venv}
package=.${2:+[$2]}
python="$venv/bin/python"
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

# uv from the machine; else installed for this project alone, which --target makes possible also where the system's
# Python is externally managed (PEP 668).
find_uv() {
    if uv --version >/dev/null 2>&1; then echo uv; return; fi
    if [ ! -x "$uv_home/bin/uv" ]; then
        pip=$(find_pip "$1") || return 1
        # shellcheck disable=SC2086 # "-m pip" is two words
        "$1" $pip install --quiet --disable-pip-version-check --target "$uv_home" uv >&2 || return 1
    fi
    "$uv_home/bin/uv" --version >/dev/null 2>&1 && echo "$uv_home/bin/uv"
}

# Without an NVIDIA driver the CPU build of torch saves 3 GB of download; it lies on PyTorch's own index.
torch_backend() {
    "$1" -c 'import urllib.request as r; r.urlopen("https://download.pytorch.org/whl/cpu/torch/", timeout=5)' \
        >/dev/null 2>&1 && echo auto
}

with_uv() {
    uv=$(find_uv "$1") || { echo "uv is not to be had; going on with pip" >&2; return 1; }
    if ! fits "$python"; then "$uv" venv --quiet --clear --python "$1" "$venv" || return 1; fi
    if backend=$(torch_backend "$1"); then
        "$uv" pip install --python "$python" --torch-backend "$backend" -e "$package" --group dev && return
    fi
    "$uv" pip install --python "$python" -e "$package" --group dev
}

with_pip() {
    if ! "$python" -m pip --version >/dev/null 2>&1; then "$1" -m venv --clear "$venv" || return 1; fi
    "$python" -m pip install --quiet --upgrade 'pip>=25.1' || return 1 # the first that knows --group
    "$python" -m pip install -e "$package" --group dev
}

found=$(find_python)
echo "Setting up $venv with $($found -V)"
with_uv "$found" || with_pip "$found" || {
    echo "error: set-up failed; the messages above say why" >&2
    exit 1
}

# Where the environment forbids Python to keep what it compiles, every later command would compile it again, which more
# than doubles the time to an answer.
PYTHONDONTWRITEBYTECODE='' "$python" -c 'import maskselect.training.cli; maskselect.load("ras")'
