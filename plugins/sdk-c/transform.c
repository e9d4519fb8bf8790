// The exports of the world `transform`, on top of what the plugin defines.
#include <stdlib.h>
#include <string.h>

#include "tidemill.h"

struct tm_outcome {
    tidemill_plugin_types_emission_t *emissions;
    tidemill_plugin_types_refused_t *refusals;
    size_t emissions_len, emissions_room, refusals_len, refusals_room;
    // The message at hand, and how many emissions there were before it.
    uint32_t input;
    size_t before;
};

static bool configured;

// A zeroed place at the end of a list.
static void *push(void *list, size_t *len, size_t *room, size_t size) {
    uint8_t **items = list;
    if (*len == *room) {
        *room = *room == 0 ? 64 : *room * 2;
        *items = realloc(*items, *room * size);
        if (*items == NULL) abort();
    }
    return memset(*items + (*len)++ * size, 0, size);
}

static transform_list_u8_t copy(tm_text text) {
    transform_list_u8_t list = {NULL, text.len};
    if (text.len > 0) {
        list.ptr = malloc(text.len);
        if (list.ptr == NULL) abort();
        memcpy(list.ptr, text.ptr, text.len);
    }
    return list;
}

// An empty buffer may have memory all the same, which nobody would free.
static transform_list_u8_t take_over(tm_buffer buffer) {
    if (buffer.len == 0) free(buffer.ptr);
    return (transform_list_u8_t){buffer.len == 0 ? NULL : buffer.ptr, buffer.len};
}

static transform_string_t as_string(transform_list_u8_t list) {
    return (transform_string_t){list.ptr, list.len};
}

tm_text tm_payload(const tm_message *message) {
    return (tm_text){message->payload.ptr, message->payload.len};
}

tm_emission *tm_emit(tm_outcome *outcome, tm_buffer payload) {
    tm_emission *emission =
        push(&outcome->emissions, &outcome->emissions_len, &outcome->emissions_room, sizeof *emission);
    emission->input = (transform_option_u32_t){true, outcome->input};
    emission->payload = take_over(payload);
    return emission;
}

void tm_set_port(tm_emission *emission, const char *port) {
    transform_option_string_free(&emission->port);
    emission->port = (transform_option_string_t){true, as_string(copy(tm_text_of(port)))};
}

void tm_set_key(tm_emission *emission, tm_text key) {
    transform_option_list_u8_free(&emission->key);
    emission->key = (transform_option_list_u8_t){true, copy(key)};
}

static void add_header(tm_emission *emission, tm_text name, tm_text value) {
    tidemill_plugin_types_list_header_t *headers = &emission->headers;
    headers->ptr = realloc(headers->ptr, (headers->len + 1) * sizeof *headers->ptr);
    if (headers->ptr == NULL) abort();
    headers->ptr[headers->len++] = (tidemill_plugin_types_header_t){as_string(copy(name)), copy(value)};
}

void tm_add_header(tm_emission *emission, const char *name, tm_text value) {
    add_header(emission, tm_text_of(name), value);
}

void tm_copy_key_and_headers(tm_emission *emission, const tm_message *message) {
    if (message->key.is_some) tm_set_key(emission, (tm_text){message->key.val.ptr, message->key.val.len});
    for (size_t i = 0; i < message->headers.len; i++) {
        const tidemill_plugin_types_header_t *header = &message->headers.ptr[i];
        add_header(emission, (tm_text){header->name.ptr, header->name.len}, (tm_text){header->value.ptr, header->value.len});
    }
}

static tidemill_plugin_types_refusal_t *refuse(tm_outcome *outcome) {
    while (outcome->emissions_len > outcome->before) {
        tidemill_plugin_types_emission_free(&outcome->emissions[--outcome->emissions_len]);
    }
    tidemill_plugin_types_refused_t *refused =
        push(&outcome->refusals, &outcome->refusals_len, &outcome->refusals_room, sizeof *refused);
    refused->input = outcome->input;
    return &refused->refusal;
}

void tm_reject(tm_outcome *outcome, tm_buffer reason) {
    tidemill_plugin_types_refusal_t *refusal = refuse(outcome);
    refusal->tag = TIDEMILL_PLUGIN_TYPES_REFUSAL_REJECT;
    refusal->val.reject = as_string(take_over(reason));
}

void tm_retry_after(tm_outcome *outcome, uint64_t micros) {
    tidemill_plugin_types_refusal_t *refusal = refuse(outcome);
    refusal->tag = TIDEMILL_PLUGIN_TYPES_REFUSAL_RETRY;
    refusal->val.retry = (transform_option_u64_t){true, micros};
}

void tm_log(tidemill_plugin_log_level_t level, tm_text line) {
    transform_string_t message = {(uint8_t *)line.ptr, line.len};
    tidemill_plugin_log_write(level, &message);
}

void exports_tidemill_plugin_lifecycle_describe(exports_tidemill_plugin_lifecycle_descriptor_t *ret) {
    *ret = (exports_tidemill_plugin_lifecycle_descriptor_t){0};
    transform_string_dup(&ret->name, tm_plugin.name);
    transform_string_dup(&ret->version, tm_plugin.version);
    transform_string_dup(&ret->description, tm_plugin.description);
    transform_string_dup(&ret->config_schema, tm_plugin.config_schema == NULL ? "" : tm_plugin.config_schema);
    size_t room = 0;
    for (const tm_port *port = tm_plugin.ports; port != NULL && port->name != NULL; port++) {
        tidemill_plugin_types_port_t *to = push(&ret->ports.ptr, &ret->ports.len, &room, sizeof *to);
        transform_string_dup(&to->name, port->name);
        transform_string_dup(&to->description, port->description);
    }
}

bool exports_tidemill_plugin_lifecycle_configure(transform_string_t *config, transform_string_t *err) {
    tm_buffer error = {0};
    configured = tm_configure(tm_json_of((tm_text){config->ptr, config->len}), &error);
    transform_string_free(config);
    *err = as_string(take_over(error));
    return configured;
}

bool exports_tidemill_plugin_transforming_process(exports_tidemill_plugin_transforming_list_message_t *batch,
                                                  exports_tidemill_plugin_transforming_outcome_t *ret,
                                                  exports_tidemill_plugin_transforming_failure_t *err) {
    if (!configured) {
        err->tag = TIDEMILL_PLUGIN_TYPES_FAILURE_FATAL;
        transform_string_dup(&err->val.fatal, "not configured: call `configure` before any work");
        return false;
    }
    tm_outcome outcome = {0};
    for (size_t input = 0; input < batch->len; input++) {
        outcome.input = (uint32_t)input;
        outcome.before = outcome.emissions_len;
        tm_process(&batch->ptr[input], &outcome);
    }
    exports_tidemill_plugin_transforming_list_message_free(batch);
    // The bindings free lists that have something in them.
    if (outcome.emissions_len == 0) free(outcome.emissions);
    ret->emissions.ptr = outcome.emissions;
    ret->emissions.len = outcome.emissions_len;
    ret->refusals.ptr = outcome.refusals;
    ret->refusals.len = outcome.refusals_len;
    return true;
}
