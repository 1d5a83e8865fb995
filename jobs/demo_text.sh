#!/bin/sh
# Writes real English text as documents, one JSON object {"text": ...} a line, for jobs/demo.sh.
# usage: demo_text.sh TRAIN.jsonl HELDOUT.jsonl     every 20th document is held out of training
#
# The text is the King James Bible of the Debian package bible-kjv, a document for each chapter (public domain,
# 4 MB), or with DEMO_TEXT=PATH your own: a .jsonl file (passed on as it is), a .txt file, or a directory of .txt
# files, cut at blank lines into documents of about 4000 bytes.
set -eu
[ $# -eq 2 ] || { echo "usage: demo_text.sh TRAIN.jsonl HELDOUT.jsonl" >&2; exit 2; }
train=$1 heldout=$2

fail() {
    echo "demo: error: $*" >&2
    exit 1
}

# One verse a line, "Ge1:1 In the beginning ...": a chapter is what comes before the colon.
chapters() {
    bible -f gen1:1-rev22:21 2>/dev/null </dev/null | awk '
        { ref = $1; sub(/:.*/, "", ref); sub(/^[^ ]+ /, "") }
        ref != last && NR > 1 { print text; text = "" }
        { text = text (text == "" ? "" : " ") $0; last = ref }
        END { if (NR) print text }'
}

# Paragraphs, joined until a document is long enough. A new file begins a new document.
paragraphs() {
    if [ -d "$1" ]; then find "$1" -name '*.txt' -type f | sort; else echo "$1"; fi | while read -r f; do
        awk 'BEGIN { RS = "" }
             { gsub(/[ \t\r\n]+/, " "); text = text (text == "" ? "" : " ") $0
               if (length(text) >= 4000) { print text; text = "" } }
             END { if (text != "") print text }' "$f"
    done
}

# A line of text becomes a JSON object; control characters cannot be in a JSON string.
objects() {
    tr -d '\000-\010\013\014\016-\037' | sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/\t/ /g' \
        -e 's/^/{"text": "/' -e 's/$/"}/'
}

split() { awk -v train="$train" -v heldout="$heldout" '{ print > (NR % 20 ? train : heldout) }'; }

: >"$train"
: >"$heldout"
case ${DEMO_TEXT:-} in
'')
    command -v bible >/dev/null || fail "the program 'bible' (Debian package bible-kjv) is missing: set DEMO_TEXT=PATH"
    chapters | objects | split
    ;;
*.jsonl) [ -r "$DEMO_TEXT" ] || fail "DEMO_TEXT=$DEMO_TEXT cannot be read"; split <"$DEMO_TEXT" ;;
*) [ -r "$DEMO_TEXT" ] || fail "DEMO_TEXT=$DEMO_TEXT cannot be read"; paragraphs "$DEMO_TEXT" | objects | split ;;
esac
bytes=$(wc -c <"$train")
[ "$bytes" -ge 1000000 ] || fail "the text has $bytes bytes for training, at least 1000000 are needed"
[ -s "$heldout" ] || fail "the text has fewer than 20 documents"
