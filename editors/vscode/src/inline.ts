// Between VS Code's inline suggestions and the server's: when not to ask, and what the server is told beside the request.
// Which suggestion is shown when is the server's and VS Code's to decide.

import * as vscode from "vscode";
import type { Middleware } from "vscode-languageclient/node";
import { SELECTOR } from "./selector";
import type { Server } from "./server";

type Provide = NonNullable<Middleware["provideInlineCompletionItems"]>;

export function provideInline(server: Server): Provide {
  return async (document, position, context, token, next) => {
    if (hasSeveralCursors(document)) {
      return undefined;
    }
    const result = await next(document, position, context, token);
    const [first] = Array.isArray(result) ? result : (result?.items ?? []);
    // VS Code says when an item is shown to extensions of its own only. One that was asked for and is still wanted will be.
    if (first !== undefined && !token.isCancellationRequested) {
      server.tell("textDocument/didShowCompletion", ({ code2ProtocolConverter }) => ({
        item: {
          insertText: typeof first.insertText === "string" ? first.insertText : first.insertText.value,
          ...(first.range && { range: code2ProtocolConverter.asRange(first.range) }),
          ...(first.command && { command: code2ProtocolConverter.asCommand(first.command) }),
        },
      }));
    }
    return result;
  };
}

/** Tells the server which document is looked at, now and from now on. */
export function followFocus(server: Server): vscode.Disposable {
  const tell = (editor: vscode.TextEditor | undefined): void =>
    server.tell("textDocument/didFocus", ({ code2ProtocolConverter }) =>
      editor === undefined || vscode.languages.match(SELECTOR, editor.document) === 0
        ? {}
        : { textDocument: { uri: code2ProtocolConverter.asUri(editor.document.uri) } },
    );
  return vscode.Disposable.from(
    vscode.window.onDidChangeActiveTextEditor(tell),
    server.onDidStart(() => tell(vscode.window.activeTextEditor)),
  );
}

/** VS Code would insert the text of one place at all of them. */
function hasSeveralCursors(document: vscode.TextDocument): boolean {
  const editor = vscode.window.activeTextEditor;
  return editor !== undefined && editor.document === document && editor.selections.length > 1;
}
