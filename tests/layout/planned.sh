#!/bin/bash
# The plan is exact: on every mesh the bytes planned are those allocated, the messages and bytes planned those sent, by
# kind, and the products planned those computed. A short list of configurations; FULL=1 takes all combinations.
cd "$(dirname "$0")" && . ./lib.sh

launch() { # RANKS CONFIG...
    local ranks=$1 p f
    shift
    mpirun -np "$ranks" "$BUILD/tests/planned" "$@" >"$T/out" 2>&1 </dev/null || true
    grep -v '^[0-9]* passed' "$T/out"
    read -r p f < <(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed.*/\1 \2/p' "$T/out" | tail -n 1)
    passed=$((passed + ${p:-0})) failed=$((failed + ${f:-$#}))
}

# shellcheck disable=SC2054 # words with commas
variants=(pp=1 tied,batch=2,moments8,shard bf16,selective,moments16 tied,bf16,grad16,full,every=2 full,kv=8)
[ "${FULL:-0}" = 1 ] && variants=({tied,kv=2}{,\,bf16}{,\,batch=2}{,\,selective,\,full,\,full\,every=3,\,kv=8,\,seq=1})
for shape in 1:1:1 2:1:1 2:2:1 2:1:2 3:3:1 4:1:1 4:1:4 4:2:2 6:3:2 8:2:2 8:1:8; do
    IFS=: read -r ranks pp tp <<<"$shape"
    list=()
    for v in "${variants[@]}"; do list+=("$v,pp=$pp,tp=$tp,global=$((ranks == 3 || ranks == 6 ? 12 : 8 * ranks / pp / tp))"); done
    launch "$ranks" "${list[@]}"
done
launch 4 pp=2,v=2,global=12,tied pp=2,v=3,m=0,global=6,full,batch=2 tp=2,sequence,shard pp=2,tp=2,v=2,sequence,tied tied,shard,bf16 reduce16,shard \
    pp=4,v=2,m=0,global=9
launch 8 pp=2,tp=2,v=2,sequence,shard,tied,selective tp=4,sequence,shard,seq=35,full pp=2,v=3,shard,bf16,layers=8
result
