"""Passes on the reports of who flies low."""

from typing import Any, Iterator

from tidemill import Emission, Message, Reject, Transform, export, json_of


class LowFlyers(Transform):
    name = "{{name}}"
    version = "0.1.0"
    description = "Passes on the reports of who flies low"
    config_schema = {
        "type": "object",
        "required": ["below_ft"],
        "additionalProperties": False,
        "properties": {"below_ft": {"type": "number"}},
    }

    def __init__(self, config: dict[str, Any]):
        self.below_ft = config["below_ft"]

    def process(self, message: Message) -> Iterator[Emission]:
        report = json_of(message)
        altitude = report.get("altitude") if isinstance(report, dict) else None
        if not isinstance(altitude, float):
            raise Reject("payload: field `altitude`: not a number")
        if altitude < self.below_ft:
            yield Emission(key=message.key, headers=message.headers, payload=message.payload)


Lifecycle, Transforming = export(LowFlyers)
