#!/usr/bin/env bash
# install_nvim.sh SUITE FOLDER: FOLDER/bin/nvim, the Neovim of that Debian suite, which runs on an older Debian too.
#
# trixie has Neovim 0.10, forky 0.12. A suite moves, so a test asks for what it needs (has('nvim-0.12')), not for a version.
set -euo pipefail
fail() { echo "error: $*" >&2; exit 1; }

[ $# -eq 2 ] || fail "expected install_nvim.sh SUITE FOLDER, such as forky build/editors/nvim-0.12, found $# words"
here=$(dirname "$(readlink -f "$0")")
mkdir -p "$2/bin"
folder=$(readlink -f "$2")
"$here/get_deb_app.sh" "$1" "$folder" neovim
"$here/own_libc.sh" "$folder/root" usr/bin/nvim
cat >"$folder/bin/nvim" <<'SCRIPT'
#!/bin/sh
root=$(dirname "$(dirname "$(readlink -f "$0")")")/root
VIMRUNTIME=${VIMRUNTIME:-$root/usr/share/nvim/runtime}
export VIMRUNTIME
exec "$root/usr/bin/nvim" "$@"
SCRIPT
chmod +x "$folder/bin/nvim"
"$folder/bin/nvim" --version | head -1
