from __future__ import annotations

from phone_agent.address import AddressClient, FixedTftpServers


async def test_what_was_typed_in_is_answered_again_and_again() -> None:
    typed = FixedTftpServers(["192.0.2.1", "192.0.2.2"])
    client: AddressClient = typed
    assert await client.tftp_servers() == ("192.0.2.1", "192.0.2.2")
    await client.close(release=True)
    assert await client.tftp_servers() == ("192.0.2.1", "192.0.2.2")
    typed.servers = None
    assert await client.tftp_servers() is None
    assert await FixedTftpServers(None).tftp_servers() is None
