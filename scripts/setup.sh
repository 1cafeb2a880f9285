# Sourced by the scripts beside it: makes .venv in the checkout and installs what requirements.txt pins, once.
# Leaves ROOT (the checkout, also the current folder) and PY (the environment's Python). Settings: PYTHON, the Python to use.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="$ROOT/.venv"
PY="$VENV/bin/python"
cd "$ROOT"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

say() { printf '== %s\n' "$*" >&2; }

fail() {
    printf 'error: %s\n' "$1" >&2
    shift
    [ $# -eq 0 ] || printf '       %s\n' "$@" >&2
    exit 1
}

# python_version COMMAND: prints 3.12.1; fails where the command is missing or does not run (a version manager's shim).
python_version() {
    "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null
}

# is_at_least VERSION MINOR: whether a version is 3.MINOR or newer.
is_at_least() {
    local major=${1%%.*} rest=${1#*.}
    [ "$major" -gt 3 ] || { [ "$major" -eq 3 ] && [ "${rest%%.*}" -ge "$2" ]; }
}

# can_make_environments COMMAND: some systems ship venv without the pip that goes into it.
can_make_environments() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

# find_python: prints the command to use. What `python3` means here comes first where it is one of pyproject.toml's
# (3.11 to 3.13), then the newest of those, then whatever is newer.
find_python() {
    local command version tested="" newer="" seen="" incomplete=""
    if [ -n "${PYTHON:-}" ]; then
        version=$(python_version "$PYTHON") || fail "PYTHON=$PYTHON does not run." "Set PYTHON to a Python 3.11 or newer."
        is_at_least "$version" 11 || fail "PYTHON=$PYTHON is Python $version; 3.11 or newer is needed."
        can_make_environments "$PYTHON" || no_venv "$PYTHON"
        echo "$PYTHON"
        return
    fi
    for command in python3 python3.13 python3.12 python3.11 python python3.14 python3.15; do
        version=$(python_version "$command") || continue
        seen="$seen $command=$version"
        is_at_least "$version" 11 || continue
        can_make_environments "$command" || { incomplete=${incomplete:-$command}; continue; }
        if is_at_least "$version" 14; then newer=${newer:-$command}; else tested=${tested:-$command}; fi
    done
    if [ -n "$tested$newer" ]; then
        echo "${tested:-$newer}"
        return
    fi
    [ -z "$incomplete" ] || no_venv "$incomplete"
    fail "no Python 3.11 or newer was found (found:${seen:- none})." \
        "Install one (Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python@3.13)," \
        "or say where it is: PYTHON=/path/to/python3.12 $0"
}

no_venv() {
    fail "$1 cannot make virtual environments: its modules venv or ensurepip are missing." \
        "Debian, Ubuntu: apt install python3-venv. Or name another Python: PYTHON=/path/to/python3.12 $0"
}

# usable_venv: whether .venv runs, has pip, was made for this very folder (its commands hold the path), and is the Python
# asked for. One made by hand is taken as it is.
usable_venv() {
    local version wanted
    version=$(python_version "$PY") && is_at_least "$version" 11 || return 1
    "$PY" -c 'import pip' 2>/dev/null || return 1
    [ ! -f "$VENV/made-for" ] || [ "$(cat "$VENV/made-for")" = "$ROOT" ] || return 1
    [ -n "${PYTHON:-}" ] || return 0
    wanted=$(python_version "$PYTHON") || return 0 # find_python says what is wrong with it
    [ "$version" = "$wanted" ]
}

make_venv() {
    if [ -z "${PYTHON:-}" ] && usable_venv; then return; fi
    local python base
    python=$(find_python) || exit 1
    if usable_venv; then return; fi
    # The Python behind an active environment, which may be the very .venv that is made anew.
    base=$("$python" -c 'import sys; print(getattr(sys, "_base_executable", None) or sys.executable)')
    say "making .venv with Python $(python_version "$base") ($base)"
    "$base" -m venv --clear "$VENV" || fail "$base could not make $VENV (see above)."
    echo "$ROOT" >"$VENV/made-for"
}

# stamp_of FILE...: what an installation depends on; another Python or another line in a file changes it.
stamp_of() { { python_version "$PY"; cat "$@"; } | cksum; }

# install_once NAME STAMP PIP-ARGUMENT...: pip install, unless it was done for the same stamp.
install_once() {
    local stamp="$VENV/installed-$1" wanted=$2
    shift 2
    [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ] || return 0
    rm -f "$stamp"
    "$PY" -m pip install "$@" >&2 || return 1
    echo "$wanted" >"$stamp"
}

setup() {
    make_venv
    local stamp
    stamp=$(stamp_of requirements.txt pyproject.toml setup.cfg)
    [ "$(cat "$VENV/installed-leap" 2>/dev/null)" = "$stamp" ] || say "installing requirements.txt; the first time takes minutes"
    install_once leap "$stamp" -r requirements.txt || fail "installing requirements.txt failed (see above)." \
        "It needs the package index, or its cache, and about 3 GB of disk (less with a CPU build of torch)." \
        "Run $0 again: what was downloaded is kept."
}
