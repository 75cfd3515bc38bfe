#!/bin/sh
# What kvm-conform calls a difference: conform_compare.sh KVM-CONFORM
set -eu
conform=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

cat >"$dir/expected" <<'END'
# comments and empty lines are none of it

one: first: 0
one: second: hlt at 0x1000
two: first: 0
two: name: with more: 1
END
cat >"$dir/may" <<'END'
# why
one: second: hlt at 0x1001
two: does not end
END

# check STATUS WHAT [OPTION...]: the answers come on standard input
check() {
    want=$1 what=$2
    shift 2
    cat >"$dir/answers"
    rc=0
    "$conform" "$@" file "$dir/answers" "$dir/expected" ${may+"$may"} >"$dir/out" 2>&1 || rc=$?
    if [ $rc = "$want" ]; then
        echo "ok   $what"
    else
        echo "FAIL $what: status $rc, not $want"
        sed 's/^/     /' "$dir/out"
        : >"$dir/bad" # a pipe's end has variables of its own
    fi
}

unset may
grep -v '^#' "$dir/expected" | check 0 "the same"
sed 's/0x1000/0x1001/' "$dir/expected" | check 1 "another answer, and no list"
sed '/two: first/d' "$dir/expected" | check 1 "an answer is missing"
sed '/two: name/d' "$dir/expected" | check 1 "the last answer is missing"
sed '1aone: zeroth: 0' "$dir/expected" | check 1 "one more answer"
check 1 "no answer at all" </dev/null
(grep one: "$dir/expected" && echo "two: does not end") | check 1 "a step that does not end, and no list"
grep one: "$dir/expected" | check 0 "one step alone" --only one

may=$dir/may
check 0 "as expected, though it may differ" <"$dir/expected"
sed 's/0x1000/0x1001/' "$dir/expected" | check 0 "a difference that is listed"
sed 's/0x1000/0x1002/' "$dir/expected" | check 1 "listed, but with another answer"
sed 's/one: first: 0/one: first: 1/' "$dir/expected" | check 1 "a difference that is not listed"
sed '/one: second/d' "$dir/expected" | check 1 "what may differ is missing"
(grep one: "$dir/expected" && echo "two: does not end") | check 0 "a step that does not end, as listed"
(grep -v name: "$dir/expected" && echo "two: does not end") | check 0 "it ends in between"
(grep one: "$dir/expected" && echo "two: dies") | check 1 "it dies"
(grep first: "$dir/expected" && echo "two: does not end") | check 1 "that is no excuse for others"
(echo "one: does not end" && grep two: "$dir/expected") | check 1 "another does not end"
echo "two: third: 0" >>"$dir/may"
check 1 "the list names what nobody asks" <"$dir/expected"
echo "two: first: 0" >"$dir/may"
check 1 "the list holds what is expected" <"$dir/expected"
[ ! -e "$dir/bad" ]
