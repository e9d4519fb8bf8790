// A line of recent values without axes; the number beside it says what it is.
import { svg } from "../dom.ts";

const WIDTH = 240;
const HEIGHT = 40;

/** Points of the line and its top value; the scale starts at zero so that a dip looks as deep as it is. */
export function sparkPath(values: readonly number[], capacity: number): { line: string; area: string; max: number } {
  const max = Math.max(0, ...values);
  if (values.length < 2) return { line: "", area: "", max };
  const step = WIDTH / (capacity - 1);
  const left = WIDTH - step * (values.length - 1);
  const top = max === 0 ? 1 : max * 1.08;
  const at = (value: number, index: number): string =>
    `${(left + index * step).toFixed(1)} ${(HEIGHT - 1 - (value / top) * (HEIGHT - 3)).toFixed(1)}`;
  const line = `M${values.map(at).join("L")}`;
  return { line, area: `${line}L${WIDTH} ${HEIGHT}L${left.toFixed(1)} ${HEIGHT}Z`, max };
}

export class Sparkline {
  private readonly line = svg("path", { class: "spark-line", "vector-effect": "non-scaling-stroke" });
  private readonly area = svg("path", { class: "spark-area" });
  readonly element = svg(
    "svg",
    { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true", focusable: "false" },
    this.area,
    this.line,
  );

  show(values: readonly number[], capacity: number): void {
    const { line, area } = sparkPath(values, capacity);
    this.line.setAttribute("d", line);
    this.area.setAttribute("d", area);
  }
}
