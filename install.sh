#!/usr/bin/env bash
# Sets up claudemesh for one user, without root, and takes it away again. `./install.sh --help` says how.
set -eu

top=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
unset PYTHONHOME PYTHONPATH  # They would mix another installation's modules into ours.
export PIP_USER=0 PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1
pip_options='--quiet --compile' uv_options='--quiet --compile-bytecode'

usage() {
  cat <<'EOF'
Usage: ./install.sh                     install or upgrade claudemesh, then show that it works
       ./install.sh test [ARGUMENT...]  run lint, types, import contracts and tests;
                                        arguments go to pytest and leave out the coverage gates
       ./install.sh uninstall           remove everything but your data
       ./install.sh --help              print this

Needs Python 3.11 or newer, or uv; no root. The environment goes below the user data folder
(Linux: ~/.local/share/claudemesh, macOS: ~/Library/Application Support/claudemesh, either moved
by XDG_DATA_HOME), the command to ~/.local/bin/claudemesh. The checkout itself is left as it is.
EOF
}

say() { printf 'claudemesh: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# ---- Where things are ------------------------------------------------------------------------

find_folders() {
  [ -n "${HOME:-}" ] || die "HOME is not set, so there is no place to install to."
  if [ -n "${SUDO_USER:-}" ] && ! [ -O "$HOME" ]; then
    die "sudo would leave files in $HOME that are not its owner's: run this as $SUDO_USER, without sudo."
  fi
  local share="$HOME/.local/share"
  case $(uname -s) in
    Darwin) share="$HOME/Library/Application Support" ;;
    MINGW* | MSYS* | CYGWIN*) die "Windows is supported inside WSL only: run ./install.sh there." ;;
  esac
  # As platformdirs reads it: a relative path counts as unset.
  case ${XDG_DATA_HOME:-} in /*) share=$XDG_DATA_HOME ;; esac
  data="$share/claudemesh"
  bin="$HOME/.local/bin"
  command="$bin/claudemesh"
}

# Newest first, but not newer than what the lock was tried with, unless there is nothing else.
# A shim of pyenv may exist and not work, and Debian has Pythons without venv, hence the trial.
find_python() {
  local candidate
  for candidate in python3.13 python3.12 python3.11 python3 python python3.14; do
    if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
      >/dev/null 2>&1; then
      python=$candidate
      return
    fi
  done
  python=
  command -v uv >/dev/null 2>&1 || die "Python 3.11 or newer (with its venv module), or uv, is" \
    "needed: install one of them (https://docs.astral.sh/uv/ is the quickest) and run ./install.sh again."
}

# ---- An environment --------------------------------------------------------------------------

quietly() {  # quietly COMMAND...: its output is shown only when it fails.
  if ! "$@" >"$work/log" 2>&1; then
    tail -n 40 "$work/log" >&2
    die "this failed: $*"
  fi
}

checksum() { cksum | tr ' ' '-'; }

pins() {  # pins runtime|test: that part of the lock file.
  case $1 in
    runtime) sed '/^# ---- Only for/,$d' "$top/requirements.lock" ;;
    test) cat "$top/requirements.lock" ;;
  esac
}

sources() {
  (cd "$top" && find claudemesh_mcp broker .claude-plugin skills pyproject.toml requirements.lock \
    README.md LICENSE -name __pycache__ -prune \
    -o -type f -exec cksum {} + | LC_ALL=C sort)
}

make_environment() {  # make_environment FOLDER
  rm -rf "$1"
  if [ -n "$python" ]; then
    quietly "$python" -m venv "$1"
  else
    quietly uv venv --quiet --python '>=3.11,<3.14' "$1"
  fi
}

# Hashes are required of every package: pip 23 and uv both honour that for a file in which all is
# pinned (as a constraint pip would refuse them). Our own package is built by the pinned hatchling,
# since build isolation would fetch an unpinned one.
add_pins() {  # add_pins FOLDER PINS
  if [ -x "$1/bin/pip" ]; then
    quietly "$1/bin/python" -m pip install $pip_options --require-hashes --requirement "$2"
  else
    # The system's certificates, as pip's users in a company network expect.
    UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-1} quietly uv pip install $uv_options \
      --python "$1/bin/python" --require-hashes --requirement "$2"
  fi
}

add_package() {  # add_package FOLDER [--editable]
  local environment=$1
  shift
  if [ -x "$environment/bin/pip" ]; then
    quietly "$environment/bin/python" -m pip install $pip_options --no-index --no-deps \
      --no-build-isolation --force-reinstall "$@" "$top"
  else
    quietly uv pip install $uv_options --python "$environment/bin/python" --offline --no-deps \
      --no-build-isolation --reinstall-package claudemesh-mcp "$@" "$top"
  fi
}

# The stamp says what is in the environment. It is removed before any change and written after it,
# so that an environment without one is what a killed run left behind, and is made anew.
prepare() {  # prepare FOLDER runtime|test [--editable]
  local environment=$1 part=$2 stamp="$1/installed" had_pins='' had_package='' pinned package
  shift 2
  pinned="$(pins "$part" | checksum)"
  package="$( (sources; echo "$top" "$@") | checksum)"
  if [ -f "$stamp" ] && "$environment/bin/python" -c '' >/dev/null 2>&1; then
    { read -r had_pins; read -r had_package; } <"$stamp" || true
  fi
  if [ "$had_pins" = "$pinned" ] && [ "$had_package" = "$package" ]; then
    say "the environment is up to date"
    return
  fi
  [ -n "$had_pins" ] || find_python
  # Only the leaf is private: the folders above it belong to every program.
  mkdir -p "$(dirname "$data")"
  [ -d "$data" ] || mkdir -m 700 "$data"
  rm -f "$stamp"
  if [ -z "$had_pins" ]; then
    say "making an environment in $environment"
    make_environment "$environment"
  fi
  if [ "$had_pins" != "$pinned" ]; then
    say "installing the libraries (pinned in requirements.lock)"
    pins "$part" >"$work/pins.txt"
    add_pins "$environment" "$work/pins.txt"
  fi
  say "installing claudemesh"
  add_package "$environment" "$@"
  printf '%s\n%s\n' "$pinned" "$package" >"$stamp"
}

# ---- install ---------------------------------------------------------------------------------

link_command() {
  mkdir -p "$bin"
  ln -sfn "$data/env/bin/claudemesh" "$command"
}

is_ours() { [ -L "$command" ] && [ "$(readlink "$command")" = "$data/env/bin/claudemesh" ]; }

check_path() {
  case ":$PATH:" in *":$bin:"*) return ;; esac
  local line="export PATH=\"\$HOME/.local/bin:\$PATH\""
  case ${SHELL:-} in
    */fish) line="fish_add_path ~/.local/bin" ;;
    */zsh) line="$line    # in ~/.zshrc" ;;
    */bash) line="$line    # in ~/.bashrc" ;;
  esac
  say "$bin is not on your PATH. Add it with:"
  say "    $line"
}

print_next_steps() {
  local mcp install
  mcp="$(printf '%q' "$command") mcp"
  install="$(printf '%q' "$command") install"
  echo
  echo "Next:"
  if command -v claude >/dev/null 2>&1; then
    echo "  1. Give it to every Claude Code session of yours (--plugin, or a server with hooks):"
    echo "         $install --plugin"
    echo "  2. Start claude in two folders and say in one: \"Look who is on the mesh and say hello.\""
  else
    echo "  1. Claude Code is not on this PATH. Once it is (https://code.claude.com/docs), run:"
    echo "         $install --plugin"
    echo "  2. Any other MCP client: give it this command as a stdio server:"
    echo "         $mcp"
  fi
  echo "  3. A teammate, with the same ./install.sh on her machine: on a host that both reach, run"
  echo "         claudemesh broker run --bind 0.0.0.0 --tls auto"
  echo "     and there, as the same user, claudemesh mesh create team --broker URL and"
  echo "     claudemesh invite; she runs"
  echo "         claudemesh join LINK"
}

install() {
  find_folders
  if [ -e "$command" ] || [ -L "$command" ]; then
    is_ours || die "$command belongs to something else: move it away and run ./install.sh again."
  fi
  prepare "$data/env" runtime
  link_command
  say "trying it: claudemesh demo"
  "$command" demo </dev/null || die "the demo failed, so something is wrong with this installation."
  check_path
  print_next_steps
}

# ---- uninstall -------------------------------------------------------------------------------

uninstall() {
  find_folders
  if [ -x "$data/env/bin/claudemesh" ]; then
    # Without a claude on this PATH too: hooks must not outlive what they start.
    say "taking it out of Claude Code"
    "$data/env/bin/claudemesh" uninstall </dev/null || true
    say "stopping the broker"
    "$data/env/bin/claudemesh" down </dev/null >/dev/null 2>&1 || true
  fi
  if is_ours; then rm -f "$command"; fi
  rm -rf "$data/env" "$data/test-env"
  rmdir "$data" 2>/dev/null || true  # Goes only when it is empty.
  say "removed"
  local kept
  for kept in "$data" "${XDG_CONFIG_HOME:-$HOME/.config}/claudemesh" "${CLAUDEMESH_HOME:-}"; do
    if [ -n "$kept" ] && [ -d "$kept" ]; then say "your data remains in $kept"; fi
  done
  if command -v claude >/dev/null 2>&1; then
    say "if you added it to Claude Code by hand:  claude mcp remove --scope user claudemesh"
  fi
}

# ---- test ------------------------------------------------------------------------------------

# What tests drive and npm has: it leaves install scripts to be called, and keeps nothing outside of
# the folder.
add_packages() {  # add_packages FOLDER PINNED WHAT [COMMAND...]: the command finishes it.
  local folder=$1 pinned="$top/tests/support/$2" what=$3 stamp="$1/installed" wanted
  shift 3
  wanted="$(cat "$pinned/package.json" "$pinned/package-lock.json" | checksum)"
  if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then return; fi
  if ! command -v npm >/dev/null 2>&1; then
    say "npm is not on this PATH, so the tests with $what can't run"
    return
  fi
  say "installing $what for the tests (pinned in ${pinned#"$top/"})"
  rm -rf "$folder"
  mkdir -p "$folder"
  cp "$pinned/package.json" "$pinned/package-lock.json" "$folder"
  if (cd "$folder" && npm ci --ignore-scripts --no-audit --no-fund --fetch-retries=1 --cache "$work/npm" &&
    "$@") </dev/null >"$work/log" 2>&1; then
    echo "$wanted" >"$stamp"
  else
    tail -n 10 "$work/log" >&2
    rm -rf "$folder"
    say "installing failed, so the tests with $what can't run"
  fi
}

# A server that wants another `mcp` than the program does, in an environment of its own.
add_old_server() {  # add_old_server FOLDER
  local pinned="$top/tests/support/backends/old-mcp.lock" stamp="$1/installed" wanted
  wanted="$(checksum <"$pinned")"
  if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then return; fi
  say "installing a server of mcp 1 for the tests (pinned in ${pinned#"$top/"})"
  find_python
  make_environment "$1"
  add_pins "$1" "$pinned"
  echo "$wanted" >"$stamp"
}

# The tests sync thousands of times, and wait for the disk each time. They kill processes, not the
# machine: in memory what was written stays as well. It has to have room and to let programs run.
# Who wants to keep the files, or another place for them, sets TMPDIR.
move_to_memory() {
  local free=0
  [ -z "${TMPDIR:-}" ] || return 0
  { read -r _; read -r _ _ _ free _; } < <(df -Pk /dev/shm 2>/dev/null) || return 0
  [ "$free" -ge "$memory_kib" ] || return 0
  memory=$(mktemp -d /dev/shm/claudemesh.XXXXXX 2>/dev/null) || return 0
  printf '#!/bin/sh\n' >"$memory/program" && chmod +x "$memory/program"
  if "$memory/program" 2>/dev/null; then export TMPDIR="$memory"; fi
  rm -f "$memory/program"
}

# Without them their tests are skipped and say why, or fail where CLAUDEMESH_REQUIRE_CLAUDE is 1.
add_clients_and_servers() {  # add_clients_and_servers FOLDER
  add_packages "$1/claude-code" claude "the real Claude Code" \
    node node_modules/@anthropic-ai/claude-code/install.cjs
  add_packages "$1/backends" backends "MCP servers of npm" true
  add_old_server "$1/old-mcp"
}

check() {  # check NAME COMMAND...: runs it, and remembers when it failed.
  local name=$1
  shift
  say "$name"
  "$@" || failed="${failed:+$failed, }$name"
}

begin() {  # begin NAME COMMAND...: runs it beside what follows, until `finish`.
  beside=$1
  shift
  say "$beside, beside what follows"
  set -m  # A group of its own: to be ended with all that it starts.
  "$@" </dev/null >"$work/beside" 2>&1 &
  job=$!
  set +m
}

finish() {
  say "$beside"
  wait "$job" || failed="${failed:+$failed, }$beside"
  job=
  cat "$work/beside"
}

# What decides over a message's fate is covered to the last branch.
fully_covered="*/claudemesh_wire/envelope.py,*/claudemesh_wire/keys.py,*/claudemesh_wire/membership.py"
fully_covered="$fully_covered,*/claudemesh_wire/certificate.py,*/claudemesh_broker/delivery.py"

run_tests() {
  find_folders
  # The tests keep what Python compiles in a folder of their own, see below.
  pip_options='--quiet --no-compile' uv_options='--quiet'
  prepare "$data/test-env" test --editable
  move_to_memory
  local tools="$data/test-env/bin" cache="$data/test-env/cache"
  local required=${CLAUDEMESH_REQUIRE_CLAUDE:-}
  local is_compiled=''
  [ ! -d "$cache/python" ] || is_compiled=yes
  cd "$top"
  mkdir -p "$cache"
  add_clients_and_servers "$cache"
  # Nothing that a check writes lands in the checkout.
  export PATH="$tools:$PATH" PYTHONPYCACHEPREFIX="$cache/python" RUFF_CACHE_DIR="$cache/ruff" \
    HYPOTHESIS_STORAGE_DIRECTORY="$cache/hypothesis" COVERAGE_FILE="$cache/coverage"
  # What a Claude Code session or a user set for the program is none of the tests' business.
  unset ${!CLAUDE@}
  # Tests start some thousand processes; each would compile every library again.
  unset PYTHONDONTWRITEBYTECODE
  # Except: 1 says that a test which lacks the real Claude Code fails.
  export CLAUDEMESH_REQUIRE_CLAUDE=$required
  export PYRIGHT_PYTHON_IGNORE_WARNINGS=1  # It would ask the network for a newer version.
  failed=
  check "ruff check" ruff check
  check "ruff format" ruff format --check
  check "import contracts" lint-imports --no-cache --no-logo
  begin "pyright" pyright --pythonpath "$tools/python"  # Tests leave a processor idle at times.
  if [ $# -gt 0 ]; then
    check "pytest" pytest -o cache_dir="$cache/pytest" "$@"
  else
    rm -f "$cache"/coverage*
    # All workers would compile the same at the same time.
    [ -n "$is_compiled" ] || pytest --collect-only -o cache_dir="$cache/pytest" >/dev/null 2>&1 || true
    # Side by side: much of the suite waits for processes of its own.
    check "pytest" pytest -n auto --dist worksteal -o cache_dir="$cache/pytest" --cov --cov-report=term
    rm -f "$cache"/coverage.*  # The unfinished ones of processes that a test killed.
    check "full coverage" coverage report --include="$fully_covered" --fail-under=100
  fi
  finish
  [ -z "$failed" ] || die "failed: $failed"
  say "all checks passed"
}

# ----------------------------------------------------------------------------------------------

work=$(mktemp -d)
memory='' memory_kib=$((2 * 1024 * 1024))
job=
trap '[ -z "$job" ] || kill -- "-$job" 2>/dev/null; rm -rf "$work" ${memory:+"$memory"} || true' EXIT

case ${1:-} in
  '') install ;;
  test) shift; run_tests "$@" ;;
  uninstall) [ $# -eq 1 ] || { usage >&2; exit 2; }; uninstall ;;
  -h | --help) usage ;;
  *) usage >&2; exit 2 ;;
esac
