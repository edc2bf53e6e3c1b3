# Sourced by the scripts beside it: leaves `python` of a virtual environment with the packages
# pinned in requirements/ on PATH. Nothing is done twice: the environment remembers what it holds.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

say() { printf '%s\n' "$*" >&2; }

apt_install() {
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing: $*"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null 2>&1 && return
    apt-get update -qq >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null
    return
  fi
  say "missing: $*. Install them with your system's package manager and run this again."
  exit 1
}

find_python() {
  for candidate in python3.11 python3.12 python3.13 python3; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
}

prepare_environment() { # prepare_environment <requirements file>
  local wanted=$1 base mark
  base=$(find_python)
  if [ -z "$base" ]; then
    apt_install python3 python3-venv
    base=$(find_python)
    [ -n "$base" ] || { say "Python 3.11 or newer is needed."; exit 1; }
  fi
  mark=.venv/.holds-$(basename "$wanted" .txt)
  if [ ! -x .venv/bin/python ]; then
    "$base" -c 'import ensurepip' 2>/dev/null || apt_install python3-venv
    say "creating the virtual environment in .venv"
    "$base" -m venv .venv
  fi
  if ! cmp -s "$wanted" "$mark" || ! .venv/bin/python -c 'import sb' 2>/dev/null; then
    say "installing the packages pinned in $wanted"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$wanted" >&2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e . >&2
    cp "$wanted" "$mark"
  fi
  export PATH="$PWD/.venv/bin:$PATH"
}
