"""The parameters of a stage, made visible: what is missing is created, and nothing is ever overwritten or deleted.

Cycles need none of it, because an absent parameter means its default; operators do, who look for it in the console.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from storage_cleanup.aws.clients import AWS_ERRORS, error_code
from storage_cleanup.config.parameters import DEFAULTS, ENABLED, PARAMETERS, SETUP_BEGUN, SETUP_DONE
from storage_cleanup.errors import ConfigurationError

_URL: Final = "supabase/url"
_AT_ONCE: Final = 10  # names that GetParameters takes
_NOTES: Final = {
    SETUP_BEGUN: "When this stage was first deployed; noted by schedule-sync. Leave it alone.",
    SETUP_DONE: "When this stage first had the URL of its project; noted by schedule-sync. Leave it alone.",
}


def note_progress(ssm: Any, path: str, now: datetime, *, is_deploy: bool) -> list[str]:
    """Create what is missing after a deploy, and note once that the stage has got its project.

    Every tick looks for the note that ends the creation, since the event of a deploy may be lost.

    Parameters
    ----------
    ssm
        A client of ``ssm``.
    is_deploy
        Whether a deploy has just finished.

    Returns
    -------
    list
        The names that were created.

    Raises
    ------
    ConfigurationError
        When Parameter Store refuses.
    """
    found = read_values(ssm, path, [SETUP_BEGUN, SETUP_DONE, _URL])
    created = create_missing(ssm, path, now) if is_deploy or SETUP_BEGUN not in found else []
    if (
        _URL in found
        and SETUP_DONE not in found
        and _create(ssm, path, SETUP_DONE, now.isoformat(), _NOTES[SETUP_DONE])
    ):
        created.append(SETUP_DONE)
    return created


def create_missing(ssm: Any, path: str, now: datetime) -> list[str]:
    """Create every parameter with a default that doesn't exist; return their names.

    On a stage that has some already, ``enabled`` comes back as what its absence meant, so that no deploy starts
    deleting. It goes first, and the note of the setup last, so a creation that stops half-way is finished as it was
    begun.

    Raises
    ------
    ConfigurationError
        When Parameter Store refuses.
    """
    found = read_values(ssm, path, [SETUP_BEGUN, *DEFAULTS])
    values = {ENABLED: DEFAULTS[ENABLED] if not found else PARAMETERS[ENABLED].absent or DEFAULTS[ENABLED]}
    values |= {name: value for name, value in DEFAULTS.items() if name != ENABLED}
    meanings = {name: PARAMETERS[name].meaning for name in DEFAULTS} | _NOTES
    missing = {name: value for name, value in {**values, SETUP_BEGUN: now.isoformat()}.items() if name not in found}
    return [name for name, value in missing.items() if _create(ssm, path, name, value, meanings[name])]


def differences(tree: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters of a tree that have another value than their default; never a secret."""
    return {name: tree[name] for name, default in DEFAULTS.items() if tree.get(name, default) != default}


def read_values(ssm: Any, path: str, names: Iterable[str]) -> dict[str, str]:
    """Return those of the named parameters that exist, not decrypted.

    Raises
    ------
    ConfigurationError
        When Parameter Store refuses.
    """
    wanted = [f"{path.rstrip('/')}/{name}" for name in names]
    try:
        answers = [ssm.get_parameters(Names=wanted[i : i + _AT_ONCE]) for i in range(0, len(wanted), _AT_ONCE)]
    except AWS_ERRORS as error:
        raise ConfigurationError([f"the parameters below {path} can't be read: {error}"]) from error
    return {
        each["Name"].removeprefix(f"{path.rstrip('/')}/"): each["Value"]
        for answer in answers
        for each in answer["Parameters"]
    }


def _create(ssm: Any, path: str, name: str, value: str, description: str) -> bool:
    """Create one parameter; return False when somebody else has been faster, whose value stays."""
    full = f"{path.rstrip('/')}/{name}"
    try:
        ssm.put_parameter(Name=full, Value=value, Type="String", Description=description, Overwrite=False)
    except AWS_ERRORS as error:
        if error_code(error) == "ParameterAlreadyExists":
            return False
        raise ConfigurationError([f"{full} can't be created: {error}"]) from error
    return True
