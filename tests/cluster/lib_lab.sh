# shellcheck shell=bash
# The lab: hosts h1..hN with addresses of their own (10.99.0.N) and a real Slurm, all on this machine. To be sourced
# by the tests beside it; everything lies below $LAB and is gone when the test ends, however it ends.
#
#   lab_or_skip            skips the test, saying why, where the lab cannot be
#   lab_up N [LINE...]     N hosts; LINEs are appended to slurm.conf
#   lab_down
#   on_head CMD...         runs on the head node "ctl" (sbatch, scancel, squeue, ...)
#   on_host I CMD...       runs on host I, with a pid space of that host
#   host_off I, host_on I  cuts the power of a host; starts it again
#   link I up|down         its network cable
#
# A host is a process of its own network, host name, IPC, mount and pid namespaces, a veth pair and a bridge. The
# hosts share this machine's files: what a parallel file system is on a cluster.

LAB_NET=10.99.0 LAB_BRIDGE=solarlab

lab_or_skip() {
    local why=
    [ "$(id -u)" -eq 0 ] || why="the lab of hosts needs root"
    if [ -z "$why" ]; then
        for c in slurmctld slurmd munged ip unshare nsenter; do
            command -v $c >/dev/null || why="$c is not installed (tests/setup/install.sh cluster)"
        done
    fi
    [ -n "$why" ] || unshare --net --uts --ipc --mount --pid --fork true 2>/dev/null || why="namespaces are not possible here"
    [ -n "$why" ] || unshare --net sh -c "ip link add name x type bridge && ip link add type veth" 2>/dev/null ||
        why="bridges or veth pairs are not possible here"
    [ -n "$why" ] || grep -q ' /sys/fs/cgroup' /proc/mounts || why="no control groups are mounted, which slurmd wants"
    [ -z "$why" ] || { echo "skipped: $why"; echo "0 passed, 0 failed, 1 skipped"; exit 0; }
}

# ---- hosts

# pid 1 of a host: collects the children of those that died
lab_init() {
    hostname "$1"
    mount -t tmpfs tmpfs /dev/shm
    mount --bind "$LAB/hosts" /etc/hosts
    trap : CHLD
    while :; do sleep 1000 & wait; done
}

host_pid() { cat "$LAB/h$1.pid" 2>/dev/null; }

host_on() {
    local i=$1 outer inner
    mkdir -p "$LAB/tmp/h$i" && chmod 1777 "$LAB/tmp/h$i"
    ip link del "lab$i" 2>/dev/null
    unshare --net --uts --ipc --mount --propagation private --pid --fork --kill-child --mount-proc \
        bash -c "LAB=$LAB; $(declare -f lab_init); lab_init h$i" >/dev/null 2>&1 </dev/null 8>&- &
    outer=$!
    until inner=$(cat "/proc/$outer/task/$outer/children" 2>/dev/null) && inner=${inner% } && [ -n "$inner" ] &&
        [ "$(nsenter -t "$inner" -u hostname 2>/dev/null)" = "h$i" ]; do
        kill -0 $outer 2>/dev/null || { echo "lab: host h$i did not start" >&2; return 1; }
        sleep 0.01
    done
    disown $outer
    echo "$inner" >"$LAB/h$i.pid"
    ip link add "lab$i" type veth peer name eth0 netns "$inner" && ip link set "lab$i" master $LAB_BRIDGE up &&
        nsenter -t "$inner" -n sh -c "ip link set lo up; ip addr add $LAB_NET.$i/24 dev eth0; ip link set eth0 up" &&
        on_host "$i" slurmd -f "$SLURM_CONF" 8>&-
}

# The cable first: a kernel that sees its processes die would say goodbye for them.
host_off() {
    ip link set "lab$1" down
    kill -9 "$(host_pid "$1")"
    rm -f "$LAB/h$1.pid"
}

link() { ip link set "lab$1" "$2"; }

on_host() { # exec keeps the caller's signals; pid_for_children: the host's own pid space
    local p
    p=/proc/$(host_pid "$1")/ns
    shift
    nsenter --pid="$p/pid_for_children" --net="$p/net" --uts="$p/uts" --ipc="$p/ipc" --mount="$p/mnt" "$@"
}

on_head() {
    # shellcheck disable=SC2016 # expanded by the inner shell
    unshare --mount --uts sh -c 'mount --bind "$0" /etc/hosts && hostname ctl && exec "$@"' "$LAB/hosts" "$@"
}

# ---- Slurm

lab_conf() { # N LINE...
    local n=$1
    shift
    cat <<EOF
ClusterName=lab
SlurmctldHost=ctl($LAB_NET.254)
SlurmctldPort=26817
SlurmdPort=26818
SlurmUser=root
SlurmdUser=root
# a requeued job waits until the former life's credential has expired
AuthInfo=socket=$LAB/munge/socket,cred_expire=5
StateSaveLocation=$LAB/state
SlurmdSpoolDir=$LAB/spool/%n
TmpFS=$LAB/tmp/%n
SlurmctldPidFile=$LAB/slurmctld.pid
SlurmdPidFile=$LAB/slurmd.%n.pid
SlurmctldLogFile=$LAB/log/slurmctld
SlurmdLogFile=$LAB/log/slurmd.%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2,sched_min_interval=100000
MpiDefault=pmix
MailProg=/bin/true
SlurmdTimeout=4
TCPTimeout=1
MessageTimeout=3
KillWait=4
OverTimeLimit=0
ReturnToService=2
SlurmdParameters=config_overrides
NodeName=h[1-$n] NodeAddr=$LAB_NET.[1-$n] CPUs=4 RealMemory=4000
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
EOF
    printf '%s\n' "$@"
}

lab_munge() {
    mkdir -p "$LAB/munge"
    (umask 077 && head -c 1024 /dev/urandom >"$LAB/munge/key")
    munged --key-file="$LAB/munge/key" --socket="$LAB/munge/socket" --pid-file="$LAB/munge/pid" \
        --log-file="$LAB/munge/log" --seed-file="$LAB/munge/seed" 8>&-
}

lab_up() {
    local n=$1 i
    shift
    exec 8>/run/solar-lab.lock # one lab on a machine: the addresses and the bridge are the same
    flock -w 280 8 || { echo "lab: another lab holds /run/solar-lab.lock" >&2; return 1; }
    LAB=$(mktemp -d /tmp/solar-lab.XXXXXX) && chmod 755 "$LAB"
    export SLURM_CONF=$LAB/slurm.conf
    trap lab_down EXIT
    trap 'exit 130' INT TERM HUP
    mkdir -p "$LAB/state" "$LAB/spool" "$LAB/log"
    {
        echo 127.0.0.1 localhost
        echo $LAB_NET.254 ctl
        for i in $(seq "$n"); do echo "$LAB_NET.$i h$i"; done
    } >"$LAB/hosts"
    lab_conf "$n" "$@" >"$SLURM_CONF"
    # a fixed address: else the bridge takes that of a port, and changes it with them
    ip link del $LAB_BRIDGE 2>/dev/null
    ip link add $LAB_BRIDGE address 02:00:00:00:00:fe type bridge && ip addr add $LAB_NET.254/24 dev $LAB_BRIDGE &&
        ip link set $LAB_BRIDGE up && lab_munge && on_head slurmctld -f "$SLURM_CONF" 8>&- || return 1
    for i in $(seq "$n"); do host_on "$i" || return 1; done
    local limit=$((SECONDS + 20))
    while [ $SECONDS -lt $limit ]; do
        [ "$(on_head timeout 5 sinfo -h -t idle -o %D 2>/dev/null)" = "$n" ] && return 0
        sleep 0.1
    done
    echo "lab: $n hosts did not come up; logs in $LAB/log" >&2
    tail -n 5 "$LAB"/log/* >&2
    return 1
}

lab_down() {
    trap - EXIT
    [ -n "${LAB:-}" ] || return 0
    local f p
    # what runs in a host goes with it; the daemons of the head node are ended one by one
    p=$(cat "$LAB/slurmctld.pid" 2>/dev/null) && kill -9 "$p" 2>/dev/null
    for f in "$LAB"/h*.pid; do [ ! -e "$f" ] || kill -9 "$(cat "$f")" 2>/dev/null; done
    p=$(cat "$LAB/munge/pid" 2>/dev/null) && kill "$p" 2>/dev/null
    ip link del $LAB_BRIDGE 2>/dev/null
    for _ in $(seq 50); do rm -rf "$LAB" 2>/dev/null && break; sleep 0.1; done
    LAB=
    exec 8>&-
}
