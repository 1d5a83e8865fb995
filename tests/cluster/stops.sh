#!/bin/bash
# What must not go on: a crash loop stops, a wrong config stops at once, a bad node is left out after its preflight or
# after two deaths, a host with a full disk too; and a job whose time limit is a fifth of what it needs goes on to its end.
# limit: 1200
# shellcheck disable=SC2154 # $job and $log are set by lib_job.sh
cd "$(dirname "$0")" && . ../layout/lib.sh && . ./lib_lab.sh && . ./lib_job.sh
lab_or_skip
[ "${FULL:-0}" = 1 ] || { echo "skipped: takes minutes (make check-cluster)"; echo "0 passed, 0 failed, 1 skipped"; exit 0; }
job_setup
lab_up 3 || { bad "the lab did not start"; result; exit 1; }

# Programs that misbehave: on every host; on h2 only, whenever it trains; a host's GPU with errors.
mkdir "$T/bin"
cat >"$T/bin/crashes" <<END
#!/bin/bash
[ "\$1" != train ] || { sleep 1; kill -SEGV \$\$; }
exec "$SOLAR" "\$@"
END
cat >"$T/bin/crashes-on-h2" <<END
#!/bin/bash
[ "\$1" != train ] || [ "\$(hostname)" != h2 ] || { sleep 1; kill -SEGV \$\$; }
exec "$SOLAR" "\$@"
END
cat >"$T/bin/nvidia-smi" <<'END'
#!/bin/bash
errors=0
[ "$(hostname)" != h2 ] || errors=3
for i in 1 2; do echo "Some GPU 80GB, 81559, $errors"; done
END
chmod +x "$T"/bin/*

site "SOLAR=$T/bin/crashes" SOLAR_NET=eth0 SOLAR_PREFLIGHT=off SOLAR_IDLE_LIVES=3
submit loop --nodes=1 --
until_true 120 ended
[ "$(state)" = FAILED ] && [ "$(grep -c '"event":"job"' "$run/lives.jsonl")" -eq 3 ] && ok "a crash loop stops after 3 lives" ||
    bad "a crash loop: $(state), $(grep -c '"event":"job"' "$run/lives.jsonl") lives"
says "with a report" 'crash loop'

site "SOLAR=$SOLAR" SOLAR_NET=eth0 SOLAR_PREFLIGHT=off
submit wrong --nodes=1 -- --set mesh.tensor=3
until_true 60 ended
[ "$(state)" = FAILED ] && says "a plan that cannot be met stops at once" 'end the same way again' || bad "a wrong plan: $(state)"

site "SOLAR=$T/bin/crashes-on-h2" SOLAR_NET=eth0 SOLAR_PREFLIGHT=off
submit deaths --nodes=2 --
completes "a node that dies twice is left out" 120
[ "$("$SOLAR" status "$run" --print left-out)" = h2 ] && [ "$(grep -c '"event":"death".*"node":"h2"' "$run/lives.jsonl")" -eq 2 ] &&
    ok "it is h2, after two deaths" || bad "left out: $("$SOLAR" status "$run" --print left-out)"

site "SOLAR=$SOLAR" SOLAR_NET=eth0 'SOLAR_PREFLIGHT="--write 4 --share 0.05"' "PATH=$T/bin:\$PATH"
submit preflight --nodes=2 --
completes "a node unfit in the preflight is left out" 90
says "with the reason" '^unfit h2 GPU 0 has 3 uncorrected memory errors'
[ "$("$SOLAR" status "$run" --print left-out)" = h2 ] && [ "$(lives)" -eq 1 ] && ok "it is h2, before it trained" || bad "left out: $("$SOLAR" status "$run" --print left-out)"

# the local disk of h2, where MPI and Slurm keep a job's sockets, is full
site "SOLAR=$SOLAR" SOLAR_NET=eth0 'SOLAR_PREFLIGHT="--write 4 --share 0.05"'
on_host 2 sh -c "mount -t tmpfs -o size=64k tmpfs $LAB/tmp/h2; mount -t tmpfs -o size=64k tmpfs $LAB/spool/h2; for d in tmp spool; do head -c 100k /dev/zero >$LAB/\$d/h2/full; done" 2>/dev/null
submit full-disk --nodes=2 --
completes "a full disk on one host is survived" 150
on_host 2 sh -c "umount $LAB/tmp/h2 $LAB/spool/h2"

# A limit of a minute, the least that Slurm has, and a program slowed down until the whole needs five of them: one of its
# ranks is stopped for a while five times a second.
site "SOLAR=$SOLAR" SOLAR_NET=eth0 SOLAR_PREFLIGHT=off
steps=(--set train.steps=1500 --set checkpoint.every=100 --set run.margin=5)
submit whole --nodes=2 --time=30 -- "${steps[@]}"
completes "the whole in one life" 200
whole=$run
took=$("$SOLAR" status "$run" --json | sed 's/.*"begin":\([0-9.]*\).*"end":\([0-9.]*\).*/\2 \1/' | awk '{ print $1 - $2 }')
pause=$(awk -v t="$took" 'BEGIN { p = 0.2 * (300 / t - 1); print (p > 0.01 ? p : 0.01) }')
cat >"$T/bin/slow" <<END
#!/bin/bash
if [ "\$1" = train ] && [ "\$SLURM_PROCID" = 0 ]; then
    (while sleep 0.2 && kill -STOP \$\$; do sleep $pause; kill -CONT \$\$; done) 2>/dev/null &
fi
exec "$SOLAR" "\$@"
END
chmod +x "$T/bin/slow"
site "SOLAR=$T/bin/slow" SOLAR_NET=eth0 SOLAR_PREFLIGHT=off
submit limit --nodes=2 --time=1 --signal=USR1@5 -- "${steps[@]}"
completes "a time limit of a fifth of the need: done" 700
grep '"event":"end"' "$run/lives.jsonl" | sed 's/.*"step":\([0-9]*\).*"why":"\([^"]*\)".*/life ended at step \1: \2/'
[ "$(lives)" -ge 5 ] && ok "over $(lives) lives" || bad "only $(lives) lives"
if grep -q 'DUE TO TIME LIMIT' "$log"; then bad "a life was killed at its limit"; else ok "no life was killed at its limit"; fi
same_weights "as in one life" "$whole" 0
result
