"""What a prompt is in token ids, outside of any daemon: for counting what an event must feed, and for peers that shall read the very same ids.

Knows: the daemon's layout of a prompt. Does not know: states, servers.
"""

from collections.abc import Iterable

from cache.chain import Chain, as_tokens
from daemon.prompt import Prompter
from daemon.protocol import CompletionRequest
from lsp.completion import request_at
from model.fim import document_ids
from model.source import open_source
from model.tokenizer import Tokenizer

Files = Iterable[tuple[str, str]]  # paths and texts


class PromptReader:
    """The layout is `spm`, in which the lines below the cursor stand before those above it: typing only appends."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.prompter = Prompter(tokenizer, Chain.start(b"benchmark"))

    @classmethod
    def of_model(cls, name: str) -> "PromptReader":
        """Raises model.config.ConfigError."""
        return cls(open_source(name).tokenizer())

    def repository(self, files: Files) -> Chain:
        """What is read before a prompt's own tokens: the start and the files, in this order."""
        pieces = [(as_tokens(document_ids(self.tokenizer, path, text)), False) for path, text in files]
        return self.prompter.root.extend("base", pieces)

    def ids(self, repository: Chain, request: CompletionRequest) -> list[int]:
        """The whole prompt; what token healing takes back is not in it."""
        return self.ids_of(self.prompter.completion(repository, request).chain)

    @staticmethod
    def ids_of(chain: Chain) -> list[int]:
        return [i for part in chain.slices for i in part.tokens.tolist()]

    def n_own(self, request: CompletionRequest) -> int:
        """Tokens of the prompt without any repository."""
        chain = self.prompter.completion(self.prompter.root, request).chain
        return sum(len(part.tokens) for part in chain.slices)

    def n_document(self, path: str, text: str) -> int:
        return len(document_ids(self.tokenizer, path, text))

    def n_text(self, text: str) -> int:
        return len(self.tokenizer.encode(text)) if text else 0


def request_of(text: str, cursor: int, path: str) -> CompletionRequest:
    """As the language server asks, with its default windows."""
    return request_at(text, cursor, path=path, document=None, max_tokens=1, budget_ms=None)
