// The reader of JSON. It decodes strings in place, where they only ever get shorter, and allocates nothing.
#include <stdlib.h>
#include <string.h>

#include "tidemill.h"

// Objects and arrays inside each other, in what is skipped.
enum { MAX_DEPTH = 128 };

tm_json tm_json_of(tm_text text) {
    // The text is the SDK's own memory, or a copy of the plugin's: see `tidemill.h`.
    uint8_t *at = (uint8_t *)text.ptr;
    return (tm_json){.at = at, .end = at + text.len};
}

static bool fail(tm_json *json) {
    json->broken = true;
    json->at = json->end;
    return false;
}

// The next byte that is not white space, or zero.
static uint8_t peek(tm_json *json) {
    while (json->at < json->end) {
        uint8_t byte = *json->at;
        if (byte != ' ' && byte != '\t' && byte != '\n' && byte != '\r') return byte;
        json->at++;
    }
    return 0;
}

static bool take(tm_json *json, uint8_t byte) {
    if (peek(json) != byte || json->at == json->end) return false;
    json->at++;
    return true;
}

static bool word(tm_json *json, const char *expected) {
    size_t len = strlen(expected);
    if ((size_t)(json->end - json->at) < len || memcmp(json->at, expected, len) != 0) return fail(json);
    json->at += len;
    return true;
}

// Four hexadecimal digits, or -1.
static int32_t hex4(tm_json *json) {
    int32_t value = 0;
    if (json->end - json->at < 4) return -1;
    for (int digit = 0; digit < 4; digit++) {
        uint8_t byte = *json->at++;
        int32_t worth = byte >= '0' && byte <= '9'   ? byte - '0'
                        : byte >= 'a' && byte <= 'f' ? byte - 'a' + 10
                        : byte >= 'A' && byte <= 'F' ? byte - 'A' + 10
                                                     : -1;
        if (worth < 0) return -1;
        value = value << 4 | worth;
    }
    return value;
}

// The character of `\uXXXX`, or of two of them, or -1. What is skipped may hold half a pair; a wanted string may not.
static int32_t unicode(tm_json *json, bool wanted) {
    int32_t first = hex4(json);
    if (first < 0xd800 || first > 0xdfff || !wanted) return first;
    if (first > 0xdbff || json->end - json->at < 6 || json->at[0] != '\\' || json->at[1] != 'u') return -1;
    json->at += 2;
    int32_t second = hex4(json);
    if (second < 0xdc00 || second > 0xdfff) return -1;
    return 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
}

static uint8_t *encode(uint8_t *to, int32_t character) {
    if (character < 0x80) {
        *to++ = (uint8_t)character;
    } else if (character < 0x800) {
        *to++ = (uint8_t)(0xc0 | character >> 6);
        *to++ = (uint8_t)(0x80 | (character & 0x3f));
    } else if (character < 0x10000) {
        *to++ = (uint8_t)(0xe0 | character >> 12);
        *to++ = (uint8_t)(0x80 | (character >> 6 & 0x3f));
        *to++ = (uint8_t)(0x80 | (character & 0x3f));
    } else {
        *to++ = (uint8_t)(0xf0 | character >> 18);
        *to++ = (uint8_t)(0x80 | (character >> 12 & 0x3f));
        *to++ = (uint8_t)(0x80 | (character >> 6 & 0x3f));
        *to++ = (uint8_t)(0x80 | (character & 0x3f));
    }
    return to;
}

// What stands after a backslash, or -1.
static int32_t escape(tm_json *json, bool wanted) {
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    if (json->at == json->end) return -1;
    uint8_t name = *json->at++;
    if (name == 'u') return unicode(json, wanted);
    const char *found = name == 0 ? NULL : strchr(names, name);
    return found == NULL ? -1 : values[found - names];
}

// A string whose opening quote is next. Decoded into its own place if it is wanted, else only checked.
static bool string(tm_json *json, tm_text *value) {
    uint8_t *begin = ++json->at, *to = begin;
    while (json->at < json->end) {
        uint8_t byte = *json->at++;
        if (byte == '"') {
            if (value != NULL) *value = (tm_text){begin, (size_t)(to - begin)};
            return true;
        }
        if (byte < 0x20) return fail(json);
        if (byte == '\\') {
            int32_t character = escape(json, value != NULL);
            if (character < 0) return fail(json);
            if (value != NULL) to = encode(to, character);
        } else if (value != NULL) {
            *to++ = byte;
        }
    }
    return fail(json);
}

static bool is_digit(const tm_json *json) {
    return json->at < json->end && *json->at >= '0' && *json->at <= '9';
}

// At least one digit.
static bool digits(tm_json *json) {
    if (!is_digit(json)) return fail(json);
    while (is_digit(json)) json->at++;
    return true;
}

// Moves past a number; its value is for `strtod`.
static bool number(tm_json *json) {
    if (*json->at == '-') json->at++;
    if (json->at < json->end && *json->at == '0') {
        json->at++;
    } else if (!digits(json)) {
        return false;
    }
    if (json->at < json->end && *json->at == '.') {
        json->at++;
        if (!digits(json)) return false;
    }
    if (json->at < json->end && (*json->at == 'e' || *json->at == 'E')) {
        json->at++;
        if (json->at < json->end && (*json->at == '+' || *json->at == '-')) json->at++;
        if (!digits(json)) return false;
    }
    return true;
}

// The value of a number without an exponent and with at most 15 digits: both its digits and the power of ten are exact,
// so that one division rounds as it should. `strtod`, which does the rest, takes ten times as long.
static bool short_number(const uint8_t *at, const uint8_t *end, double *value) {
    static const double powers[] = {1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};
    bool negative = *at == '-', fraction = false;
    int64_t whole = 0;
    int places = 0;
    at += negative;
    if (end - at > 16) return false;
    for (; at < end; at++) {
        if (*at == '.') {
            fraction = true;
        } else if (*at >= '0' && *at <= '9') {
            whole = whole * 10 + (*at - '0');
            places += fraction;
        } else {
            return false;
        }
    }
    if (whole >= (int64_t)1e15) return false;
    *value = (double)whole / powers[places];
    if (negative) *value = -*value;
    return true;
}

static bool value_of(const uint8_t *begin, const uint8_t *end, double *value) {
    if (short_number(begin, end, value)) return true;
    // The text behind the number need not end it in the eyes of `strtod`, nor be there at all.
    char *copy = strndup((const char *)begin, (size_t)(end - begin));
    if (copy == NULL) abort();
    *value = strtod(copy, NULL);
    free(copy);
    return true;
}

bool tm_json_object(tm_json *json) {
    if (take(json, '{')) return json->first = true;
    tm_json_skip(json);
    return false;
}

bool tm_json_field(tm_json *json, tm_text *name) {
    if (json->broken || take(json, '}')) return false;
    if (!json->first && !take(json, ',')) return fail(json);
    json->first = false;
    if (peek(json) != '"' || !string(json, name)) return fail(json);
    return take(json, ':') || fail(json);
}

bool tm_json_string(tm_json *json, tm_text *value) {
    if (peek(json) == '"') return string(json, value);
    tm_json_skip(json);
    return false;
}

bool tm_json_number(tm_json *json, double *value) {
    uint8_t first = peek(json);
    if (first != '-' && !is_digit(json)) {
        tm_json_skip(json);
        return false;
    }
    const uint8_t *begin = json->at;
    return number(json) && value_of(begin, json->at, value);
}

static bool skip_scalar(tm_json *json) {
    switch (peek(json)) {
        case '"': return string(json, NULL);
        case 't': return word(json, "true");
        case 'f': return word(json, "false");
        case 'n': return word(json, "null");
        case '-': return number(json);
        default: return is_digit(json) ? number(json) : fail(json);
    }
}

// Without recursion: the closing bytes that are still to come stand on a stack of their own.
void tm_json_skip(tm_json *json) {
    uint8_t closing[MAX_DEPTH];
    size_t depth = 0;
    bool value_next = true;
    do {
        if (value_next) {
            bool object = peek(json) == '{';
            if (take(json, '{') || take(json, '[')) {
                if (depth == MAX_DEPTH) {
                    fail(json);
                    return;
                }
                closing[depth++] = object ? '}' : ']';
                value_next = peek(json) != closing[depth - 1];
                if (!value_next) continue;
            } else {
                if (!skip_scalar(json)) return;
                value_next = false;
                continue;
            }
        } else if (take(json, closing[depth - 1])) {
            depth--;
            continue;
        } else if (!take(json, ',')) {
            fail(json);
            return;
        }
        value_next = true;
        if (closing[depth - 1] == '}') {
            if (peek(json) != '"' || !string(json, NULL) || !take(json, ':')) {
                fail(json);
                return;
            }
        }
    } while (depth > 0);
}

bool tm_json_end(tm_json *json) {
    if (!json->broken && (peek(json) != 0 || json->at < json->end)) fail(json);
    return !json->broken;
}
