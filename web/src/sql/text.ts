// Places and names in the text of a statement.

/** The index in a JavaScript string of a byte of its UTF-8 form; its end if the text is shorter. */
export function indexOfByte(text: string, byte: number): number {
  let bytes = 0;
  let index = 0;
  for (const character of text) {
    if (bytes >= byte) break;
    bytes += utf8Length(character.codePointAt(0) ?? 0);
    index += character.length;
  }
  return index;
}

function utf8Length(code: number): number {
  if (code < 0x80) return 1;
  if (code < 0x800) return 2;
  return code < 0x1_0000 ? 3 : 4;
}

/** The word or sign at an index, as `[from, to)`. At the end of the text it is what stands before it. */
export function tokenAt(text: string, index: number): [from: number, to: number] {
  if (text === "") return [0, 0];
  let from = Math.min(Math.max(0, index), text.length - 1);
  while (from > 0 && /\s/.test(text[from] ?? "")) from -= 1;
  const word = /^[\p{L}\p{N}_$]+/u.exec(text.slice(from));
  if (word) return [from, from + word[0].length];
  const character = String.fromCodePoint(text.codePointAt(from) ?? 0x20);
  return [from, from + character.length];
}

/** A name as SQL takes it: in quotes where it is not a plain one. */
export function quoted(name: string): string {
  return /^[a-z_][a-z0-9_]*$/.test(name) && !RESERVED.has(name) ? name : `"${name.replaceAll('"', '""')}"`;
}

/** DuckDB's words that cannot be names. */
const RESERVED: ReadonlySet<string> = new Set(
  ("all analyse analyze and any array as asc asymmetric both case cast check collate column constraint create default " +
    "deferrable desc describe distinct do else end except false fetch for foreign from group having in initially intersect into " +
    "lambda lateral leading limit not null offset on only or order pivot pivot_longer pivot_wider placing primary qualify references " +
    "returning select show some summarize symmetric table then to trailing true union unique unpivot using variadic when where window with").split(" "),
);
