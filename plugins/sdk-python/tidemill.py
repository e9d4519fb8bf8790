"""Write a Tidemill transform in Python: subclass `Transform` and export it.

    class MyPlugin(Transform):
        ...

    Lifecycle, Transforming = export(MyPlugin)
"""

import json
from dataclasses import dataclass, field
from typing import Any, ClassVar, Iterable, Mapping

from componentize_py_types import Err
from wit_world.exports.transforming import Outcome
from wit_world.imports import log as host_log
from wit_world.imports.types import (
    Descriptor,
    Failure_Fatal,
    Header,
    Message,
    Port,
    Refused,
    Refusal_Reject,
    Refusal_Retry,
)
from wit_world.imports.types import Emission as Emitted

__all__ = ["Emission", "Fatal", "Header", "Message", "Reject", "RetryLater", "Transform", "export", "json_of", "log"]


class Reject(Exception):
    """Raised for a message that is wrong, so that delivering it again will not help. The rest of the batch goes on."""


class RetryLater(Exception):
    """Raised for a message that is to come again, not before so many microseconds have passed."""

    def __init__(self, micros: int | None = None):
        super().__init__("retry later")
        self.micros = micros


class Fatal(Exception):
    """Raised when trying again will not help at all: the stage stops and shows the reason."""


@dataclass(slots=True)
class Emission:
    """A record to be written. A `str` stands for its bytes in UTF-8."""

    payload: bytes | str
    # Records with equal keys go to one partition and keep their order.
    key: bytes | str | None = None
    # A port of the plugin. None is the port `default`.
    port: str | None = None
    headers: list[Header] = field(default_factory=list)
    # Microseconds since the Unix epoch, UTC. None takes the time of the message.
    timestamp: int | None = None


class Transform:
    """A plugin. The class says what it is, and `process` is called for each message."""

    name: ClassVar[str]
    version: ClassVar[str]
    description: ClassVar[str]
    # JSON Schema of the stage's `config`. None takes none.
    config_schema: ClassVar[Mapping[str, Any] | None] = None
    # Ports beyond `default`, and what they are for.
    ports: ClassVar[Mapping[str, str]] = {}

    def __init__(self, config: dict[str, Any]):
        """Called once, with a `config` that the host has checked against the schema. An exception refuses it."""

    def process(self, message: Message) -> Iterable[Emission]:
        """Returns or yields what the message leads to."""
        raise NotImplementedError


def log(level: str, line: str) -> None:
    """A line in the host's log. The level is `trace`, `debug`, `info`, `warn` or `error`."""
    host_log.write(host_log.Level[level.upper()], line)


def json_of(message: Message) -> Any:
    """The payload as JSON, with all numbers as floats. Rejects the message if it is none."""
    try:
        text = message.payload.decode()
    except UnicodeDecodeError:
        raise Reject("payload: not UTF-8") from None
    try:
        return _decoder.decode(text)
    except (ValueError, RecursionError) as error:
        raise Reject(f"payload: not JSON: {error}") from None


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number")


# JSON knows neither `NaN` nor `Infinity`, and but one kind of number.
_decoder = json.JSONDecoder(parse_int=float, parse_constant=_no_number)


def export(plugin: type[Transform]) -> tuple[type, type]:
    """The two classes that the module of a plugin must have, under the names `Lifecycle` and `Transforming`."""
    instance: Transform | None = None

    class Lifecycle:
        def describe(self) -> Descriptor:
            schema = plugin.config_schema
            return Descriptor(
                name=plugin.name,
                version=plugin.version,
                description=plugin.description,
                config_schema="" if schema is None else json.dumps(schema),
                ports=[Port(name, description) for name, description in plugin.ports.items()],
                tables=[],
            )

        def configure(self, config: str) -> None:
            nonlocal instance
            try:
                instance = plugin(json.loads(config))
            except Exception as error:
                raise Err(str(error)) from error

    class Transforming:
        def process(self, batch: list[Message]) -> Outcome:
            if instance is None:
                raise Err(Failure_Fatal("not configured: call `configure` before any work"))
            return _processed(instance, batch)

    return Lifecycle, Transforming


def _processed(plugin: Transform, batch: list[Message]) -> Outcome:
    outcome = Outcome([], [])
    for index, message in enumerate(batch):
        try:
            emissions = [_emitted(index, emission) for emission in plugin.process(message)]
        except Reject as reason:
            outcome.refusals.append(Refused(index, Refusal_Reject(str(reason))))
        except RetryLater as later:
            outcome.refusals.append(Refused(index, Refusal_Retry(later.micros)))
        except Fatal as reason:
            raise Err(Failure_Fatal(str(reason))) from reason
        except Exception as error:
            # The plugin's own error ends the call; the host shows what was logged last.
            log("error", _told(error))
            raise
        else:
            outcome.emissions.extend(emissions)
    return outcome


def _told(error: Exception) -> str:
    """Error and calls on one line. The module `traceback` would look for the sources, and there are no files."""
    calls = []
    step = error.__traceback__
    while step is not None:
        calls.append(f"{step.tb_frame.f_code.co_qualname}, line {step.tb_lineno}")
        step = step.tb_next
    return f"{type(error).__name__}: {error} (in {'; '.join(calls[-8:])})"


def _emitted(index: int, emission: Emission) -> Emitted:
    key = emission.key
    return Emitted(
        input=index,
        port=emission.port,
        key=key.encode() if isinstance(key, str) else key,
        headers=emission.headers,
        timestamp=emission.timestamp,
        payload=emission.payload.encode() if isinstance(emission.payload, str) else emission.payload,
    )
