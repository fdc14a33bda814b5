// The few parts of VS Code's interface that `inline` stands on, as far as it needs them.

export const window = {
  activeTextEditor: undefined as { document: object; selections: object[] } | undefined,
  onDidChangeActiveTextEditor: (listener: (editor: unknown) => void) => {
    window.listeners.push(listener);
    return { dispose: () => undefined };
  },
  listeners: [] as ((editor: unknown) => void)[],
};

export const languages = {
  match: (selector: { scheme: string }[], document: { uri: { scheme: string } }) =>
    selector.some(({ scheme }) => scheme === document.uri.scheme) ? 10 : 0,
};

export const Disposable = { from: (...parts: object[]) => parts };
