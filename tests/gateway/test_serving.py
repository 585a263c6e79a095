"""The gateway as a process: beside a server and alone, up and down."""

import asyncio
import json
import os
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx2
import pytest

from gateway.config import Address, Settings, SettingsError
from gateway.health import FRESH_SECONDS, Readiness
from gateway.serving import CannotServeError, serving
from server.config import Settings as ServerSettings
from tests.gateway.echo import client_of
from tests.rpc.test_serving import make_certificate
from tests.run.command import ROOT, Command
from tests.run.processes import ended
from tests.serving import Served, new_user

ANY_PORT = "127.0.0.1:0"
PATIENCE_SECONDS = 30.0
NewServer = Callable[..., Command]


@pytest.fixture
async def new_server(tmp_path: Path) -> AsyncIterator[NewServer]:
    """Makes servers with a gateway beside them."""
    made: list[Command] = []

    def make(**settings: str) -> Command:
        settings = {"rest_address": ANY_PORT, **settings}
        command = Command(tmp_path / "data", tmp_path / "stderr", **settings)
        made.append(command)
        return command

    yield make
    for command in made:
        await command.clean_up()


def gateway_of(server: Command) -> int:
    """The pid of the server's gateway."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    return next(
        int(pid) for pid in children if b"gateway" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )


def environment_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


async def is_ready(url: str, verify: ssl.SSLContext | bool = True) -> bool:
    """Whether it answers within a while that the server serves."""
    async with asyncio.timeout(PATIENCE_SECONDS), client_of(url, verify=verify) as client:
        while True:
            try:
                answer = await client.get("/readyz")
            except httpx2.TransportError:
                await asyncio.sleep(0.05)
                continue
            return answer.status_code == 200


class TestBesideAServer:
    async def test_it_comes_and_goes_with_it(self, new_server: NewServer) -> None:
        server = new_server(secret="s" * 32)
        ready = await server.start()
        url = f"http://{ready['rest']}"
        async with client_of(url) as client:
            client.headers["authorization"] = f"Bearer {ready['api_key']}"
            made = await client.post("/api/user-wallets", json={"user_id": new_user()})
        assert made.status_code == 200
        pid = gateway_of(server)
        assert b"s" * 32 not in environment_of(pid)

        os.kill(pid, signal.SIGKILL)
        await ended(pid)
        assert await is_ready(url), "another one at the same address"

        successor = gateway_of(server)
        over = await server.stop()
        assert over.code == 0
        await ended(successor)
        assert "Traceback" not in over.stderr

    async def test_it_dies_with_it(self, new_server: NewServer) -> None:
        server = new_server()
        await server.start()
        pid = gateway_of(server)

        await server.kill()

        await ended(pid)

    async def test_the_servers_certificate_serves_both(
        self, new_server: NewServer, tmp_path: Path
    ) -> None:
        tls = make_certificate()
        for name, pem in (("cert.pem", tls.certificate), ("key.pem", tls.key)):
            (tmp_path / name).write_bytes(pem)
        certificate = str(tmp_path / "cert.pem")
        server = new_server(tls_cert=certificate, tls_key=str(tmp_path / "key.pem"))

        ready = await server.start()

        port = ready["rest"].rpartition(":")[2]
        trusting = ssl.create_default_context(cafile=certificate)
        assert await is_ready(f"https://localhost:{port}", trusting)
        assert (await server.stop()).code == 0

    async def test_its_address_is_taken(self, new_server: NewServer) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            over = await new_server(rest_address=address).run()

        assert over.code == 1
        assert over.stdout == ""
        assert (
            f"ZAAZ_REST_ADDRESS: cannot listen at {address}: the address is in use" in over.stderr
        )
        assert "Traceback" not in over.stderr

    async def test_its_settings_are_wrong(self, new_server: NewServer) -> None:
        over = await new_server(rest_cors_origins="nonsense", rest_nope="1").run()

        assert over.code == 1
        assert "ZAAZ_REST_CORS_ORIGINS" in over.stderr
        assert "ZAAZ_REST_NOPE is no setting" in over.stderr
        assert "Traceback" not in over.stderr

    @pytest.mark.parametrize("text", ["", "off"])
    def test_it_can_be_turned_off(self, text: str) -> None:
        assert ServerSettings.from_environment({"ZAAZ_REST_ADDRESS": text}).rest_address == ""


class TestAlone:
    async def test_it_serves_until_it_is_told_to_stop(self, served: Served) -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway"),
            cwd=ROOT,
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith("ZAAZ_")},
                "ZAAZ_REST_ADDRESS": ANY_PORT,
                "ZAAZ_GRPC_TARGET": served.target,
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), PATIENCE_SECONDS)
        ready = json.loads(line)
        assert ready["ready"] is True
        assert await is_ready(f"http://{ready['rest']}")

        process.terminate()
        _, stderr = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)

        assert process.returncode == 0
        assert stderr == b""

    async def test_its_address_is_taken(self) -> None:
        async with serving(Settings(address=Address("127.0.0.1", 0))) as address:
            with pytest.raises(CannotServeError, match=r"ZAAZ_REST_ADDRESS.*in use"):
                async with serving(Settings(address=address)):
                    pass

    async def test_a_certificate_that_is_none(self, tmp_path: Path) -> None:
        for name in ("cert.pem", "key.pem"):
            (tmp_path / name).write_text("nothing")
        settings = Settings(
            address=Address("127.0.0.1", 0),
            tls_cert=tmp_path / "cert.pem",
            tls_key=tmp_path / "key.pem",
        )
        with pytest.raises(CannotServeError, match="ZAAZ_REST_TLS_CERT"):
            async with serving(settings):
                pass


class TestReadiness:
    async def test_many_probes_are_one_call(self) -> None:
        now, asked = 100.0, 0

        async def ask() -> bool:
            nonlocal asked
            asked += 1
            await asyncio.sleep(0)
            return asked == 1

        ready = Readiness(ask, lambda: now)
        assert all(await asyncio.gather(*(ready() for _ in range(10))))
        assert asked == 1

        now += FRESH_SECONDS
        assert not await ready()
        assert asked == 2


class TestSettings:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("ZAAZ_REST_ADDRESS", ""),
            ("ZAAZ_REST_ADDRESS", "8080"),
            ("ZAAZ_REST_ADDRESS", "::1:8080"),
            ("ZAAZ_REST_ADDRESS", "127.0.0.1:99999"),
            ("ZAAZ_GRPC_TARGET", ""),
            ("ZAAZ_GRPC_CA", "/nowhere.pem"),
            ("ZAAZ_REST_TLS_CERT", "/nowhere.pem"),
            ("ZAAZ_PLAINTEXT", "yes"),
            ("ZAAZ_LOG_LEVEL", "loud"),
            ("ZAAZ_REST_RATE_PER_SECOND", "many"),
            ("ZAAZ_REST_NOPE", "1"),
        ],
    )
    def test_wrong_ones_are_named(self, name: str, value: str) -> None:
        with pytest.raises(SettingsError, match=name):
            Settings.from_environment({name: value})

    def test_every_wrong_one_is_named_at_once(self) -> None:
        wrong = {"ZAAZ_REST_ADDRESS": "x", "ZAAZ_LOG_LEVEL": "x", "ZAAZ_REST_CORS_ORIGINS": "x"}

        with pytest.raises(SettingsError) as caught:
            Settings.from_environment(wrong)

        assert all(name in str(caught.value) for name in wrong)

    def test_a_near_name_is_offered(self) -> None:
        with pytest.raises(SettingsError, match="is ZAAZ_REST_ADDRESS meant"):
            Settings.from_environment({"ZAAZ_REST_ADRESS": "x"})

    def test_the_servers_own_are_none_of_its_business(self) -> None:
        assert Settings.from_environment({"ZAAZ_SECRET": "x", "ZAAZ_MONGO_URL": "y"}) == Settings()

    def test_beyond_this_machine_there_is_tls_or_a_trusted_network(self) -> None:
        open_to_all = {"ZAAZ_REST_ADDRESS": "0.0.0.0:80"}

        with pytest.raises(SettingsError, match="in the clear"):
            Settings.from_environment(open_to_all)
        trusted = {**open_to_all, "ZAAZ_PLAINTEXT": "trusted-network"}
        assert Settings.from_environment(trusted).address == Address("0.0.0.0", 80)

    def test_half_a_certificate(self, tmp_path: Path) -> None:
        (tmp_path / "cert.pem").touch()

        with pytest.raises(SettingsError, match="both or neither"):
            Settings.from_environment({"ZAAZ_REST_TLS_CERT": str(tmp_path / "cert.pem")})
