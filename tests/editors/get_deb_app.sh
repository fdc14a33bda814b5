#!/usr/bin/env bash
# get_deb_app.sh SUITE DEST PACKAGE...: packages of another Debian suite, with all they need, unpacked below DEST/root.
#
# The system is not touched and root is not needed: apt gets folders of its own. The mirror and the keyring are those of this
# machine's own sources. What lies in DEST/root needs its own libc too: own_libc.sh sees to that, program by program.
set -euo pipefail
fail() { echo "error: $*" >&2; exit 1; }

[ $# -ge 3 ] || fail "expected get_deb_app.sh SUITE DEST PACKAGE..., found $# words"
mkdir -p "$2"
suite=$1 dest=$(readlink -f "$2")
shift 2
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || fail "no apt-get and dpkg-deb here, expected Debian"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keyring" ] || fail "no $keyring here, expected Debian's keys (the package debian-archive-keyring)"
# Debian's main archive, as this machine names it: not security, not updates, not another vendor's.
uri=$(apt-get indextargets --format '$(SITE)|$(RELEASE)|$(REPO_URI)' 'Created-By: Packages' 'Component: main' |
  awk -F'|' '$2 !~ /security|updates|backports|nodistro|sdk/ && $3 ~ /debian/ {print $3; exit}')
[ -n "$uri" ] || fail "apt's sources name no mirror of Debian's main archive, expected one with $suite"

own=$dest/apt
rm -rf "$own" "$dest/debs" "$dest/root"
mkdir -p "$own"/etc/apt/{apt.conf.d,preferences.d,sources.list.d} "$own"/var/lib/apt/lists/partial "$own"/var/cache/apt \
  "$own"/var/lib/dpkg "$dest"/debs/partial "$dest/root"
: >"$own/var/lib/dpkg/status" # nothing is installed, so apt fetches all that a package needs, libc too
echo "deb [signed-by=$keyring] $uri $suite main" >"$own/etc/apt/sources.list"
options=(-qq -o Dir="$own" -o Dir::State::status="$own/var/lib/dpkg/status" -o Dir::Cache::archives="$dest/debs"
  -o APT::Architecture="$(dpkg --print-architecture)" -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none
  -o APT::Install-Recommends=false -o Debug::NoLocking=1)
apt-get "${options[@]}" update >"$dest/apt.log" 2>&1 || fail "apt has no $suite at its mirror: $(grep -m1 '^E:' "$dest/apt.log")"
apt-get "${options[@]}" -y -d install "$@" >"$dest/apt.log" 2>&1 ||
  fail "apt cannot fetch $* from $suite: $(grep -m1 '^E:' "$dest/apt.log")"
for package in "$dest"/debs/*.deb; do dpkg-deb -x "$package" "$dest/root"; done
rm -rf "$own" "$dest/debs" "$dest/apt.log"
