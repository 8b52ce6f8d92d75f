#!/bin/sh
# Programs that some tests use: fuse3 (power cuts on a file system of our own), pgbouncer (a transaction pooler) and
# chromium (the board in a browser).
# Installed where that needs no question: as root on Debian. Elsewhere those tests skip.
set -u
missing=""
command -v fusermount3 >/dev/null 2>&1 || missing="$missing fuse3"
command -v pgbouncer >/dev/null 2>&1 || [ -x /usr/sbin/pgbouncer ] || missing="$missing pgbouncer"
command -v chromium >/dev/null 2>&1 || missing="$missing chromium"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086
    if { apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing; } >/dev/null 2>&1; then
        exit 0
    fi
fi
echo "not installed:$missing (the tests that use them will skip)"
