;;; codestral-eglot.el --- suggestions through eglot  -*- lexical-binding: t; -*-

;; For your init file; Emacs 30 or newer. Eglot starts one server for each mode, so this one takes the place of another.

(require 'eglot)

(add-to-list 'eglot-server-programs
             '(python-base-mode . ("codestral-lsp" "--stdio"
                                   :initializationOptions (:max_lines 1)))) ; what is shown is one line
(add-hook 'python-base-mode-hook #'eglot-ensure)

;; The suggestion stands behind the cursor, greyed; TAB takes it.
(add-hook 'python-base-mode-hook #'completion-preview-mode)

;;; codestral-eglot.el ends here
