#!/bin/sh
# What the documents name exists, and the manual pages are clean:
#  - every path in docs/*.md, README.md and docs/decisions that begins with a folder of this tree
#  - in docs/STATUS.md, each row "| capability | works/partly/missing | `command` |": the commands'
#    make targets, scripts, programs and tests
#  - mandoc has nothing to say about man/
set -eu
cd "$(dirname "$0")/.."
status=0
complain() {
    echo "check-docs: $*"
    status=1
}

# ---- paths ----
for doc in README.md docs/*.md docs/decisions/*.md; do
    [ -f "$doc" ] || continue
    # Inside backticks or a fenced block; a word with a wildcard or a placeholder is no path.
    for path in $(awk '/^```/ { fence = !fence; next }
            { if (fence) print; else { n = split($0, part, "`")
                for (i = 2; i <= n; i += 2) print part[i] } }' "$doc" |
        tr ' ,;:()|"' '\n' | sed 's/[.]*$//' |
        grep -E '^(\./)?(src|tests|tools|docs|man|include|bench|\.ci)/[A-Za-z0-9_./-]+$' | sort -u); do
        [ -e "$path" ] || complain "$doc names $path, which does not exist"
    done
done

# ---- STATUS.md ----
tests=
[ ! -f build/build.ninja ] || tests=$(meson test -C build --list 2>/dev/null || :)
known_test() {
    [ -e "tests/boot/$1.boot" ] || echo "$tests" | grep -q "[ /]$1\$"
}

check_command() { # a whole command line of STATUS.md
    # VARIABLE=value before the command is not the command
    set -f
    # shellcheck disable=SC2086
    set -- $1
    set +f
    while [ $# -gt 0 ]; do
        case $1 in *=*) shift ;; *) break ;; esac
    done
    [ $# -gt 0 ] || return 0
    case $1 in
    make)
        for target; do
            case $target in
            make | *=* | -*) ;;
            *) grep -q "^$target:" GNUmakefile || complain "STATUS.md: there is no 'make $target'" ;;
            esac
        done
        ;;
    */*boot-test.sh)
        [ -x "$1" ] || complain "STATUS.md: there is no $1"
        shift
        while [ $# -gt 0 ]; do
            case $1 in
            --long) shift ;;
            -*) ;;
            *) [ -f "tests/boot/${1%.boot}.boot" ] || complain "STATUS.md: there is no boot test '$1'" ;;
            esac
            shift
        done
        ;;
    build/* | ./build/* | xhyve) ;; # made by the build
    */*) [ -e "$1" ] || complain "STATUS.md: there is no $1" ;;
    meson | ninja)
        case " $* " in
        *" test "*)
            for name; do last=$name; done
            case $last in
            test | build* | -* | --*) ;;
            *) known_test "${last#*:}" || complain "STATUS.md: there is no test '$last'" ;;
            esac
            ;;
        esac
        ;;
    *)
        command -v "$1" >/dev/null || known_test "$1" ||
            complain "STATUS.md: '$1' is no command and no test of this tree"
        ;;
    esac
}

if [ -f docs/STATUS.md ]; then
    rows=$(grep -E '^\| *[^|]+\| *(works|partly|missing) *\|' docs/STATUS.md || :)
    [ -n "$rows" ] || complain "docs/STATUS.md has no row '| capability | works/partly/missing | \`command\` |'"
    bad=$(grep -E '^\|' docs/STATUS.md | grep -vE '^\| *:?-|^\| *[Cc]apability|^\| *[^|]+\| *(works|partly|missing) *\|' || :)
    [ -z "$bad" ] || complain "docs/STATUS.md: neither works, partly nor missing:
$bad"
    bad=$(echo "$rows" | grep -E '\| *works *\|' | grep -v '`' || :)
    [ -z "$bad" ] || complain "docs/STATUS.md: works, but no command shows it:
$bad"
    commands=$(mktemp)
    echo "$rows" | awk -F'|' '{ n = split($4, part, "`"); for (i = 2; i <= n; i += 2) print part[i] }' \
        >"$commands"
    while read -r line; do
        check_command "$line"
    done <"$commands"
    rm -f "$commands"
fi

# ---- manual pages ----
if command -v mandoc >/dev/null; then
    for page in man/*; do
        mandoc -Tlint -Wstyle "$page" || status=1
    done
else
    complain "mandoc is not installed, so the manual pages are not checked"
fi
exit $status
