"""What a request asks of its model, against what the catalogue says that the model can do."""

from core.errors import InvalidField
from models.catalogue import ServedModel
from queues.requests.job_request import JobCreate


def check_capabilities(model: ServedModel, wanted: JobCreate) -> None:
    """Raises `InvalidField`. Every way to a job asks this: the API before it queues, a batch of each line."""
    if wanted.tools is not None and not model.tools:
        raise InvalidField("tools", f"{model.name} takes no tools: leave them out, or choose another model.")
