// Passes on the reports of who flies low.
#include "tidemill.h"

const tm_description tm_plugin = {
    .name = "{{name}}",
    .version = "0.1.0",
    .description = "Passes on the reports of who flies low",
    .config_schema = "{\"type\":\"object\",\"required\":[\"below_ft\"],\"additionalProperties\":false,"
                     "\"properties\":{\"below_ft\":{\"type\":\"number\"}}}",
};

static double below_ft;

// Reads the number `name` of an object. False if the text is not JSON or has no such number.
static bool number_of(tm_json json, const char *name, double *value) {
    bool found = false;
    tm_text field;
    if (tm_json_object(&json)) {
        while (tm_json_field(&json, &field)) {
            if (tm_text_is(field, name)) found = tm_json_number(&json, value);
            else tm_json_skip(&json);
        }
    }
    return tm_json_end(&json) && found;
}

bool tm_configure(tm_json config, tm_buffer *error) {
    if (number_of(config, "below_ft", &below_ft)) return true;
    tm_put(error, "config: `below_ft` is missing");
    return false;
}

void tm_process(const tm_message *message, tm_outcome *outcome) {
    // The reader of JSON decodes texts in place, and the payload is to be passed on as it came.
    tm_buffer payload = {0};
    tm_put_text(&payload, tm_payload(message));

    double altitude;
    tm_text text = tm_payload(message);
    if (!tm_text_is_utf8(text) || !number_of(tm_json_of(text), "altitude", &altitude)) {
        payload.len = 0;
        tm_put(&payload, "payload: field `altitude`: not there, or not a number");
        tm_reject(outcome, payload);
        return;
    }
    if (altitude >= below_ft) {
        tm_drop(&payload);
        return;
    }
    tm_emission *emission = tm_emit(outcome, payload);
    tm_copy_key_and_headers(emission, message);
}
