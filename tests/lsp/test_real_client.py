"""The server under pytest-lsp, a client library that other servers are tested with: Neovim's capabilities, and typing."""

from lsp_place import Place, program
from lsprotocol import types
from pytest_lsp import ClientServerConfig, LanguageClient, client_capabilities


async def test_typing_with_neovims_capabilities(place: Place) -> None:
    config = ClientServerConfig(server_command=[*program(), "--stdio"], server_env=place.env)
    client = await config.start()
    assert isinstance(client, LanguageClient)
    params = types.InitializeParams(capabilities=client_capabilities("neovim"), root_uri=place.repository.as_uri())
    result = await client.initialize_session(params)
    assert result.capabilities.inline_completion_provider is not None
    uri = (place.repository / "b.py").as_uri()
    item = types.TextDocumentItem(uri=uri, language_id="python", version=1, text="x = 1\n")
    client.text_document_did_open(types.DidOpenTextDocumentParams(item))
    for n_typed, key in enumerate("y = "):
        at = types.Position(line=1, character=n_typed)
        change = types.TextDocumentContentChangePartial(range=types.Range(start=at, end=at), text=key)
        identifier = types.VersionedTextDocumentIdentifier(uri=uri, version=n_typed + 2)
        client.text_document_did_change(types.DidChangeTextDocumentParams(identifier, [change]))
        suggested = await client.text_document_inline_completion_async(
            types.InlineCompletionParams(
                text_document=types.TextDocumentIdentifier(uri),
                position=types.Position(line=1, character=n_typed + 1),
                context=types.InlineCompletionContext(trigger_kind=types.InlineCompletionTriggerKind.Automatic),
            )
        )
        assert isinstance(suggested, types.InlineCompletionList)
        assert [item.insert_text for item in suggested.items] == [f"<{n_typed + 1}>"]
    assert [event["prompt"] for event in place.events("complete")] == ["x = 1\n" + "y = "[:n] for n in range(1, 5)]
    await client.shutdown_session()
