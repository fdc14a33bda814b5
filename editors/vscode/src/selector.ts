// Which documents the server is told of: files, new ones without a name, and cells of notebooks, each as a document of its own.

export const SELECTOR = ["file", "untitled", "vscode-notebook-cell"].map((scheme) => ({ scheme }));
