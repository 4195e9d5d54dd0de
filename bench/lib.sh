# shellcheck shell=bash
# What bench/gateway, bench/streams and bench/chat share; sourced, never run. Each has a folder of its own, $dir, for all that it
# starts and writes, and ends what it has started whatever ends itself.
source "$(dirname -- "${BASH_SOURCE[0]}")/../deploy/local/lib.sh"

# programs PROFILE NAME...: build these programs; $programs is where they are then.
programs() {
  local profile=$1 name packages=() bins=()
  shift
  for name; do
    case $name in
      bench-*) packages+=(-p bench) ;;
      *) packages+=(-p "${name#amphi-}") ;;
    esac
    bins+=(--bin "$name")
  done
  say "bench: building"
  cargo build --profile "$profile" "${packages[@]}" "${bins[@]}"
  programs=$(realpath -- "${CARGO_TARGET_DIR:-target}/${profile/#dev/debug}")
}

# folder DIR: make it ours, and empty. Whoever else measures there keeps it.
folder() {
  dir=$(realpath -ms -- "$1")
  claim "$dir"
  mkdir -p -- "$dir"
  exec 9>"$dir.lock"
  flock -n 9 || die "another one measures in $dir"
  remove_servers # what a killed run has left behind
  rm -rf -- "$dir"
  mkdir -p -- "$dir"
  : >"$dir/$mark"
  cp -- bench/wrk.lua "$dir/wrk.lua"
  trap clean_up EXIT
  trap 'exit 130' INT TERM HUP
}

remove_servers() {
  local name
  for name in postgres redis; do
    [[ -e $dir/$name ]] || continue
    "deploy/local/$name" stop "$dir/$name" || true
    rm -rf -- "$(realpath -m -- "$dir/$name")" "${dir:?}/$name"
  done
}

declare -A pid port
clean_up() {
  local name
  trap '' INT TERM HUP
  for name in "${!pid[@]}"; do
    # In a trap, a bare `return` brings the status of before the trap.
    end_process "${pid[$name]}" "$dir" 3 || true
  done
  remove_servers
  rm -f -- "$dir"/*.log # gigabytes
}

# files COUNT: allow so many open files.
files() {
  ulimit -n "$(ulimit -Hn)"
  (($(ulimit -n) >= $1)) || die "at most $(ulimit -n) open files are allowed here (ulimit -Hn); $1 are needed"
}

# start NAME COMMAND...: run it in the background, in $dir; what it prints goes to NAME.log. It ends with us.
start() {
  local name=$1
  shift
  (cd -- "$dir" && exec setpriv --pdeathsig TERM -- "$@" </dev/null >>"$dir/$name.log" 2>>"$dir/$name.err" 9>&-) &
  pid[$name]=$!
}

# started NAME COMMAND...: wait until COMMAND is true.
started() {
  poll 30 "${@:2}" || { tail -n 20 "$dir/$1.err" >&2; die "$1 did not start: the end of its messages is above"; }
}
# serves NAME: wait until it listens. is_ready NAME: wait until this program of ours says that it is.
serves() { started "$1" accepts 127.0.0.1 "${port[$1]}"; }
is_ready() { started "$1" grep -qs 'Amphi is ready' "$dir/$1.err"; }

# nginx NAME DIRECTIVES: an nginx with one worker on its port; DIRECTIVES are those of its `http` block, $nginx_main what
# stands before it.
nginx() {
  local name=$1
  cat >"$dir/$name.conf" <<CONF
$( ((EUID != 0)) || echo 'user root;')
${nginx_main:-}
daemon off;
pid $dir/$name.pid;
error_log $dir/$name.err;
worker_processes 1;
worker_rlimit_nofile $(ulimit -n);
events { worker_connections 16384; }
http {
  client_body_temp_path $dir/$name.tmp; proxy_temp_path $dir/$name.tmp; fastcgi_temp_path $dir/$name.tmp;
  uwsgi_temp_path $dir/$name.tmp; scgi_temp_path $dir/$name.tmp;
  access_log off;
  keepalive_requests 1000000000;
  ${port[upstream]:+upstream json { server 127.0.0.1:${port[upstream]}; keepalive 256; keepalive_requests 1000000000; \}}
  proxy_http_version 1.1;
$2
}
CONF
  start "$name" nginx -p "$dir" -c "$dir/$name.conf" -e "$dir/$name.err"
}

# upstream COMMAND...: what answers 64 bytes from memory, on the port of that name. COMMAND, which writes its port into
# $dir/stub, is the source of the keys of tokens and of what auth tells.
upstream() {
  start stub "$@"
  started stub test -s "$dir/stub"
  port[stub]=$(<"$dir/stub")
  nginx upstream "
    default_type application/json;
    server {
      listen 127.0.0.1:${port[upstream]};
      location = /no-content { return 204; }
      location / { return 200 '{\"id\":42,\"title\":\"a 64-byte answer from memory\",\"status\":\"live\"}'; }
      location = /.well-known/jwks.json { proxy_pass http://127.0.0.1:${port[stub]}; }
      location = /internal/trust { proxy_pass http://127.0.0.1:${port[stub]}; proxy_buffering off; proxy_read_timeout 1d; }
    }"
  serves upstream
}

# gateway NAME STREAM_PORT SETTING...: a gateway whose stream service is at STREAM_PORT, with no settings but these.
gateway() {
  local name=$1 stream=$2
  shift 2
  start "$name" env -i PATH="$PATH" AUTH_URL="http://127.0.0.1:${port[upstream]}" STREAM_URL="http://127.0.0.1:$stream" \
    GATEWAY_LISTEN="127.0.0.1:${port[$name]}" ADMIN_LISTEN=127.0.0.1:0 AMPHI_DATA_DIR="$dir/$name.data" HTTP_WORKERS=1 \
    GATEWAY_RATE_PER_ADDRESS=1000000000/1s GATEWAY_RATE_PER_USER=1000000000/1s "$@" "$programs/amphi-gateway"
}

# postgres: a PostgreSQL on the port of that name; $postmaster is its process.
postgres() {
  port[postgres]=$(deploy/local/postgres start "$dir/postgres")
  local data
  data=$(realpath -- "$dir/postgres")/data
  postmaster=$(running "$data/postmaster.pid" "$data")
}

# server NAME LOG [PID...]: a line of $dir/servers, of which servers there are to measure.
server() {
  local name=$1 log=$2
  shift 2
  (($#)) || set -- "${pid[$name]}"
  local IFS=,
  echo "$name 127.0.0.1:${port[$name]} $* $log"
}

# measured COMMAND...: run what measures, and say what it was measured on. Ends with its code.
measured() {
  local code=0
  supervise process "$@" || code=$?
  [[ -z $interrupted ]] || exit 130
  printf '\nMachine: %s cores, %s, Linux %s; load average at the end %s.\n' "$(nproc)" \
    "$(sed -n 's/^model name\s*: //p;T;q' /proc/cpuinfo)" "$(uname -r)" "$(cut -d' ' -f1 /proc/loadavg)"
  return "$code"
}
