;;; codestral-lsp-mode.el --- suggestions through lsp-mode  -*- lexical-binding: t; -*-

;; For your init file; lsp-mode 10 or newer. The server runs beside the others that lsp-mode starts for a buffer.

(require 'lsp-mode)
(require 'lsp-inline-completion)

(lsp-register-client
 (make-lsp-client :new-connection (lsp-stdio-connection '("codestral-lsp" "--stdio"))
                  :activation-fn (lambda (&rest _) (derived-mode-p 'prog-mode))
                  :initialization-options '(:max_lines 6)
                  :add-on? t
                  :server-id 'codestral-lsp))
(add-hook 'prog-mode-hook #'lsp-deferred)

;; Seconds after the last key; lsp-mode's own are 0.5 and 2. The second counts from the key too, so it must be the greater one.
(setq lsp-idle-delay 0.1
      lsp-inline-completion-idle-delay 0.2)
;; While a suggestion is shown: TAB takes it, C-n and C-p show another, C-g removes it.
(define-key lsp-inline-completion-active-map (kbd "TAB") #'lsp-inline-completion-accept)
(put 'lsp-inline-completion-accept 'lsp-inline-completion-keep t)

;;; codestral-lsp-mode.el ends here
