# Sourced by the test commands: runs parts, adds up what they counted, keeps the failures' names.
#     part TITLE COMMAND...   a command that ends with "N passed, N failed, N skipped"
#     one TITLE COMMAND...    a command that is one test: status 0 passed, 77 skipped, other failed
#     total                   prints what was skipped and failed, then the line of counts
passed=0 failed=0 skipped=0
notes=$(mktemp)
trap 'rm -f "$notes" "$notes.out"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The command's output, as it comes and in a file; its status.
watch() {
    {
        rc=0
        "$@" 2>&1 || rc=$?
        echo "$rc" >"$notes.rc"
    } | tee "$notes.out"
    rc=$(cat "$notes.rc")
    rm -f "$notes.rc"
}

part() {
    part_title=$1
    shift
    part_start=$(date +%s)
    echo "== $part_title"
    watch "$@"
    counts=$(tail -n 1 "$notes.out" | sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed, \([0-9]*\) skipped$/\1 \2 \3/p')
    if [ -z "$counts" ]; then
        counts="0 1 0"
        echo "FAIL $part_title: it did not end with its counts (status $rc)" >>"$notes"
    elif [ "$rc" -ne 0 ] && [ "$(echo "$counts" | cut -d' ' -f2)" -eq 0 ]; then
        counts="$(echo "$counts" | cut -d' ' -f1) 1 $(echo "$counts" | cut -d' ' -f3)"
        echo "FAIL $part_title: status $rc" >>"$notes"
    fi
    # a command with a summary of its own names each once there
    awk '/^== in all$/ { n = 0; next } /^(SKIP|FAIL) / { line[++n] = $0 }
        END { for (i = 1; i <= n; i++) print line[i] }' "$notes.out" | sed "s|^\([A-Z]* \)|\1$part_title: |" >>"$notes"
    passed=$((passed + $(echo "$counts" | cut -d' ' -f1)))
    failed=$((failed + $(echo "$counts" | cut -d' ' -f2)))
    skipped=$((skipped + $(echo "$counts" | cut -d' ' -f3)))
    echo "   ($(($(date +%s) - part_start)) s)"
}

one() {
    one_title=$1
    shift
    one_start=$(date +%s)
    echo "== $one_title"
    watch "$@"
    case $rc in
    0) passed=$((passed + 1)) ;;
    77)
        skipped=$((skipped + 1))
        echo "SKIP $one_title: $(tail -n 1 "$notes.out")" >>"$notes"
        ;;
    *)
        failed=$((failed + 1))
        echo "FAIL $one_title" >>"$notes"
        ;;
    esac
    echo "   ($(($(date +%s) - one_start)) s)"
}

total() {
    echo "== in all"
    grep '^SKIP ' "$notes" || :
    grep '^FAIL ' "$notes" || :
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ]
}
