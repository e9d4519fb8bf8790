// Watches position reports for approaches to airports (port `default`) and for trouble (port `alerts`).
//
// The same plugin as `plugins/flight-watch` in Rust; `plugins/conformance/flight-watch` holds both to the same bytes.
#include <math.h>

#include "airports.h"
#include "tidemill.h"

static const double PI = 3.14159265358979323846;
static const double EARTH_RADIUS_NM = 3440.069;
// Larger numbers are not exact in every language.
static const double MAX_WHOLE = 9007199254740991.0;

// clang-format off
static const char CONFIG_SCHEMA[] = "{"
    "\"type\": \"object\","
    "\"additionalProperties\": false,"
    "\"properties\": {"
        "\"approach_nm\": {"
            "\"description\": \"How near to a major airport an approach is, in nautical miles.\","
            "\"type\": \"number\", \"exclusiveMinimum\": 0, \"maximum\": 200, \"default\": 25"
        "},"
        "\"approach_ft\": {"
            "\"description\": \"Below which height above the airport an approach is, in feet.\","
            "\"type\": \"integer\", \"minimum\": 1, \"maximum\": 60000, \"default\": 6000"
        "},"
        "\"rapid_descent_fpm\": {"
            "\"description\": \"From which rate on a descent is rapid, in feet per minute downwards.\","
            "\"type\": \"integer\", \"minimum\": 1, \"maximum\": 60000, \"default\": 4000"
        "}"
    "}"
"}";
// clang-format on

static const tm_port PORTS[] = {
    {"alerts", "Emergency squawks and rapid descents, one record for each report that shows one"},
    {NULL, NULL},
};

const tm_description tm_plugin = {
    .name = "flight-watch",
    .version = "0.1.0",
    .description = "Finds approaches to airports, emergencies and rapid descents in position reports",
    .config_schema = CONFIG_SCHEMA,
    .ports = PORTS,
};

static struct {
    double approach_nm, approach_ft, rapid_descent_fpm;
} config;

bool tm_configure(tm_json json, tm_buffer *error) {
    config.approach_nm = 25;
    config.approach_ft = 6000;
    config.rapid_descent_fpm = 4000;
    tm_text name;
    if (tm_json_object(&json)) {
        while (tm_json_field(&json, &name)) {
            if (tm_text_is(name, "approach_nm")) tm_json_number(&json, &config.approach_nm);
            else if (tm_text_is(name, "approach_ft")) tm_json_number(&json, &config.approach_ft);
            else if (tm_text_is(name, "rapid_descent_fpm")) tm_json_number(&json, &config.rapid_descent_fpm);
            else tm_json_skip(&json);
        }
    }
    if (!tm_json_end(&json)) tm_put(error, "config: not JSON");
    return tm_json_end(&json);
}

// ---- Reports

typedef struct {
    tm_text id, callsign, kind, squawk;
    double lat, lon, speed, altitude, vertical_rate, ts;
} report;

enum type { TEXT, WHOLE, WITHIN };

// What a report must have. Unknown fields are left alone.
static const struct field {
    const char *name;
    enum type type;
    size_t offset;
    double min, max;
} FIELDS[] = {
    {"id", TEXT, offsetof(report, id), 0, 0},
    {"callsign", TEXT, offsetof(report, callsign), 0, 0},
    {"kind", TEXT, offsetof(report, kind), 0, 0},
    {"lat", WITHIN, offsetof(report, lat), -90, 90},
    {"lon", WITHIN, offsetof(report, lon), -180, 180},
    {"altitude", WHOLE, offsetof(report, altitude), 0, 0},
    {"speed", WITHIN, offsetof(report, speed), 0, 10000},
    {"vertical_rate", WHOLE, offsetof(report, vertical_rate), 0, 0},
    {"squawk", TEXT, offsetof(report, squawk), 0, 0},
    {"ts", WHOLE, offsetof(report, ts), 0, 0},
};
enum { FIELD_COUNT = sizeof FIELDS / sizeof *FIELDS };

// What is wrong with a field, or null.
static const char *read_field(tm_json *json, const struct field *field, report *into) {
    uint8_t *place = (uint8_t *)into + field->offset;
    if (field->type == TEXT) return tm_json_string(json, (tm_text *)place) ? NULL : "not a string";
    double number;
    if (!tm_json_number(json, &number)) return "not a number";
    *(double *)place = number;
    if (field->type == WITHIN) return number >= field->min && number <= field->max ? NULL : "out of range";
    return floor(number) == number && fabs(number) <= MAX_WHOLE ? NULL : "not a whole number of at most 53 bits";
}

static tm_buffer reason(const char *field, const char *fault) {
    tm_buffer text = {0};
    tm_put(&text, "payload: field `");
    tm_put(&text, field);
    tm_put(&text, "`: ");
    tm_put(&text, fault);
    return text;
}

static tm_buffer plain(const char *text) {
    tm_buffer buffer = {0};
    tm_put(&buffer, text);
    return buffer;
}

// False if the message was rejected.
static bool parse(const tm_message *message, report *into, tm_outcome *outcome) {
    const char *faults[FIELD_COUNT];
    for (int i = 0; i < FIELD_COUNT; i++) faults[i] = "missing";
    if (!tm_text_is_utf8(tm_payload(message))) return tm_reject(outcome, plain("payload: not UTF-8")), false;
    tm_json json = tm_json_of(tm_payload(message));
    bool object = tm_json_object(&json);
    tm_text name;
    while (object && tm_json_field(&json, &name)) {
        int i = 0;
        while (i < FIELD_COUNT && !tm_text_is(name, FIELDS[i].name)) i++;
        if (i == FIELD_COUNT) tm_json_skip(&json);
        else faults[i] = read_field(&json, &FIELDS[i], into);
    }
    if (!tm_json_end(&json)) return tm_reject(outcome, plain("payload: not JSON")), false;
    if (!object) return tm_reject(outcome, plain("payload: not a JSON object")), false;
    for (int i = 0; i < FIELD_COUNT; i++) {
        if (faults[i] != NULL) return tm_reject(outcome, reason(FIELDS[i].name, faults[i])), false;
    }
    return true;
}

// ---- What is written

static void put_name(tm_buffer *json, const char *name) {
    tm_put(json, json->len == 0 ? "{\"" : ",\"");
    tm_put(json, name);
    tm_put(json, "\":");
}

static void put_string(tm_buffer *json, const char *name, tm_text value) {
    put_name(json, name);
    tm_put_json_string(json, value);
}

static void put_whole(tm_buffer *json, const char *name, double value) {
    put_name(json, name);
    tm_put_int(json, (int64_t)value);
}

static void put_decimal(tm_buffer *json, const char *name, double value, unsigned places) {
    put_name(json, name);
    tm_put_decimal(json, value, places);
}

static tm_buffer begin(const report *r) {
    tm_buffer json = {0};
    put_string(&json, "id", r->id);
    put_string(&json, "callsign", r->callsign);
    put_string(&json, "kind", r->kind);
    return json;
}

static void put_place_and_time(tm_buffer *json, const report *r) {
    put_decimal(json, "lat", r->lat, 5);
    put_decimal(json, "lon", r->lon, 5);
    put_whole(json, "ts", r->ts);
}

// ---- Approaches

static double radians(double degrees) { return degrees * (PI / 180); }

// The great-circle distance, by the haversine formula.
static double distance_nm(const struct airport *from, const report *to) {
    double half_lat = sin((radians(to->lat) - radians(from->lat)) / 2);
    double half_lon = sin(radians(to->lon - from->lon) / 2);
    double h = half_lat * half_lat + cos(radians(from->lat)) * cos(radians(to->lat)) * half_lon * half_lon;
    return 2 * EARTH_RADIUS_NM * asin(fmin(sqrt(h), 1));
}

static void watch_approach(const report *r, tm_outcome *outcome) {
    if (r->vertical_rate >= 0) return;
    const struct airport *nearest = NULL;
    double least = 0;
    // Latitude alone rules out most airports: a degree of it is 60 nautical miles.
    double band = config.approach_nm / 60 * 1.01;
    for (size_t i = 0; i < sizeof AIRPORTS / sizeof *AIRPORTS; i++) {
        const struct airport *airport = &AIRPORTS[i];
        if (fabs(airport->lat - r->lat) > band || r->altitude - airport->elevation_ft >= config.approach_ft) continue;
        double distance = distance_nm(airport, r);
        if (nearest == NULL || distance < least) {
            nearest = airport;
            least = distance;
        }
    }
    if (nearest == NULL || least > config.approach_nm) return;
    tm_buffer json = begin(r);
    put_string(&json, "airport", tm_text_of(nearest->code));
    put_decimal(&json, "distance_nm", least, 1);
    put_whole(&json, "altitude", r->altitude);
    put_decimal(&json, "speed", r->speed, 1);
    put_whole(&json, "vertical_rate", r->vertical_rate);
    put_place_and_time(&json, r);
    tm_put(&json, "}");
    tm_set_key(tm_emit(outcome, json), r->id);
}

// ---- Alerts

static void alert(const report *r, const char *cause, tm_buffer sentence, tm_outcome *outcome) {
    tm_buffer json = begin(r);
    put_string(&json, "alert", tm_text_of(cause));
    put_string(&json, "squawk", r->squawk);
    put_whole(&json, "altitude", r->altitude);
    put_whole(&json, "vertical_rate", r->vertical_rate);
    put_place_and_time(&json, r);
    put_string(&json, "message", (tm_text){sentence.ptr, sentence.len});
    tm_put(&json, "}");
    tm_emission *emission = tm_emit(outcome, json);
    tm_set_key(emission, r->id);
    tm_set_port(emission, "alerts");
    tm_drop(&sentence);
}

// With a comma before each three digits.
static void put_grouped(tm_buffer *text, double whole) {
    tm_buffer digits = {0};
    tm_put_int(&digits, (int64_t)fabs(whole));
    if (whole < 0) tm_put(text, "-");
    for (size_t i = 0; i < digits.len; i++) {
        if (i > 0 && (digits.len - i) % 3 == 0) tm_put(text, ",");
        tm_put_text(text, (tm_text){digits.ptr + i, 1});
    }
    tm_drop(&digits);
}

static void watch_squawk(const report *r, tm_outcome *outcome) {
    const char *meaning = tm_text_is(r->squawk, "7500")   ? "unlawful interference"
                          : tm_text_is(r->squawk, "7600") ? "radio failure"
                          : tm_text_is(r->squawk, "7700") ? "general emergency"
                                                          : NULL;
    if (meaning == NULL) return;
    tm_buffer text = {0};
    tm_put_text(&text, r->callsign);
    tm_put(&text, " squawks ");
    tm_put_text(&text, r->squawk);
    tm_put(&text, " (");
    tm_put(&text, meaning);
    tm_put(&text, ") at ");
    put_grouped(&text, r->altitude);
    tm_put(&text, " ft");
    alert(r, "emergency", text, outcome);
}

static void watch_descent(const report *r, tm_outcome *outcome) {
    if (r->vertical_rate > -config.rapid_descent_fpm) return;
    tm_buffer text = {0};
    tm_put_text(&text, r->callsign);
    tm_put(&text, " descends at ");
    put_grouped(&text, -r->vertical_rate);
    tm_put(&text, " ft/min through ");
    put_grouped(&text, r->altitude);
    tm_put(&text, " ft");
    alert(r, "rapid_descent", text, outcome);
}

void tm_process(const tm_message *message, tm_outcome *outcome) {
    report r;
    if (!parse(message, &r, outcome)) return;
    watch_approach(&r, outcome);
    watch_squawk(&r, outcome);
    watch_descent(&r, outcome);
}
