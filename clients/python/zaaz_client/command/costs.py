"""`zaaz explain` and `zaaz estimate`: what a charge came to, and what a use would."""

import json
from datetime import datetime
from typing import Final

import click
from zaaz.credits.v1.credits_process_service_pb2 import (
    EstimateCostRequest,
    EstimateCostResponse,
    ExplainChargeRequest,
    ExplainChargeResponse,
)

from zaaz_client.client import ZaazClient
from zaaz_client.command.asking import (
    Refused,
    as_dict,
    ask,
    asking,
    check_id,
    moment,
    show,
    time_text,
)
from zaaz_client.command.line import BadUsage
from zaaz_client.statements.formats import credits_text

_SCOPES: Final = "credits.read or admin"
_TOKENS: Final = click.IntRange(0, 2**63 - 1)
_VERSIONS: Final = (
    ("model", "ai_model_history_id"),
    ("credit price", "billing_setting_history_id"),
    ("margin", "credits_profit_history_id"),
    ("endpoint", "feature_endpoint_history_id"),
)


@click.command()
@click.argument("usage_key", required=False, default="")
@click.option("--user", "user_id", default="", callback=check_id, help="Whose it is, with KEY.")
@click.option("--client", "client_id", default="", help="Who sent it.  [default: the key's client]")
@click.option("--id", "usage_id", default="", callback=check_id, help="Of the usage, not its KEY.")
@asking
def explain(
    usage_key: str,
    user_id: str,
    client_id: str,
    usage_id: str,
    target: str,
    given_key: str | None,
    as_json: bool,
) -> None:
    """Tell how the charge of the usage KEY came about, and reckon it again.

    What a hold billed is under the key hold:ID unless it was captured under
    another. What it cost and earned is shown to keys with the scope admin.

    Exit codes: 0 it was billed as it should; 1 it was not, or refused; 2 wrong
    options or key; 3 no server.
    """
    if bool(usage_key) == bool(usage_id) or bool(usage_key) != bool(user_id):
        raise BadUsage("Say which: KEY with --user, or --id.")
    request = ExplainChargeRequest(
        usage_key=usage_key, user_id=user_id, client_id=client_id, credits_usage_id=usage_id
    )

    async def work(client: ZaazClient) -> ExplainChargeResponse:
        return await client.process.ExplainCharge(request)

    found = ask(work, target, given_key, _SCOPES)
    if as_json:
        click.echo(json.dumps(as_dict(found)))
    else:
        _show_explanation(found)
    if not found.matches:
        again = credits_text(found.recomputed_credits_micros)
        raise Refused(f"Reckoned again it comes to {again} credits, which is not what was billed.")


@click.command()
@click.option("--model", default="", help="The model, as provider/model.")
@click.option("--endpoint", default="", help="The feature endpoint, by its value.")
@click.option("--input", "input_tokens", type=_TOKENS, default=0, help="Input tokens.")
@click.option("--output", "output_tokens", type=_TOKENS, default=0, help="Output tokens.")
@click.option("--cache-read", "cache_read_tokens", type=_TOKENS, default=0, help="Of a cache.")
@click.option("--cache-write", "cache_write_tokens", type=_TOKENS, default=0, help="Into one.")
@click.option("--at", "time", type=moment, help="At the prices in force then.  [default: now]")
@asking
def estimate(
    model: str,
    endpoint: str,
    input_tokens: int,
    output_tokens: int,
    cache_read_tokens: int,
    cache_write_tokens: int,
    time: datetime | None,
    target: str,
    given_key: str | None,
    as_json: bool,
) -> None:
    """Say what a use of --model, --endpoint or both would cost, whoever it is for.

    Exit codes: 0 said; 1 refused; 2 wrong options or key; 3 no server.
    """
    if not model and not endpoint:
        raise BadUsage("Say what is used: --model, --endpoint or both.")
    request = EstimateCostRequest(
        feature_endpoint=endpoint,
        ai_model=model,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cache_read_tokens=cache_read_tokens,
        cache_write_tokens=cache_write_tokens,
    )
    if time is not None:
        request.time.FromDatetime(time)

    async def work(client: ZaazClient) -> EstimateCostResponse:
        return await client.process.EstimateCost(request)

    found = ask(work, target, given_key, _SCOPES)
    if as_json:
        click.echo(json.dumps(as_dict(found)))
    else:
        _show_estimate(found)


def _show_explanation(found: ExplainChargeResponse) -> None:
    show(["step", "what it is"], [(step.name.replace("_", " "), step.text) for step in found.steps])
    versions = [(name, getattr(found.versions, field)) for name, field in _VERSIONS]
    rows = [(name, history_id) for name, history_id in versions if history_id]
    if rows:
        show([f"in force at {time_text(found.versions.priced_time)}", "history"], rows)
    if found.matches:
        click.echo(f"Reckoned again: {credits_text(found.recomputed_credits_micros)}, as billed.")


def _show_estimate(found: EstimateCostResponse) -> None:
    parts = found.estimate
    rows = [
        ("input", parts.input_credits_micros),
        ("output", parts.output_credits_micros),
        ("endpoint", parts.endpoint_credits_micros),
        ("total", parts.credits_micros),
    ]
    show(
        [f"at {time_text(parts.priced_time)}", ">credits"],
        [(name, credits_text(micros)) for name, micros in rows],
    )
