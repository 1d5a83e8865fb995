# shellcheck shell=bash disable=SC2154 # $event is the test's
# Jobs on the lab: a small model deepened and trained by jobs/solar_cpt.slurm. Sourced by the tests beside it, after
# layout/lib.sh and lib_lab.sh; files lie in $T.

# The model, its tokens and $T/run.yaml. Real text and weights where they are to be had, else random ones and a licence.
job_setup() {
    local data=../../../shared/data
    if [ -e $data/stories260k/model.safetensors ]; then
        cp -rL $data/stories260k "$T/base"
        "$SOLAR" tokenize $data/tinystories.jsonl --tokenizer "$T/base" --out "$T/train.h5" --valid "$T/valid.h5" \
            --valid-fraction 0.03 >/dev/null 2>&1
    else
        tokens "$T/train.h5" ../../LICENSE
        cp "$T/train.h5" "$T/valid.h5"
        model random 5 4 true
        config "$T/random.yaml" "$T/random"
        base m "$T/random.yaml"
        cp -rL "$T/base-m/latest" "$T/base"
    fi
    cat >"$T/run.yaml" <<END
run: {dir: $T/run, seed: 3}
model: {base: $T/base, dus: {m: 1}}
data:
  seq_len: 64
  train: [{files: $T/train.h5}]
  valid: [{name: stories, files: $T/valid.h5, samples: 8}]
train: {global_batch: 4, micro_batch: 1, steps: 40, device: cpu, threads: 1}
optimizer: {lr: 1.0e-3}
schedule: {kind: wsd, warmup: 5, decay: 10, min_lr: 1.0e-4}
checkpoint: {every: 5, keep: 2}
eval: {every: 0}
timeout: {start: 60, step: 15}
END
    mkdir -p "$T/home/slurm" "$T/home/jobs"
    cp ../../slurm/chain.sh ../../slurm/preflight "$T/home/slurm/"
    cp ../../jobs/*.slurm ../../jobs/*.yaml "$T/home/jobs/"
    site "SOLAR=$SOLAR" SOLAR_NET=eth0 "SOLAR_PREFLIGHT=${PREFLIGHT:-off}"
    export OMPI_MCA_btl=tcp,self # the hosts share a kernel, but not their memory
}

site() { # LINE...: slurm/site.env of the tests: what is set here counts, then what the project's own says
    { printf '%s\n' "$@"; cat ../../slurm/site.env; } >"$T/home/slurm/site.env"
}

# submit NAME SBATCH-OPTIONS -- PROGRAM-OPTIONS: job id in $job, its log in $log, its run in $run
job='' run='' log='' as=() # as: what makes another user of the command behind it
submit() {
    local name=$1 options=()
    shift
    while [ $# -gt 0 ] && [ "$1" != -- ]; do options+=("$1") && shift; done
    shift
    run=$T/$name log=$T/$name.log
    job=$(cd "$T/home" && on_head "${as[@]}" sbatch --parsable --output="$log" --ntasks-per-node=1 --time=10 "${options[@]}" \
        "jobs/${script:-solar_cpt.slurm}" "$T/run.yaml" --set run.dir="$run" "$@") || { bad "$name: sbatch failed"; return 1; }
}

state() { on_head scontrol -o show job "$job" 2>/dev/null | sed 's/.*JobState=\([A-Z_]*\).*/\1/'; }

# until_true SECONDS COMMAND...
until_true() {
    local limit=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $limit ] || return 1
        sleep 0.1
    done
}

ended() { case $(state) in COMPLETED | FAILED | CANCELLED | TIMEOUT | NODE_FAIL) return 0 ;; *) return 1 ;; esac; }
trained() { [ "$(cat "$run/lives.jsonl" 2>/dev/null | grep -c '"event":"step"')" -ge "$1" ]; } # the N-th life has made a step
saved() { [ "$("$SOLAR" status "$run" --print checkpoint 2>/dev/null || echo 0)" -ge "$1" ]; }

# completes LABEL SECONDS: the job ends well within the time
completes() {
    until_true "$2" ended && [ "$(state)" = COMPLETED ] && [ "$("$SOLAR" status "$run" --print state)" = "done" ] &&
        { ok "$1"; return 0; }
    grep -v '^  ' "$log" | tail -n 15 | sed 's/^/    /'
    bad "$1: $(state)"
    ended || on_head scancel "$job"
    return 1
}

same_weights() { # LABEL RUN TOLERANCE: as the uninterrupted run of the same ranks
    local said
    if said=$("$BUILD/tests/compare" "$2" "$run" "$3"); then ok "$1: $said"; else bad "$1: $said"; fi
}

says() { # LABEL PATTERN: in the log of the job
    if grep -q -- "$2" "$log"; then ok "$1"; else tail -n 15 "$log" | sed 's/^/    /'; bad "$1: expected $2"; fi
}

lives() { grep -c '"event":"begin"' "$run/lives.jsonl"; }
# Seconds from the time in $event (date +%s.%N) to the next first step of a life.
back_after() {
    sed -n 's/.*"event":"step".*"time":\([0-9.]*\).*/\1/p' "$run/lives.jsonl" | awk -v e="$event" '$1 > e && !d { printf "%.1f", $1 - e; d = 1 }'
}
