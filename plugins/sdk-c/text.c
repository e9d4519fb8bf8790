// Texts and buffers.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tidemill.h"

tm_text tm_text_of(const char *zero_ended) {
    return (tm_text){(const uint8_t *)zero_ended, strlen(zero_ended)};
}

bool tm_text_is(tm_text text, const char *zero_ended) {
    return text.len == strlen(zero_ended) && memcmp(text.ptr, zero_ended, text.len) == 0;
}

// How many bytes follow the first one of a character, and the least character that needs so many.
static int following(uint8_t first, uint32_t *least) {
    if (first >= 0xc2 && first < 0xe0) return *least = 0x80, 1;
    if (first >= 0xe0 && first < 0xf0) return *least = 0x800, 2;
    if (first >= 0xf0 && first < 0xf5) return *least = 0x10000, 3;
    return 0;
}

bool tm_text_is_utf8(tm_text text) {
    const uint8_t *at = text.ptr, *end = text.ptr + text.len;
    while (at < end) {
        uint8_t first = *at++;
        if (first < 0x80) continue;
        uint32_t least = 0;
        int rest = following(first, &least);
        if (rest == 0 || end - at < rest) return false;
        uint32_t character = first & (0x3f >> rest);
        for (; rest > 0; rest--, at++) {
            if ((*at & 0xc0) != 0x80) return false;
            character = character << 6 | (*at & 0x3f);
        }
        bool surrogate = character >= 0xd800 && character < 0xe000;
        if (character < least || character > 0x10ffff || surrogate) return false;
    }
    return true;
}

// Makes room for so many more bytes, and says where they go.
static uint8_t *grow(tm_buffer *buffer, size_t more) {
    if (buffer->room - buffer->len < more) {
        buffer->room = (buffer->len + more) * 2;
        buffer->ptr = realloc(buffer->ptr, buffer->room);
        if (buffer->ptr == NULL) abort();
    }
    uint8_t *at = buffer->ptr + buffer->len;
    buffer->len += more;
    return at;
}

void tm_drop(tm_buffer *buffer) {
    free(buffer->ptr);
    *buffer = (tm_buffer){0};
}

void tm_put_text(tm_buffer *buffer, tm_text text) {
    if (text.len > 0) memcpy(grow(buffer, text.len), text.ptr, text.len);
}

void tm_put(tm_buffer *buffer, const char *zero_ended) {
    tm_put_text(buffer, tm_text_of(zero_ended));
}

// At least `width` digits.
static void put_digits(tm_buffer *buffer, uint64_t number, size_t width) {
    uint8_t digits[20];
    size_t count = 0;
    do {
        digits[sizeof digits - ++count] = (uint8_t)('0' + number % 10);
        number /= 10;
    } while (number > 0 || count < width);
    tm_put_text(buffer, (tm_text){digits + sizeof digits - count, count});
}

void tm_put_int(tm_buffer *buffer, int64_t number) {
    if (number < 0) tm_put(buffer, "-");
    put_digits(buffer, number < 0 ? 0 - (uint64_t)number : (uint64_t)number, 1);
}

void tm_put_decimal(tm_buffer *buffer, double number, unsigned places) {
    uint64_t scale = 1;
    for (unsigned place = 0; place < places; place++) scale *= 10;
    int64_t scaled = (int64_t)floor(number * (double)scale + 0.5);
    uint64_t size = scaled < 0 ? (uint64_t)-scaled : (uint64_t)scaled;
    if (scaled < 0) tm_put(buffer, "-");
    put_digits(buffer, size / scale, 1);
    tm_put(buffer, ".");
    put_digits(buffer, size % scale, places);
    for (unsigned place = 1; place < places && buffer->ptr[buffer->len - 1] == '0'; place++) buffer->len--;
}

static void put_escape(tm_buffer *buffer, uint8_t byte) {
    static const char names[] = "btn\0fr", hex[] = "0123456789abcdef";
    bool named = byte >= '\b' && byte <= '\r' && names[byte - '\b'] != 0;
    if (byte == '"' || byte == '\\') {
        memcpy(grow(buffer, 2), (uint8_t[]){'\\', byte}, 2);
    } else if (named) {
        memcpy(grow(buffer, 2), (uint8_t[]){'\\', (uint8_t)names[byte - '\b']}, 2);
    } else {
        tm_put(buffer, "\\u00");
        memcpy(grow(buffer, 2), (uint8_t[]){(uint8_t)hex[byte >> 4], (uint8_t)hex[byte & 15]}, 2);
    }
}

void tm_put_json_string(tm_buffer *buffer, tm_text text) {
    tm_put(buffer, "\"");
    const uint8_t *from = text.ptr, *end = text.ptr + text.len;
    for (const uint8_t *at = from; at < end; at++) {
        if (*at >= 0x20 && *at != '"' && *at != '\\') continue;
        tm_put_text(buffer, (tm_text){from, (size_t)(at - from)});
        put_escape(buffer, *at);
        from = at + 1;
    }
    tm_put_text(buffer, (tm_text){from, (size_t)(end - from)});
    tm_put(buffer, "\"");
}
