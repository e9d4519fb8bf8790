// Draws a plot: SVG without inline styles, which the page's policy forbids.
import { h, setText, svg } from "../dom.ts";
import { numberTicks, plain, timeTicks } from "./axis.ts";
import { plot, type Bars, type Line, type Lines } from "./plot.ts";
import type { Answer } from "../net/query.ts";

const HEIGHT = 220;
const TOP = 10;
const BOTTOM = 26;
const LEFT = 58;
const RIGHT = 14;
/** Between two labels of the time axis. */
const LABEL_WIDTH = 90;
const BAR = 24;
const CHARACTER = 7.2;

/** The panels of a chart, drawn for this many pixels. */
export function chart(answer: Answer, width: number): HTMLElement {
  const shown = plot(answer);
  const box = h("div", { class: "chart" });
  if (shown.shape === "bars") for (const panel of shown.panels) box.append(barPanel(shown, panel, width));
  if (shown.shape === "lines") for (const panel of shown.panels) box.append(linePanel(shown, panel, width));
  if (shown.note !== "") box.append(h("p", { class: "hint" }, shown.note));
  return box;
}

function barPanel({ labels }: Bars, { name, values }: Bars["panels"][number], width: number): HTMLElement {
  const cut = labels.map((label) => (label.length > 28 ? `${label.slice(0, 27)}…` : label));
  const left = Math.min(width * 0.4, Math.max(40, ...cut.map((label) => label.length * CHARACTER)) + 10);
  const numbers = values.map((value) => (value === null ? "NULL" : value.toLocaleString("en-US")));
  const right = Math.max(...numbers.map((text) => text.length * CHARACTER)) + 14;
  const low = Math.min(0, ...values.map((value) => value ?? 0));
  const high = Math.max(0, ...values.map((value) => value ?? 0));
  const room = Math.max(20, width - left - right);
  const place = (value: number): number => left + (high === low ? 0 : ((value - low) / (high - low)) * room);
  const picture = svg("svg", { class: "chart-picture", width, height: values.length * BAR + 4, role: "img", "aria-label": `${name} by row` });
  values.forEach((value, index) => {
    const y = index * BAR + 4;
    const [from, to] = [Math.min(place(0), place(value ?? 0)), Math.max(place(0), place(value ?? 0))];
    picture.append(
      svg("text", { class: "chart-label", x: left - 8, y: y + BAR / 2, "text-anchor": "end" }, cut[index] ?? "", svg("title", {}, labels[index] ?? "")),
      svg("rect", { class: "chart-bar", x: from, y: y + 3, width: Math.max(value === null ? 0 : 1, to - from), height: BAR - 8, rx: 2 }),
      svg("text", { class: "chart-value", x: to + 7, y: y + BAR / 2 }, numbers[index] ?? ""),
    );
  });
  return h("figure", { class: "chart-panel" }, h("figcaption", {}, name), picture);
}

/** Where a panel of lines puts its numbers. */
interface Scale {
  x: (value: number) => number;
  y: (value: number) => number;
}

function linePanel({ x }: Lines, { name, lines }: Lines["panels"][number], width: number): HTMLElement {
  const ys = lines.flatMap((line) => line.points.map((point) => point.y));
  // From zero unless that would flatten the line: positions, altitudes and the like.
  const [least, most] = ys.reduce(([a, b], y) => [Math.min(a, y), Math.max(b, y)], [Infinity, -Infinity]);
  const low = least >= 0 && least > most * 0.6 && most > least ? least - (most - least) * 0.1 : Math.min(0, least);
  const high = most > low ? most : low + 1;
  const scale: Scale = {
    x: (value) => (x.high === x.low ? (LEFT + width - RIGHT) / 2 : LEFT + ((value - x.low) / (x.high - x.low)) * (width - LEFT - RIGHT)),
    y: (value) => HEIGHT - BOTTOM - ((value - low) / (high - low)) * (HEIGHT - TOP - BOTTOM),
  };
  const picture = svg("svg", { class: "chart-picture", width, height: HEIGHT, role: "img", "aria-label": `${name} over ${x.name}` });
  for (const { at, label } of numberTicks(low, high, 4)) {
    const y = scale.y(at);
    picture.append(
      svg("line", { class: "chart-grid", x1: LEFT, x2: width - RIGHT, y1: y, y2: y }),
      svg("text", { class: "chart-label", x: LEFT - 8, y, "text-anchor": "end" }, label),
    );
  }
  const count = Math.max(1, Math.floor((width - LEFT - RIGHT) / LABEL_WIDTH));
  for (const { at, label } of x.isTime ? timeTicks(x.low, x.high, count) : numberTicks(x.low, x.high, count)) {
    const middle = Math.min(width - RIGHT - (label.length * CHARACTER) / 2, scale.x(at));
    picture.append(svg("text", { class: "chart-label", x: middle, y: HEIGHT - 10, "text-anchor": "middle" }, label));
  }
  lines.forEach((line, index) => { picture.append(...drawn(line, index, scale)); });
  const readout = h("span", { class: "chart-readout" });
  follow(picture, lines, x, scale, readout);
  return h("figure", { class: "chart-panel" }, h("figcaption", {}, name, legend(lines), readout), picture);
}

function drawn({ points }: Line, index: number, scale: Scale): SVGElement[] {
  const at = points.map((point) => `${scale.x(point.x).toFixed(1)} ${scale.y(point.y).toFixed(1)}`);
  const path = svg("path", { class: `chart-line series-${index}`, d: at.length > 1 ? `M${at.join("L")}` : "" });
  // Few points are shown as such; a single one would not be seen at all.
  const dots = points.length > 60 ? [] : points.map((point) => svg("circle", { class: `chart-dot series-${index}`, cx: scale.x(point.x), cy: scale.y(point.y), r: 2.5 }));
  return [path, ...dots];
}

function legend(lines: readonly Line[]): HTMLElement | null {
  if (lines.length < 2) return null;
  const keys = lines.map((line, index) => h("li", { class: `series-${index}` }, line.name === "" ? "(empty)" : line.name));
  return h("ul", { class: "chart-legend" }, ...keys);
}

/** Says what is under the pointer. */
function follow(picture: SVGElement, lines: readonly Line[], x: Lines["x"], scale: Scale, readout: HTMLElement): void {
  const rule = svg("line", { class: "chart-rule", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
  picture.append(rule);
  const places = [...new Set(lines.flatMap((line) => line.points.map((point) => point.x)))].sort((a, b) => a - b);
  picture.addEventListener("pointermove", (event) => {
    const pointer = event.clientX - picture.getBoundingClientRect().left;
    const nearest = places.reduce<number | null>((best, at) => (best === null || Math.abs(scale.x(at) - pointer) < Math.abs(scale.x(best) - pointer) ? at : best), null);
    if (nearest === null) return;
    rule.setAttribute("x1", String(scale.x(nearest)));
    rule.setAttribute("x2", String(scale.x(nearest)));
    rule.setAttribute("visibility", "visible");
    const values = lines.flatMap((line) => {
      const point = line.points.find((one) => one.x === nearest);
      return point ? [`${line.name === "" ? "" : `${line.name} `}${plain(point.y)}`] : [];
    });
    const where = x.isTime ? new Date(nearest).toISOString().slice(0, 19).replace("T", " ") : plain(nearest);
    setText(readout, `${where}: ${values.join(", ")}`);
  });
  picture.addEventListener("pointerleave", () => {
    rule.setAttribute("visibility", "hidden");
    setText(readout, "");
  });
}
