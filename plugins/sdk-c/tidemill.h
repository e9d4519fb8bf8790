// Write a Tidemill transform in C: define the three things under "The plugin" below, and the SDK does the rest.
//
// Memory. What the host passes in belongs to the SDK, which frees it when the call ends: a plugin may read it, and the
// JSON reader writes decoded strings over it, but a plugin never keeps a pointer to it. What is emitted is copied or, as
// a `tm_buffer`, taken over; only a buffer that is put to no use is given back with `tm_drop`. Static strings are never
// freed.
// When memory runs out the component traps; the host reports it and starts a fresh one.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bindings/transform.h"

// ---- Text: bytes and how many, not ended by a zero.

typedef struct {
    const uint8_t *ptr;
    size_t len;
} tm_text;

tm_text tm_text_of(const char *zero_ended);
bool tm_text_is(tm_text text, const char *zero_ended);
bool tm_text_is_utf8(tm_text text);

// A text under construction. Begins as `(tm_buffer){0}`.
typedef struct {
    uint8_t *ptr;
    size_t len, room;
} tm_buffer;

void tm_drop(tm_buffer *buffer);
void tm_put(tm_buffer *buffer, const char *zero_ended);
void tm_put_text(tm_buffer *buffer, tm_text text);
void tm_put_int(tm_buffer *buffer, int64_t number);
// With quotes and escapes.
void tm_put_json_string(tm_buffer *buffer, tm_text text);
// A number below 1e12, rounded to 1 to 6 places, halves up; without an exponent, with at least one place: `39.0`.
void tm_put_decimal(tm_buffer *buffer, double number, unsigned places);

// ---- A strict reader of JSON, one field of an object after the other:
//
//     tm_json json = tm_json_of(text);
//     tm_text name;
//     if (tm_json_object(&json)) {
//         while (tm_json_field(&json, &name)) {
//             if (tm_text_is(name, "altitude")) tm_json_number(&json, &altitude); else tm_json_skip(&json);
//         }
//     }
//     if (!tm_json_end(&json)) ... // broken: what was read before does not count
//
// The text must be UTF-8 (`tm_text_is_utf8`), and its memory may be written to. After a fault everything returns false.
typedef struct {
    uint8_t *at, *end;
    bool broken, first;
} tm_json;

tm_json tm_json_of(tm_text text);
// Enters an object. False if there is something else.
bool tm_json_object(tm_json *json);
// The next field of the object, which must then be read or skipped. False after the last one.
bool tm_json_field(tm_json *json, tm_text *name);
// False, with the value skipped, if it is of another type. A number too large for a double is infinite.
bool tm_json_string(tm_json *json, tm_text *value);
bool tm_json_number(tm_json *json, double *value);
void tm_json_skip(tm_json *json);
// Whether the text was JSON from the beginning to the end.
bool tm_json_end(tm_json *json);

// ---- Messages in, emissions and refusals out. The fields are those of `wit/`.

typedef tidemill_plugin_types_message_t tm_message;
typedef tidemill_plugin_types_emission_t tm_emission;
typedef struct tm_outcome tm_outcome;

tm_text tm_payload(const tm_message *message);

// A record for the port `default`, made from the message at hand, without key, headers and time. Takes `payload` over.
// The result is good until the next call of a function of the SDK.
tm_emission *tm_emit(tm_outcome *outcome, tm_buffer payload);
void tm_set_port(tm_emission *emission, const char *port);
void tm_set_key(tm_emission *emission, tm_text key);
void tm_add_header(tm_emission *emission, const char *name, tm_text value);
void tm_copy_key_and_headers(tm_emission *emission, const tm_message *message);

// Refuses the message at hand, and takes back what was emitted for it. The reason is for people. Takes it over.
void tm_reject(tm_outcome *outcome, tm_buffer reason);
// The message comes again, not before `micros` have passed.
void tm_retry_after(tm_outcome *outcome, uint64_t micros);

// A line in the host's log; `level` is one of TIDEMILL_PLUGIN_LOG_LEVEL_*.
void tm_log(tidemill_plugin_log_level_t level, tm_text line);

// ---- The plugin

typedef struct {
    const char *name, *description;
} tm_port;

typedef struct {
    const char *name, *version, *description;
    // JSON Schema. The host has checked the configuration against it before the plugin sees it.
    const char *config_schema;
    // Ports beyond `default`, ended by one without a name.
    const tm_port *ports;
} tm_description;

extern const tm_description tm_plugin;

// Called once, before any message. On false, `error` says what is wrong with the configuration.
bool tm_configure(tm_json config, tm_buffer *error);

// Called for each message of a batch.
void tm_process(const tm_message *message, tm_outcome *outcome);
