"""The command `zaaz`."""

import os
from typing import Final

import click
from click.shell_completion import get_completion_class

from zaaz_client.command.catalog import catalog
from zaaz_client.command.costs import estimate, explain
from zaaz_client.command.grant import grant
from zaaz_client.command.keys import keys
from zaaz_client.command.line import Commands
from zaaz_client.command.models import models
from zaaz_client.command.usage import usage
from zaaz_client.command.wallet import wallet
from zaaz_client.command.wallet_create import create_wallet
from zaaz_client.command.wallets import list_wallets, verify_wallets
from zaaz_client.replay.command import replay
from zaaz_client.statements.command import statement

SHELLS: Final = ("bash", "zsh", "fish")
COMPLETES: Final = "_ZAAZ_COMPLETE"
"""Set by the shells' scripts when they ask for completions."""


@click.group(cls=Commands)
@click.version_option(package_name="zaaz-client")
def main() -> None:
    """Credits, wallets and metered usage from the command line.

    ZAAZ_TARGET and ZAAZ_API_KEY say which server and who is asking. Without
    them it is the one that `make run` started in this directory.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # errors are told in our own words


@main.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print what has SHELL complete this command.

    \b
    bash: echo 'eval "$(zaaz completion bash)"' >> ~/.bashrc
    zsh:  echo 'eval "$(zaaz completion zsh)"' >> ~/.zshrc
    fish: zaaz completion fish > ~/.config/fish/completions/zaaz.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(main, {}, "zaaz", COMPLETES).source())


main.add_command(catalog)
main.add_command(estimate)
main.add_command(explain)
main.add_command(grant)
main.add_command(keys)
main.add_command(models)
main.add_command(replay)
main.add_command(statement)
main.add_command(usage)
main.add_command(wallet)
wallet.add_command(create_wallet)
wallet.add_command(list_wallets)
wallet.add_command(verify_wallets)
