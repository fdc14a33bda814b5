;;; eglot_check.el --- eglot without a screen, as test_emacs.py calls it  -*- lexical-binding: t; -*-

;; Expects CHECK_SETTINGS, CHECK_FILE, CHECK_EDIT and CHECK_KEYS in the environment. Prints one JSON object.

(load (getenv "CHECK_SETTINGS") nil t)
(remove-hook 'python-base-mode-hook #'eglot-ensure) ; it waits for a command, and without a screen none comes
(find-file (getenv "CHECK_FILE"))
(call-interactively #'eglot)
(goto-char (point-max))
(insert (getenv "CHECK_EDIT"))
(backward-kill-word 1)
(insert (getenv "CHECK_KEYS"))
(let* ((server (eglot-current-server))
       (position (list :textDocument (eglot--TextDocumentIdentifier) :position (eglot--pos-to-lsp-position)))
       (inline (progn (eglot--signal-textDocument/didChange)
                      (eglot--request server :textDocument/inlineCompletion
                                      (append position '(:context (:triggerKind 1))))))
       (menu (eglot--request server :textDocument/completion position)))
  (princ (json-serialize
          (list :name (plist-get (eglot--server-info server) :name)
                :encoding (plist-get (eglot--capabilities server) :positionEncoding)
                :character (plist-get (plist-get position :position) :character)
                :inline (plist-get inline :items)
                :menu (plist-get menu :items))))
  (eglot-shutdown server)
  (set-buffer-modified-p nil))
