# shellcheck shell=sh
# What scripts of tests share: counts, and a folder $dir that goes at the end. Sourced.
passed=0
failed=0
skipped=0
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

ok() {
    passed=$((passed + 1))
}
not_ok() { # DESCRIPTION
    echo "FAIL: $1"
    failed=$((failed + 1))
}
skip() { # WHAT: WHY
    echo "skipped: $1"
    skipped=$((skipped + 1))
}
check() { # DESCRIPTION COMMAND...
    what=$1
    shift
    if "$@"; then ok; else not_ok "$what"; fi
}
says() { # WORDS, an extended regular expression that a line of standard error holds
    grep -qE -- "$1" "$dir/err" || {
        head -n 60 "$dir/err"
        return 1
    }
}
# refuses NAME STATUS WORDS COMMAND...: that status, nothing on standard output, and on standard error one
# line that begins "NAME: error: " and holds the words.
refuses() {
    name=$1 want=$2 words=$3
    shift 3
    "$@" >"$dir/out" 2>"$dir/err" </dev/null
    status=$?
    if [ $status -eq "$want" ] && [ ! -s "$dir/out" ] && [ "$(wc -l <"$dir/err")" -eq 1 ] &&
        grep -q "^$name: error: " "$dir/err" && grep -qF -- "$words" "$dir/err"; then
        ok
    else
        not_ok "$(echo "$*" | cut -c1-200): status $status, wanted '$words', got:"
        cat "$dir/out" "$dir/err" | cut -c1-1000
    fi
}
# The last command of a script.
counted() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ $failed = 0 ]
}
