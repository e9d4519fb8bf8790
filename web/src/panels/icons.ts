// The few icons of the page, drawn here so that nothing is fetched. 24 x 24, stroked in the text's colour.
import { svg } from "../dom.ts";
import { svgPath } from "../map/marks.ts";
import type { Kind } from "../fleet/position.ts";

const PATHS = {
  plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  home: "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5",
  close: "M6 6l12 12M18 6 6 18",
  sun: "M12 4V2M12 22v-2M4 12H2M22 12h-2M6.3 6.3 4.9 4.9M19.1 19.1l-1.4-1.4M6.3 17.7l-1.4 1.4M19.1 4.9l-1.4 1.4M12 16.5a4.5 4.5 0 1 0 0-9 4.5 4.5 0 0 0 0 9Z",
  moon: "M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5Z",
  search: "M10.5 17a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13ZM15.3 15.3 20.5 20.5",
  warning: "M12 3.5 22 20.5H2L12 3.5ZM12 10v5M12 17.5v.5",
  descent: "M12 4v15M5.5 12.5 12 19l6.5-6.5",
  target: "M12 18a6 6 0 1 0 0-12 6 6 0 0 0 0 12ZM12 2v5M12 17v5M2 12h5M17 12h5",
  pause: "M8 5v14M16 5v14",
  play: "M7 4.5v15l12-7.5Z",
  arrow: "M5 12h14M13 6l6 6-6 6",
  copy: "M9 9h11v11H9ZM5 15H4V4h11v1",
  back: "M19 12H5M11 6l-6 6 6 6",
} as const;

export type IconName = keyof typeof PATHS;

export function icon(name: IconName): SVGElement {
  return svg("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" }, svg("path", { d: PATHS[name] }));
}

/** The mark of a kind, as on the map. */
export function kindIcon(kind: Kind): SVGElement {
  return svg(
    "svg",
    { class: `kind-icon kind-${kind}`, viewBox: "-11 -11 22 22", "aria-hidden": "true", focusable: "false" },
    svg("path", { d: svgPath(kind) }),
  );
}

export function brandMark(): SVGElement {
  return svg(
    "svg",
    { class: "brand-mark", viewBox: "0 0 32 32", "aria-hidden": "true", focusable: "false" },
    svg("path", { class: "brand-wave", d: "M4 20.5c4 0 4-3.5 8-3.5s4 3.5 8 3.5 4-3.5 8-3.5M4 26.5c4 0 4-3.5 8-3.5s4 3.5 8 3.5 4-3.5 8-3.5" }),
    svg("path", { class: "brand-wing", d: "M16 3 23 14.5 16 11.7 9 14.5Z" }),
  );
}
