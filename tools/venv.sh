#!/bin/sh
# Make the virtual environment and install the project with everything its tests need: venv.sh PYTHON VENV
set -eu
python=$1
venv=$2

if [ -z "$python" ]; then
    echo "Python 3.11 or newer is needed and was not found; install it, or say make PYTHON=/path/to/python" >&2
    exit 1
fi

make_venv() {
    rm -rf "$venv"
    "$python" -m venv "$venv"
}

if [ ! -x "$venv/bin/pip" ]; then
    # Debian splits ensurepip into a package of its own; a bare python3 cannot make an environment with pip.
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
            apt-get update -qq
            DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
        else
            echo "this Python has no ensurepip; on Debian and Ubuntu: sudo apt-get install python3-venv" >&2
            exit 1
        fi
    fi
    make_venv
fi

# Dependency groups need pip 25.1.
"$venv/bin/python" -m pip install -qq --upgrade 'pip>=25.1'
"$venv/bin/python" -m pip install -qq --editable . --group dev
