"""How Flower is started: another interpreter, and no secret on its command line."""

import os
from collections.abc import Sequence
from importlib.resources import files

from core.errors import ConfigurationMistake
from core.settings import PREFIX, FlowerSettings, Settings
from models.catalogue import find_catalogue
from queues.topology import Topology

# 689 MB of memory at Flower's default of 100,000 tasks.
_MAX_TASKS = 10_000
# Every task has the same name; its result says what became of the job.
_COLUMNS = "uuid,state,received,runtime,worker,result"


def flower_command(settings: FlowerSettings, *, extra: Sequence[str] = ()) -> list[str]:
    """Raises `ConfigurationMistake` where Flower is not installed or would be open to everybody."""
    if not settings.password.get_secret_value():
        raise ConfigurationMistake("Flower does not start without a password. Set PENSTOCK_FLOWER__PASSWORD.")
    if not settings.python.exists():
        raise ConfigurationMistake(
            f"{settings.python} does not exist. Run `make flower-env`, or set PENSTOCK_FLOWER__PYTHON to an "
            "interpreter with Flower."
        )
    # Not resolved: a virtual environment's interpreter is a link, and its place is what counts.
    python = str(settings.python.absolute())
    return [
        *(python, "-m", "celery", "-A", "penstock_flower", "flower"),
        f"--address={settings.host}",
        f"--port={settings.port}",
        f"--max-tasks={_MAX_TASKS}",
        *extra,
    ]


def flower_environment(settings: Settings) -> dict[str, str]:
    """Credentials go here: everybody on the machine can read a command line. Ours stay with us."""
    topology = Topology(settings.broker)
    models = find_catalogue(settings).names
    broker_api = settings.flower.broker_api.get_secret_value().rstrip("/")
    return {
        "FLOWER_TASKS_COLUMNS": _COLUMNS,
        **{name: value for name, value in os.environ.items() if not name.upper().startswith(PREFIX)},
        "PYTHONPATH": str(files("cli.flower")),
        "PENSTOCK_QUEUES": ",".join(topology.queue_name(*pair) for pair in topology.pairs(models)),
        "CELERY_BROKER_URL": settings.broker.url.get_secret_value(),
        "FLOWER_BASIC_AUTH": _credentials(settings.flower),
        # Without the slash at its end, Flower asks one level too high and shows no queue.
        **({"FLOWER_BROKER_API": f"{broker_api}/"} if broker_api else {}),
    }


def _credentials(settings: FlowerSettings) -> str:
    """Flower reads a list here: the part of a password behind a comma would be a login of its own."""
    user, password = settings.user, settings.password.get_secret_value()
    for name, text, forbidden in (("USER", user, ",:"), ("PASSWORD", password, ",")):
        if not text.isascii() or any(character in text for character in forbidden):
            raise ConfigurationMistake(
                f"PENSTOCK_FLOWER__{name} is not one that Flower can check. Use ASCII characters without "
                f"{' and '.join(repr(character) for character in forbidden)}."
            )
    return f"{user}:{password}"
