"""litellm-budget completion: prints a script that makes a shell complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

_NAME = "litellm-budget"
_VARIABLE = "_LITELLM_BUDGET_COMPLETE"
_SHELLS: dict[str, type[ShellComplete]] = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}


@click.command()
@click.argument("shell", type=click.Choice(list(_SHELLS)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that makes SHELL complete commands and options.

    bash, in ~/.bashrc: eval "$(litellm-budget completion bash)"; zsh, in ~/.zshrc: eval "$(litellm-budget completion zsh)"; fish:
    litellm-budget completion fish > ~/.config/fish/completions/litellm-budget.fish
    """
    complete = _SHELLS[shell](context.find_root().command, {}, _NAME, _VARIABLE)
    # This does not use `complete.source()`, which for bash runs this machine's bash to check its version.
    script = complete.source_template % complete.source_vars()
    # If no word matches, bash completes the names of files.
    click.echo(script.replace("complete -o nosort", "complete -o default -o nosort"))
