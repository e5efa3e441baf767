#!/bin/sh
# Say plainly what the build needs and this machine lacks.  usage: preflight.sh PYTHON
# Checks: Python >= 3.10, its venv module with pip, its headers, a C compiler.

python=${1:-python3}
compiler=${CC:-}
packages=""
failed=0

lacks() {
    failed=1
    printf 'missing: %s\n' "$1" >&2
    [ -z "$2" ] || packages="$packages $2"
}

if ! command -v "$python" >/dev/null 2>&1; then
    lacks "Python 3.10 or later ('$python' is not a command)" "python3 python3-venv python3-dev"
elif ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
    lacks "Python 3.10 or later ('$python' is $("$python" -V 2>&1)); choose another: make PYTHON=python3.12 ..."
else
    # A distribution's own interpreter has python3.x-dev; python3-dev belongs to its default one.
    named=python3
    if [ "$(command -v "$python")" != "$(command -v python3)" ]; then
        named=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
    fi
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        lacks "the venv module of $python" "$named-venv"
    "$python" -c '
import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' ||
        lacks "the C headers of $python (Python.h)" "$named-dev"
fi

if [ -n "$compiler" ]; then
    command -v "${compiler%% *}" >/dev/null 2>&1 ||
        lacks "the C compiler that CC names ('$compiler' is not a command)" "build-essential"
else
    command -v cc >/dev/null 2>&1 || command -v gcc >/dev/null 2>&1 ||
        command -v clang >/dev/null 2>&1 || lacks "a C compiler (cc, gcc or clang)" "build-essential"
fi

if [ "$failed" -ne 0 ]; then
    [ -z "$packages" ] || printf 'install with: sudo apt install%s\n' "$packages" >&2
    exit 1
fi
