"""`zaaz` and servers that want certificates."""

from pathlib import Path

from tests.certificates import Authority
from tests.client.commands import zaaz
from tests.client.test_rotation import encrypted
from tests.conftest import MongoClient
from tests.serving import Served, make_key, new_key


async def test_certificates_come_from_the_environment(
    mongo_url: str, mongo_client: MongoClient, served: Served, tmp_path: Path
) -> None:
    name = f"test_{new_key()[:16]}"
    authority, clients = Authority(), Authority()
    authority.certify().write(tmp_path / "cert.pem", tmp_path / "key.pem")
    clients.certify().write(tmp_path / "own.crt", tmp_path / "own.key")
    for file, who in (("roots.pem", authority), ("clients.pem", clients)):
        (tmp_path / file).write_bytes(who.roots)
    own = {
        "ZAAZ_CA": str(tmp_path / "roots.pem"),
        "ZAAZ_CLIENT_CERT": str(tmp_path / "own.crt"),
        "ZAAZ_CLIENT_KEY": str(tmp_path / "own.key"),
    }
    key = await make_key(mongo_url, name, "tests", ["admin"])
    words = ("wallet", "list", "--json")
    async with encrypted(mongo_url, name, tmp_path, tmp_path / "clients.pem") as target:
        asking = {"ZAAZ_TARGET": target, "ZAAZ_API_KEY": key}
        good = await zaaz(served, *words, **asking, **own)
        assert (good.code, good.out, good.err) == (0, "", "")
        for wrong, code, said in (
            ({**own, "ZAAZ_CLIENT_KEY": ""}, 2, "ZAAZ_CLIENT_KEY"),
            ({**own, "ZAAZ_CA": "/no/such/file"}, 2, "/no/such/file"),
            ({**own, "ZAAZ_CLIENT_KEY": own["ZAAZ_CA"]}, 2, "no private key"),
            ({"ZAAZ_CA": own["ZAAZ_CA"]}, 3, target),
        ):
            ended = await zaaz(served, *words, **asking, **wrong)
            assert (ended.code, said in ended.err) == (code, True), ended.err
    await mongo_client.drop_database(name)
