"""Settings: what is read, what is refused, and that .env.example tells the truth."""

import re
from pathlib import Path

import pytest

from gateway.config import NAMES as GATEWAY_NAMES
from gateway.config import Settings as GatewaySettings
from server.config import (
    CLIENT_SETTINGS,
    GATEWAY_PREFIX,
    GATEWAY_SETTINGS,
    NAMES,
    Settings,
    SettingsError,
)

EXAMPLE = Path(__file__).parent.parent / ".env.example"
SECRET = "s" * 32


def problems_of(**environment: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment(environment)
    return str(caught.value).splitlines()


def example() -> dict[str, str]:
    lines = EXAMPLE.read_text().splitlines()
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    return {name: value for name, _, value in pairs}


def test_the_example_lists_every_setting_with_its_default() -> None:
    assert example().keys() == NAMES | GATEWAY_NAMES
    assert Settings.from_environment(example()) == Settings()
    assert GatewaySettings.from_environment(example()) == GatewaySettings()


def test_the_server_knows_the_gateways_settings_from_its_own() -> None:
    others = {name for name in GATEWAY_NAMES - NAMES if not name.startswith(GATEWAY_PREFIX)}

    assert others == GATEWAY_SETTINGS


def test_the_example_explains_every_setting() -> None:
    paragraphs = EXAMPLE.read_text().strip().split("\n\n")[1:]

    assert all(paragraph.startswith("# ") for paragraph in paragraphs)
    assert set(re.findall(r"^(ZAAZ_\w+)=", "\n".join(paragraphs), re.MULTILINE)) == set(example())


def test_nothing_set_is_the_default() -> None:
    settings = Settings.from_environment({"PATH": "/bin", "HOME": "/"})

    assert settings == Settings()
    assert settings.grpc_address == "127.0.0.1:50051"


def test_everything_set(tmp_path: Path) -> None:
    for name in ("cert.pem", "key.pem", "ca.pem"):
        (tmp_path / name).write_text("x")
    environment = {
        "ZAAZ_GRPC_ADDRESS": "0.0.0.0:443",
        "ZAAZ_REST_ADDRESS": "off",
        "ZAAZ_METRICS_ADDRESS": "",
        "ZAAZ_DATA_DIR": str(tmp_path / "new"),
        "ZAAZ_MONGO_URL": "mongodb://u:p@db/?replicaSet=r",
        "ZAAZ_MONGO_DATABASE": "credits",
        "ZAAZ_SECRET": SECRET,
        "ZAAZ_TLS_CERT": str(tmp_path / "cert.pem"),
        "ZAAZ_TLS_KEY": str(tmp_path / "key.pem"),
        "ZAAZ_TLS_CLIENT_CA": str(tmp_path / "ca.pem"),
        "ZAAZ_PLAINTEXT": "trusted-network",
        "ZAAZ_REFLECTION": "on",
        "ZAAZ_LOG_LEVEL": "DEBUG",
        "ZAAZ_EXPIRY_NOTICE_DAYS": "1, 30",
        "ZAAZ_DEMO_CATALOG": str(tmp_path / "cert.pem"),
    }

    settings = Settings.from_environment(environment)

    assert environment.keys() == NAMES
    assert settings == Settings(
        grpc_address="0.0.0.0:443",
        rest_address="",
        metrics_address="",
        data_dir=tmp_path / "new",
        mongo_url="mongodb://u:p@db/?replicaSet=r",
        mongo_database="credits",
        secret=SECRET,
        tls_cert=tmp_path / "cert.pem",
        tls_key=tmp_path / "key.pem",
        tls_client_ca=tmp_path / "ca.pem",
        plaintext="trusted-network",
        reflection="on",
        log_level="DEBUG",
        expiry_notice_days=(30, 1),
        demo_catalog=tmp_path / "cert.pem",
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ZAAZ_GRPC_ADDRESS", "50051"),
        ("ZAAZ_GRPC_ADDRESS", ""),
        ("ZAAZ_REST_ADDRESS", "127.0.0.1:99999"),
        ("ZAAZ_METRICS_ADDRESS", "off"),
        ("ZAAZ_DATA_DIR", ""),
        ("ZAAZ_DATA_DIR", str(EXAMPLE)),
        ("ZAAZ_MONGO_URL", "localhost:27017"),
        ("ZAAZ_MONGO_DATABASE", ""),
        ("ZAAZ_MONGO_DATABASE", "a.b"),
        ("ZAAZ_MONGO_DATABASE", "x" * 64),
        ("ZAAZ_SECRET", "short"),
        ("ZAAZ_TLS_CERT", "/no/such/file.pem"),
        ("ZAAZ_TLS_KEY", "/no/such/file.pem"),
        ("ZAAZ_TLS_CLIENT_CA", "/no/such/file.pem"),
        ("ZAAZ_PLAINTEXT", "yes"),
        ("ZAAZ_REFLECTION", "true"),
        ("ZAAZ_LOG_LEVEL", "info"),
        ("ZAAZ_EXPIRY_NOTICE_DAYS", "7;1"),
        ("ZAAZ_EXPIRY_NOTICE_DAYS", "0"),
        ("ZAAZ_EXPIRY_NOTICE_DAYS", "1,2,3,4,5,6,7,8,9"),
    ],
)
def test_a_malformed_value_is_named_and_told_what_is_right(name: str, value: str) -> None:
    (problem,) = problems_of(**{name: value})

    assert re.match(rf"{name} must .+", problem)


def test_every_setting_that_is_wrong_is_named() -> None:
    problems = problems_of(ZAAZ_REFLECTION="x", ZAAZ_LOG_LEVEL="x", ZAAZ_GPRC_ADDRESS="x")

    assert [problem.split()[0] for problem in problems] == [
        "ZAAZ_GPRC_ADDRESS",
        "ZAAZ_LOG_LEVEL",
        "ZAAZ_REFLECTION",
    ]


def test_a_typo_is_not_silent() -> None:
    assert problems_of(ZAAZ_GPRC_ADDRESS="127.0.0.1:1") == [
        "ZAAZ_GPRC_ADDRESS is no setting; is ZAAZ_GRPC_ADDRESS meant?"
    ]


def test_the_clients_settings_may_stand_beside() -> None:
    environment = dict.fromkeys(CLIENT_SETTINGS, "x")

    assert Settings.from_environment(environment) == Settings()


def test_a_database_of_ones_own_needs_a_secret() -> None:
    (problem,) = problems_of(ZAAZ_MONGO_URL="mongodb://db")

    assert problem.startswith("ZAAZ_SECRET is required with ZAAZ_MONGO_URL")


@pytest.mark.parametrize("name", ["ZAAZ_TLS_CERT", "ZAAZ_TLS_KEY"])
def test_a_certificate_goes_with_its_key(name: str, tmp_path: Path) -> None:
    file = tmp_path / "one.pem"
    file.write_text("x")

    (problem,) = problems_of(**{name: str(file)})

    assert problem == "ZAAZ_TLS_CERT and ZAAZ_TLS_KEY must be set both or neither"


def test_clients_certificates_need_the_servers_and_shut_the_gateway_out(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("x")

    certificate, gateway = problems_of(ZAAZ_TLS_CLIENT_CA=str(file))

    assert certificate == "ZAAZ_TLS_CLIENT_CA needs ZAAZ_TLS_CERT and ZAAZ_TLS_KEY"
    assert "ZAAZ_REST_ADDRESS=off" in gateway


def test_plaintext_beyond_this_machine_has_to_be_said() -> None:
    (problem,) = problems_of(ZAAZ_GRPC_ADDRESS="0.0.0.0:50051")

    assert problem.startswith("ZAAZ_GRPC_ADDRESS is reachable from other machines")
    assert "ZAAZ_PLAINTEXT=trusted-network" in problem


def test_secrets_stay_out_of_the_repr() -> None:
    settings = Settings.from_environment(
        {"ZAAZ_SECRET": SECRET, "ZAAZ_MONGO_URL": "mongodb://u:hunter2@db"}
    )

    assert SECRET not in repr(settings)
    assert "hunter2" not in repr(settings)


def test_a_malformed_secret_is_not_repeated() -> None:
    assert "hunter2" not in "".join(problems_of(ZAAZ_SECRET="hunter2"))
    assert "hunter2" not in "".join(problems_of(ZAAZ_MONGO_URL="http://u:hunter2@db"))
