"""`create-key` and `seed`, on a real database and on the embedded one."""

from uuid import uuid4

import grpc
import pytest

from tests.conftest import MongoClient
from tests.run.conftest import NewCommand
from tests.serving import SECRET, connected, reason_of


async def test_create_key_makes_a_key_that_works(
    new_command: NewCommand, mongo_url: str, mongo_client: MongoClient
) -> None:
    name = f"test_{uuid4().hex[:16]}"
    database = {"mongo_url": mongo_url, "mongo_database": name, "secret": SECRET}
    create = new_command(
        *("create-key", "--client-id", "billing", "--scope", "wallet.write"),
        *("--scope", "wallet.read", "--name", "first"),
        **database,
    )
    made = await create.run()
    assert made.code == 0, made.stderr
    (line,) = made.lines
    assert set(line) == {"id", "client_id", "api_key"}
    assert line["client_id"] == "billing"

    server = new_command(**database)
    ready = await server.start()
    assert ready["api_key"] == ""
    async with connected(ready["grpc"], line["api_key"]) as served:
        user_id = await served.new_wallet()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await served.grant(user_id, 1)
    assert reason_of(refused.value) == "SCOPE_MISSING"
    assert (await server.stop()).code == 0
    # Nothing but prices, keys and what the calls did: no secret, no key, no mongod of its own.
    assert not server.data_dir.exists()
    await mongo_client.drop_database(name)


async def test_create_key_refuses_what_is_no_client(new_command: NewCommand) -> None:
    create = new_command("create-key", "--client-id", "Not A Client", "--scope", "admin")
    over = await create.run()
    assert over.code == 1
    assert "client_id" in over.stderr
    assert "Traceback" not in over.stderr


async def test_seed_twice_adds_nothing(new_command: NewCommand) -> None:
    first = await new_command("seed").run()
    assert first.code == 0, first.stderr
    (report,) = first.lines
    assert report["models_added"] > 100
    assert report["credit_price_added"] is report["profit_added"] is True

    (again,) = (await new_command("seed").run()).lines
    assert not any(again.values())

    server = new_command()
    await server.start()
    assert (await server.stop()).code == 0
    (after,) = (await new_command("seed").run()).lines
    assert not any(after.values())


async def test_commands_refuse_a_directory_in_use(new_command: NewCommand) -> None:
    server = new_command()
    await server.start()
    over = await new_command("seed").run()
    assert over.code == 1
    assert "another server runs on" in over.stderr
    assert (await server.stop()).code == 0
