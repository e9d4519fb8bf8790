"""Watches position reports for approaches to airports (port `default`) and for trouble (port `alerts`).

The same plugin as `plugins/flight-watch` in Rust; `plugins/conformance/flight-watch` holds both to the same bytes.
"""

import math
from dataclasses import dataclass
from json.encoder import encode_basestring as json_string
from typing import Any, Iterator

from airports import AIRPORTS
from tidemill import Emission, Message, Reject, Transform, export, json_of

# Larger numbers are not exact in every language.
MAX_WHOLE = 2**53 - 1
# Nautical miles in the Earth's mean radius.
EARTH_RADIUS_NM = 3440.069
# One minute of latitude is one nautical mile.
NM_PER_DEGREE = 60

EMERGENCIES = {"7500": "unlawful interference", "7600": "radio failure", "7700": "general emergency"}


@dataclass(slots=True)
class Report:
    """What the watch needs of a position report. Unknown fields are left alone."""

    id: str
    callsign: str
    kind: str
    lat: float
    lon: float
    altitude: int
    speed: float
    vertical_rate: int
    squawk: str
    ts: int

    @classmethod
    def of(cls, fields: Any) -> "Report":
        if not isinstance(fields, dict):
            raise Reject("payload: not a JSON object")
        return cls(
            id=text(fields, "id"),
            callsign=text(fields, "callsign"),
            kind=text(fields, "kind"),
            lat=within(fields, "lat", -90, 90),
            lon=within(fields, "lon", -180, 180),
            altitude=whole(fields, "altitude"),
            speed=within(fields, "speed", 0, 10000),
            vertical_rate=whole(fields, "vertical_rate"),
            squawk=text(fields, "squawk"),
            ts=whole(fields, "ts"),
        )


def fault(fields: dict[str, Any], name: str, expected: str) -> Reject:
    return Reject(f"payload: field `{name}`: {expected if name in fields else 'missing'}")


def text(fields: dict[str, Any], name: str) -> str:
    """Half of a surrogate pair is no text."""
    value = fields.get(name)
    if type(value) is not str or not (value.isascii() or is_text(value)):
        raise fault(fields, name, "not a string")
    return value


def is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def within(fields: dict[str, Any], name: str, least: float, most: float) -> float:
    value = fields.get(name)
    if type(value) is not float or not least <= value <= most:
        raise fault(fields, name, f"not from {least} to {most}")
    return value


def whole(fields: dict[str, Any], name: str) -> int:
    value = fields.get(name)
    if type(value) is not float or not value.is_integer() or abs(value) > MAX_WHOLE:
        raise fault(fields, name, "not a whole number of at most 53 bits")
    return int(value)


def decimal(value: float, places: int) -> str:
    """Rounded, halves up; without an exponent, with at least one digit after the point: `39.0`."""
    scale = 10**places
    digits = f"{math.floor(value * scale + 0.5) / scale:.{places}f}".rstrip("0")
    return digits + "0" if digits.endswith(".") else digits


def distance_nm(lat1: float, lon1: float, lat2: float, lon2: float) -> float:
    """The great-circle distance, by the haversine formula."""
    half_lat = math.sin((math.radians(lat2) - math.radians(lat1)) / 2)
    half_lon = math.sin(math.radians(lon2 - lon1) / 2)
    h = half_lat * half_lat + math.cos(math.radians(lat1)) * math.cos(math.radians(lat2)) * half_lon * half_lon
    return 2 * EARTH_RADIUS_NM * math.asin(min(math.sqrt(h), 1))


class FlightWatch(Transform):
    name = "flight-watch"
    version = "0.1.0"
    description = "Finds approaches to airports, emergencies and rapid descents in position reports"
    config_schema = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "approach_nm": {
                "description": "How near to a major airport an approach is, in nautical miles.",
                "type": "number",
                "exclusiveMinimum": 0,
                "maximum": 200,
                "default": 25,
            },
            "approach_ft": {
                "description": "Below which height above the airport an approach is, in feet.",
                "type": "integer",
                "minimum": 1,
                "maximum": 60000,
                "default": 6000,
            },
            "rapid_descent_fpm": {
                "description": "From which rate on a descent is rapid, in feet per minute downwards.",
                "type": "integer",
                "minimum": 1,
                "maximum": 60000,
                "default": 4000,
            },
        },
    }
    ports = {"alerts": "Emergency squawks and rapid descents, one record for each report that shows one"}

    def __init__(self, config: dict[str, Any]):
        self.approach_nm = config.get("approach_nm", 25)
        self.approach_ft = config.get("approach_ft", 6000)
        self.rapid_descent_fpm = config.get("rapid_descent_fpm", 4000)

    def process(self, message: Message) -> Iterator[Emission]:
        report = Report.of(json_of(message))
        if report.vertical_rate < 0:
            yield from self.approach(report)
        if meaning := EMERGENCIES.get(report.squawk):
            sentence = f"{report.callsign} squawks {report.squawk} ({meaning}) at {report.altitude:,} ft"
            yield alert(report, "emergency", sentence)
        if report.vertical_rate <= -self.rapid_descent_fpm:
            rate = f"{-report.vertical_rate:,} ft/min"
            yield alert(report, "rapid_descent", f"{report.callsign} descends at {rate} through {report.altitude:,} ft")

    def approach(self, r: Report) -> Iterator[Emission]:
        """To the nearest of the airports for which the report is one."""
        # Latitude alone rules out most airports, at the price of a subtraction.
        band = self.approach_nm / NM_PER_DEGREE * 1.01
        near = [
            (distance_nm(lat, lon, r.lat, r.lon), code)
            for code, lat, lon, elevation_ft in AIRPORTS
            if abs(lat - r.lat) <= band and r.altitude - elevation_ft < self.approach_ft
        ]
        distance, airport = min(near, default=(math.inf, ""))
        if distance <= self.approach_nm:
            yield Emission(
                key=r.id,
                payload=f'{{"id":{json_string(r.id)},"callsign":{json_string(r.callsign)},"kind":{json_string(r.kind)}'
                f',"airport":"{airport}","distance_nm":{decimal(distance, 1)},"altitude":{r.altitude}'
                f',"speed":{decimal(r.speed, 1)},"vertical_rate":{r.vertical_rate}'
                f',"lat":{decimal(r.lat, 5)},"lon":{decimal(r.lon, 5)},"ts":{r.ts}}}',
            )


def alert(r: Report, cause: str, sentence: str) -> Emission:
    return Emission(
        port="alerts",
        key=r.id,
        payload=f'{{"id":{json_string(r.id)},"callsign":{json_string(r.callsign)},"kind":{json_string(r.kind)}'
        f',"alert":"{cause}","squawk":{json_string(r.squawk)},"altitude":{r.altitude}'
        f',"vertical_rate":{r.vertical_rate},"lat":{decimal(r.lat, 5)},"lon":{decimal(r.lon, 5)},"ts":{r.ts}'
        f',"message":{json_string(sentence)}}}',
    )


Lifecycle, Transforming = export(FlightWatch)
