// The editor of statements: CodeMirror with colours and completion. A chunk of its own, fetched with the console.
//
// It lives in a shadow root, because CodeMirror brings its rules as a constructed sheet there. In the document itself
// it would add a <style>, which the page's policy (`style-src 'self'`) does not let in.
import { acceptCompletion, autocompletion, closeBrackets, closeBracketsKeymap, completionKeymap, type Completion, type CompletionContext, type CompletionResult } from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap } from "@codemirror/commands";
import { sql, SQLDialect, type SQLNamespace } from "@codemirror/lang-sql";
import { bracketMatching, HighlightStyle, syntaxHighlighting, syntaxTree } from "@codemirror/language";
import { Compartment, EditorState, Prec, StateEffect, StateField, type Extension, type Transaction } from "@codemirror/state";
import { Decoration, drawSelection, EditorView, highlightActiveLine, keymap, lineNumbers, type DecorationSet } from "@codemirror/view";
import { tags } from "@lezer/highlight";
import { FUNCTIONS, KEYWORDS, TYPES } from "../sql/words.ts";
import { shortType, type Table } from "../sql/schema.ts";
import { quoted, tokenAt } from "../sql/text.ts";

const DUCKDB = SQLDialect.define({ keywords: KEYWORDS, types: TYPES, caseInsensitiveIdentifiers: true, doubleDollarQuotedStrings: true, operatorChars: "*+-%<>!=&|~^/:@" });

/** Marks the text that an error is about; null takes the mark away. */
const setMark = StateEffect.define<[from: number, to: number] | null>();

const mark = StateField.define<DecorationSet>({
  create: () => Decoration.none,
  update(marks, transaction) {
    // What is edited is no longer what was refused.
    let next = transaction.docChanged ? Decoration.none : marks;
    for (const effect of transaction.effects) {
      if (!effect.is(setMark)) continue;
      next = effect.value ? Decoration.set(Decoration.mark({ class: "cm-wrong" }).range(...effect.value)) : Decoration.none;
    }
    return next;
  },
  provide: (field) => EditorView.decorations.from(field),
});

/**
 * Typing over a selection is done here. Browsers would carry the colour of what was there over into an inline style,
 * which the page's policy does not let in.
 */
const typeOver = EditorView.domEventHandlers({
  beforeinput(event, view) {
    const { from, to, empty } = view.state.selection.main;
    const text = event.data;
    if (event.inputType !== "insertText" || empty || text === null || view.composing) return false;
    const typed = (): Transaction => view.state.update(view.state.replaceSelection(text), { userEvent: "input.type", scrollIntoView: true });
    const taken = view.state.facet(EditorView.inputHandler).some((handler) => handler(view, from, to, text, typed));
    if (!taken) view.dispatch(typed());
    return true;
  },
});

export class SqlEditor {
  private readonly view: EditorView;
  private readonly language = new Compartment();
  private tables: readonly Table[] = [];

  /** `host` gets a shadow root; `run` is called for Ctrl+Enter. */
  constructor(host: HTMLElement, text: string, run: () => void) {
    const root = host.attachShadow({ mode: "open" });
    const keys = Prec.highest(keymap.of([{ key: "Mod-Enter", run: () => { run(); return true; }, preventDefault: true }]));
    this.view = new EditorView({
      root,
      parent: root,
      state: EditorState.create({
        doc: text,
        extensions: [
          keys,
          lineNumbers(),
          history(),
          drawSelection(),
          bracketMatching(),
          closeBrackets(),
          highlightActiveLine(),
          EditorView.lineWrapping,
          autocompletion({ icons: false }),
          // Tab takes the completion that is offered and otherwise goes on to the next control.
          keymap.of([{ key: "Tab", run: acceptCompletion }, ...closeBracketsKeymap, ...defaultKeymap, ...historyKeymap, ...completionKeymap]),
          mark,
          typeOver,
          this.language.of(this.languageSupport()),
          syntaxHighlighting(COLOURS),
          THEME,
          EditorView.contentAttributes.of({ "aria-label": "Statement in SQL; Ctrl+Enter runs it", spellcheck: "false", autocapitalize: "off" }),
        ],
      }),
    });
  }

  get text(): string {
    return this.view.state.doc.toString();
  }

  set text(text: string) {
    if (text === this.text) return;
    this.view.dispatch({ changes: { from: 0, to: this.view.state.doc.length, insert: text }, selection: { anchor: 0 } });
  }

  /** Puts a name in the place of the selection, with a space before it where words would run together. */
  insert(name: string): void {
    const { from, to } = this.view.state.selection.main;
    const before = this.view.state.sliceDoc(Math.max(0, from - 1), from);
    const insert = `${/[\w"]/.test(before) ? " " : ""}${quoted(name)}`;
    this.view.dispatch({ changes: { from, to, insert }, selection: { anchor: from + insert.length }, scrollIntoView: true });
    this.view.focus();
  }

  setTables(tables: readonly Table[]): void {
    this.tables = tables;
    this.view.dispatch({ effects: this.language.reconfigure(this.languageSupport()) });
  }

  /** Marks the word at an index, or nothing. */
  setMark(index: number | null): void {
    const [from, to] = index === null ? [0, 0] : tokenAt(this.text, index);
    this.view.dispatch({ effects: setMark.of(to > from ? [from, to] : null) });
  }

  /** Puts the cursor there. */
  goTo(index: number): void {
    const anchor = Math.min(index, this.view.state.doc.length);
    this.view.dispatch({ selection: { anchor }, scrollIntoView: true });
    this.view.focus();
  }

  private languageSupport(): Extension {
    const schema: Record<string, SQLNamespace> = {};
    for (const table of this.tables) {
      // A dot in a name would be taken for a level of its own.
      schema[table.name.replaceAll(".", "\\.")] = { self: { label: table.name, type: "type", detail: "topic", boost: 2 }, children: table.columns.map((column) => columnChoice(column.name, column.type)) };
    }
    const words = (context: CompletionContext): CompletionResult | null => completeBare(context, this.tables);
    return [sql({ dialect: DUCKDB, schema, upperCaseKeywords: true }), DUCKDB.language.data.of({ autocomplete: words })];
  }
}

function columnChoice(name: string, type: string, from = ""): Completion {
  return { label: name, apply: quoted(name), type: "property", detail: from === "" ? shortType(type) : `${shortType(type)}, ${from}`, boost: name.startsWith("_") ? 0 : 1 };
}

/** Columns without their topic in front, of the topics that the statement names, and functions. */
function completeBare(context: CompletionContext, tables: readonly Table[]): CompletionResult | null {
  const word = context.matchBefore(/\w*/);
  if (!word || (word.from === word.to && !context.explicit)) return null;
  if (/[."]/.test(context.state.sliceDoc(Math.max(0, word.from - 1), word.from))) return null;
  const inside = syntaxTree(context.state).resolveInner(context.pos, -1).name;
  if (inside === "String" || inside === "LineComment" || inside === "BlockComment" || inside === "QuotedIdentifier") return null;
  const statement = context.state.doc.toString().toLowerCase();
  const named = tables.filter((table) => statement.includes(table.name.toLowerCase()));
  const columns = new Map<string, Completion>();
  for (const table of named.length > 0 ? named : tables) {
    for (const column of table.columns) {
      if (!columns.has(column.name)) columns.set(column.name, columnChoice(column.name, column.type, named.length === 1 ? "" : table.name));
    }
  }
  return { from: word.from, options: [...columns.values(), ...FUNCTION_CHOICES], validFor: /^\w*$/ };
}

const FUNCTION_CHOICES: readonly Completion[] = FUNCTIONS.map(([label, detail]) => ({ label, detail, type: "function", apply: `${label}(` }));

const COLOURS = HighlightStyle.define([
  { tag: tags.keyword, color: "var(--code-keyword)", fontWeight: "600" },
  { tag: [tags.string, tags.special(tags.string)], color: "var(--code-string)" },
  { tag: [tags.number, tags.bool, tags.null], color: "var(--code-number)" },
  { tag: tags.typeName, color: "var(--code-type)" },
  { tag: tags.comment, color: "var(--ink-3)", fontStyle: "italic" },
  { tag: [tags.operator, tags.punctuation], color: "var(--ink-2)" },
]);

// The variables are those of the document, so both themes are one here.
const THEME = EditorView.theme({
  "&": { color: "var(--ink)", backgroundColor: "var(--surface)", fontSize: "13.5px", minHeight: "inherit", maxHeight: "inherit" },
  "&.cm-focused": { outline: "none" },
  ".cm-scroller": { fontFamily: "var(--mono)", lineHeight: "1.55", overflow: "auto" },
  ".cm-content": { padding: "10px 0", caretColor: "var(--ink)" },
  ".cm-line": { padding: "0 12px 0 8px" },
  ".cm-gutters": { backgroundColor: "transparent", color: "var(--ink-3)", border: "0" },
  ".cm-lineNumbers .cm-gutterElement": { padding: "0 4px 0 14px" },
  ".cm-activeLine": { backgroundColor: "transparent" },
  "&.cm-focused .cm-activeLine": { backgroundColor: "var(--code-active)" },
  ".cm-cursor": { borderLeftColor: "var(--ink)", borderLeftWidth: "2px" },
  "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground": { backgroundColor: "var(--code-selection)" },
  "&.cm-focused .cm-matchingBracket": { backgroundColor: "var(--accent-soft)", outline: "1px solid var(--accent)" },
  ".cm-wrong": { backgroundColor: "var(--danger-soft)", textDecoration: "underline wavy var(--danger) 1.5px", textUnderlineOffset: "4px" },
  ".cm-tooltip": { border: "1px solid var(--line-strong)", borderRadius: "7px", backgroundColor: "var(--surface)", boxShadow: "var(--shadow)", overflow: "hidden" },
  ".cm-tooltip.cm-tooltip-autocomplete > ul": { fontFamily: "var(--mono)", fontSize: "13px", maxHeight: "15em" },
  ".cm-tooltip.cm-tooltip-autocomplete > ul > li": { padding: "3px 10px", lineHeight: "1.4" },
  ".cm-tooltip-autocomplete ul li[aria-selected]": { backgroundColor: "var(--accent-soft)", color: "var(--ink)" },
  ".cm-completionMatchedText": { textDecoration: "none", color: "var(--accent)", fontWeight: "600" },
  ".cm-completionDetail": { color: "var(--ink-3)", fontStyle: "normal", marginLeft: "1.2em" },
});
