#!/bin/sh
# Starts a part of the plugin under a Python that can run it:
#   sh start.sh DATA server         the MCP server
#   sh start.sh DATA hook EVENT     a hook, or the rewake that waits behind one
#   sh start.sh DATA monitor        the monitor
# DATA is the plugin's data folder. The search for a Python takes long (a shim of pyenv 50 ms), and so
# its result is kept there: a hook's turn waits for all of this.

root=${0%/claudemesh_mcp/plugin/start.sh}
data=$1
part=$2
python=

# By an entry such as `.` the folder that a session opens in would say what runs: a stranger's
# project may hold a python3, and what is found once is kept for all sessions.
look_in_absolute_folders_only() {
  given=$PATH
  kept=
  set -f
  IFS=:
  for folder in $PATH; do
    case $folder in /*) kept=$kept${kept:+:}$folder ;; esac
  done
  unset IFS
  set +f
  PATH=${kept:-/usr/bin:/bin}
}

# Newest first, but not newer than what the lock was tried with, unless there is nothing else; those
# that can make an environment before the others. What is kept is the program behind a shim or an
# environment, because those depend on the folder, and go.
look_for() { # look_for MODULES: prints the path of a Python that has them
  for name in python3.13 python3.12 python3.11 python3 python python3.14; do
    found=$(command -v "$name") && found=$("$found" -I -S -c "
import sys, $1
print(getattr(sys, '_base_executable', '') or sys.executable) if sys.version_info >= (3, 11) else sys.exit(1)
" 2>/dev/null </dev/null) && [ -x "$found" ] && printf '%s\n' "$found" && return
  done
  return 1
}

find_python() {
  python=$(look_for ensurepip,sqlite3,venv) || python=$(look_for sqlite3) ||
    # Elsewhere than in the project, whose settings for uv are not the user's.
    python=$(cd / && uv python find --system '>=3.11' 2>/dev/null </dev/null) || return 1
  # Each process writes a file of its own, and the last one stands: any of them is right.
  # Nobody else is to say which program runs here.
  (umask 077 && mkdir -p "$data" && printf '%s\n' "$python" >"$data/python.$$") &&
    mv -f "$data/python.$$" "$data/python"
} 2>/dev/null

if [ -r "$data/python" ]; then IFS= read -r python <"$data/python"; fi
if [ ! -x "$python" ]; then
  look_in_absolute_folders_only
  find_python
fi
if [ ! -x "$python" ]; then
  # A hook or a monitor without Python has nothing to do, and must not disturb a turn.
  [ "$part" = server ] || exit 0
  if program=$(command -v claudemesh); then
    PATH=$given
    exec "$program" mcp
  fi
  echo "claudemesh needs Python 3.11 or newer on the PATH that Claude Code has: install it (or" \
    "https://docs.astral.sh/uv/ and then: uv python install), and start the session again." >&2
  exit 1
fi

PATH=${given-$PATH}
case $part in
  server) exec "$python" -I -S -X pycache_prefix="$data/bytecode" "$root/claudemesh_mcp/plugin/start.py" "$data" ;;
  hook)
    # Python ends with 2 where it finds no file, and that would forbid the user's prompt.
    [ -r "$root/claudemesh_mcp/routes/hook.py" ] || exit 0
    exec "$python" -I -S -X pycache_prefix="$data/bytecode" "$root/claudemesh_mcp/routes/hook.py" "$3"
    ;;
  monitor) exec "$python" -I -S -X pycache_prefix="$data/bytecode" "$root/claudemesh_mcp/routes/monitor.py" ;;
esac
