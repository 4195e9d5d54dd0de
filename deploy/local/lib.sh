# shellcheck shell=bash
# What the scripts of deploy/ share; sourced, never run.

# Servers live in sbin, which is not in everybody's PATH.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
# Files are ours to write and everybody's to read, whatever the caller's umask; secrets are made 0600 where they are written.
umask 022

say() { echo "$*" >&2; }
die() { say "${0##*/}: $*"; exit 1; }

# The comment block at the top of a script is its help.
usage() { sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0" >&2; exit 2; }

# poll SECONDS COMMAND...: true as soon as COMMAND is, false when the time is up. COMMAND must not hang: what talks to a
# server has a `timeout` of its own.
poll() {
  local end=$((${EPOCHREALTIME/[.,]/} + $1 * 1000000))
  shift
  until "$@"; do
    ((${EPOCHREALTIME/[.,]/} < end)) || return 1
    sleep 0.05
  done
}

# accepts HOST PORT: does somebody listen there? One whose queue is full does not, after 2 s.
accepts() { timeout 2 bash -c 'exec 3<>"/dev/tcp/$1/$2"' - "$1" "$2" 2>/dev/null; }

# A port nobody listens on, below the range from which the kernel takes ports for outgoing connections.
free_port() {
  local port
  for _ in {1..200}; do
    port=$((20000 + SRANDOM % 12000))
    accepts 127.0.0.1 "$port" || { echo "$port"; return; }
  done
  die "found no free port between 20000 and 32000"
}

# choose_port DIR [PORT]: PORT where one is given; else the one remembered in DIR/port, so that a restart keeps it; else a free one.
choose_port() {
  local port=${2:-0}
  [[ $port =~ ^[0-9]{1,5}$ ]] || die "not a port: $port"
  if ((port)); then
    ! accepts 127.0.0.1 "$port" || die "port $port is taken by another process"
  elif [[ -s $1/port ]]; then
    port=$(<"$1/port")
    if accepts 127.0.0.1 "$port"; then
      say "${0##*/}: port $port, used before, is taken by another process: choosing another"
      port=$(free_port) || return
    fi
  else
    port=$(free_port) || return
  fi
  echo "$port"
}

# A killed process stays a zombie until its parent looks: it is gone all the same.
gone() {
  local stat
  { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 0
  [[ ${stat##*) } == [ZX]* ]]
}

# ours PID DIR: is PID alive, and a process that works in DIR? Pids are reused, so a pid file alone proves nothing.
ours() {
  local pid=$1 dir=$2 cwd command
  [[ $pid =~ ^[0-9]+$ ]] && ! gone "$pid" || return 1
  cwd=$(readlink "/proc/$pid/cwd" 2>/dev/null || true)
  { command=$(tr '\0' ' ' <"/proc/$pid/cmdline"); } 2>/dev/null || return 1
  [[ $cwd/ == "$dir"/* || "$command " == *"$dir"[/\ ]* ]]
}

# running PIDFILE DIR: the pid in PIDFILE, where it is a live process of DIR.
running() {
  local pid
  pid=$(head -n1 "$1" 2>/dev/null) || return 1
  ours "$pid" "$2" && echo "$pid"
}

# end_process PID DIR SECONDS: ask it to end, and insist when the time is up.
end_process() {
  ours "$1" "$2" || return 0
  kill -TERM "$1" 2>/dev/null || true
  kill -CONT "$1" 2>/dev/null || true # one that is stopped would not hear it
  # In an EXIT trap, a bare `return` brings the status of before the trap.
  poll "$3" gone "$1" && return 0
  say "${0##*/}: process $1 did not end within $3 s: killing it"
  kill -KILL "$1" 2>/dev/null || true
  poll 5 gone "$1" || die "process $1 does not die"
}

# crash PIDFILE DIR: end it as a crash would.
crash() {
  local pid
  pid=$(running "$1" "$2") || return 0
  kill -KILL "$pid" 2>/dev/null || true
  poll 10 gone "$pid" || die "process $pid does not die"
}

# adopt PIDFILE DIR PORT ANSWERS...: where it runs already, print its port as soon as ANSWERS is true; there is nothing to
# start then. It may be booting still: somebody interrupted the `start` that waited for it.
adopt() {
  local port
  running "$1" "$2" >/dev/null || return
  port=$(<"$dir/port") || die "runs in $dir, but on what port is not known: stop it"
  (($3 == 0 || $3 == port)) || die "already running in $dir, on port $port"
  poll 60 "${@:4}" "$port" || die "runs in $dir, but does not answer on port $port: stop it"
  echo "$port"
}

# unprivileged USER...: the first of these users that exists, for root; nothing for everybody else, who needs no other.
unprivileged() {
  ((EUID == 0)) || return 0
  local user
  for user; do
    id -u "$user" >/dev/null 2>&1 && { echo "$user"; return; }
  done
  die "root needs one of these users to run this as: $*"
}

# as USER COMMAND...: run COMMAND as USER; an empty USER is ourselves.
as() {
  local user=$1
  shift
  if [[ -z $user ]]; then
    "$@"
  else
    setpriv --reuid="$(id -u "$user")" --regid="$(id -g "$user")" --clear-groups -- "$@"
  fi
}

# What every folder of ours holds: nothing is stopped, changed or deleted in one that does not.
mark=.amphi-local

# claim DIR: is DIR ours to fill, being new, empty, or marked? Who calls this puts the mark there.
claim() {
  [[ ! -e $1 || -e $1/$mark || -z $(ls -A -- "$1") ]] || die "$1 is not empty, and not made by this: use another folder"
}

# home DIR [USER]: make DIR and print its real path. A checkout under /root is closed to USER; then DIR becomes a link
# to a folder that is open to it.
home() {
  local dir user=${2:-} other
  dir=$(realpath -ms -- "$1")
  mkdir -p -- "$(dirname -- "$dir")"
  if [[ ! -L $dir ]] && ! as "$user" test -x "$(dirname -- "$dir")"; then
    other=/var/lib/amphi-local/$(cksum <<<"$dir" | cut -d' ' -f1)-${dir##*/}
    { [[ ! -e $dir ]] || rmdir -- "$dir"; } 2>/dev/null || die "$dir is not reachable for the user '$user': use another folder"
    mkdir -p -- "$other"
    ln -s -- "$other" "$dir"
    say "${0##*/}: the user '$user' cannot reach $dir: its files are in $other"
  fi
  dir=$(realpath -m -- "$dir")
  mkdir -p -- "$dir"
  as "$user" test -x "$dir" || chmod a+x "$dir" # a temporary folder of root, say
  echo "$dir"
}

# supervise KILL_WHAT COMMAND...: run COMMAND in the foreground, but in a process group of its own: then a Ctrl-C reaches it
# once, from us, and we live on to clean up. KILL_WHAT is `process` or `group`: whom a signal goes to; a second one kills.
# Ends with the code of COMMAND, and with `interrupted` set when it was a signal that ended it.
supervise() {
  local what=$1 target code=0
  shift
  interrupted=
  set -m
  # Whatever ends us, SIGKILL included, ends COMMAND.
  setpriv --pdeathsig TERM -- "$@" </dev/null 9>&- &
  set +m
  child=$!
  if [[ $what == group ]]; then target=-$child; else target=$child; fi
  trap 'kill -$([[ $interrupted ]] && echo KILL || echo TERM) -- '"$target"' 2>/dev/null || true; interrupted=yes' INT TERM HUP
  wait "$child" || code=$?
  until gone "$child"; do # a signal ends `wait` as well
    code=0
    wait "$child" || code=$?
  done
  trap - INT TERM HUP
  return "$code"
}
