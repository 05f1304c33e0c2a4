#!/usr/bin/env bash
# A Slurm cluster of this machine for a test:  slurm.sh start|stop|logs FOLDER
# Ends with 77 where Slurm is not installed. Everything (key, sockets, state, logs) lies in FOLDER; daemons of the system are
# left alone. Needs Debian's slurmctld, slurmd, slurm-client and munge, and root.
set -euo pipefail
verb=$1 folder=$(realpath "$2")
PATH=$PATH:/usr/sbin

logs() { tail -n 20 "$folder"/*.log 2>/dev/null || true; }

start() {
  for program in slurmctld slurmd munged sbatch sinfo; do
    command -v "$program" >/dev/null || { echo "$program is not installed; see tests/peers/README.md"; exit 77; }
  done
  [ "$(id -u)" = 0 ] || { echo "slurmd wants root"; exit 77; }
  chmod 755 "$folder"
  mkdir -p "$folder/munge" "$folder/state" "$folder/spool"
  (umask 077 && head -c 1024 /dev/urandom > "$folder/munge/key")
  chmod 700 "$folder/munge"
  munged --force --key-file="$folder/munge/key" --socket="$folder/munged.socket" --pid-file="$folder/munged.pid" \
    --log-file="$folder/munged.log" --seed-file="$folder/munge/seed"
  host=$(hostname -s)
  cpus=$(nproc)
  # Free ports, so that several clusters and the system's own do not meet.
  ports=$(python3 -c "
import socket
all = [socket.socket() for _ in range(2)]
[s.bind(('127.0.0.1', 0)) for s in all]
print(*[s.getsockname()[1] for s in all])")
  read -r control node <<< "$ports"
  cat > "$folder/slurm.conf" <<CONF
ClusterName=localhost
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munged.socket
CredType=cred/munge
SlurmctldPort=$control
SlurmdPort=$node
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
SlurmdTimeout=30
MinJobAge=60
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cpus State=UNKNOWN
PartitionName=test Nodes=$host Default=YES MaxTime=10 State=UP
CONF
  export SLURM_CONF="$folder/slurm.conf"
  slurmctld
  slurmd
  for _ in $(seq 60); do
    sinfo --noheader --format=%T 2>/dev/null | grep -q idle && return
    sleep 0.5
  done
  echo "no node became idle"
  logs
  exit 1
}

stop() {
  for name in slurmd slurmctld munged; do
    [ -s "$folder/$name.pid" ] && kill "$(cat "$folder/$name.pid")" 2>/dev/null || true
  done
}

"$verb"
