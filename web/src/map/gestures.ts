// Pointer, wheel and keyboard on the map, told as intentions; knows nothing of cameras or aircraft.
import type { Point } from "./projection.ts";

export interface Gestures {
  pan(dx: number, dy: number): void;
  zoom(factor: number, at: Point | null, smooth: boolean): void;
  home(): void;
  hover(at: Point | null): void;
  click(at: Point, touch: boolean): void;
  /** Selects what is nearest to the middle of the map. */
  pick(): void;
  /** Drops the selection. */
  escape(): void;
}

const CLICK_SLOP = 6;
const KEY_PAN = 60;
export const ZOOM_STEP = 1.6;

export function listen(element: HTMLElement, gestures: Gestures, signal: AbortSignal): void {
  pointers(element, gestures, signal);
  element.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      // Lines and pages to pixels; a pinch on a touchpad arrives as a small wheel with ctrl.
      const unit = event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? 400 : 1;
      const speed = event.ctrlKey ? 0.01 : 0.0018;
      const delta = Math.max(-400, Math.min(400, event.deltaY * unit));
      gestures.zoom(Math.exp(-delta * speed), local(element, event), false);
    },
    { passive: false, signal },
  );
  element.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const act = keyAction(event.key, event.shiftKey, gestures);
    if (!act) return;
    event.preventDefault();
    act();
  }, { signal });
}

function keyAction(key: string, shift: boolean, gestures: Gestures): (() => void) | null {
  const step = shift ? KEY_PAN * 4 : KEY_PAN;
  switch (key) {
    case "ArrowLeft": return () => { gestures.pan(step, 0); };
    case "ArrowRight": return () => { gestures.pan(-step, 0); };
    case "ArrowUp": return () => { gestures.pan(0, step); };
    case "ArrowDown": return () => { gestures.pan(0, -step); };
    case "+":
    case "=": return () => { gestures.zoom(ZOOM_STEP, null, true); };
    case "-":
    case "_": return () => { gestures.zoom(1 / ZOOM_STEP, null, true); };
    case "0":
    case "Home": return () => { gestures.home(); };
    case "Enter": return () => { gestures.pick(); };
    case "Escape": return () => { gestures.escape(); };
    default: return null;
  }
}

function local(element: HTMLElement, event: MouseEvent): Point {
  const box = element.getBoundingClientRect();
  return { x: event.clientX - box.left, y: event.clientY - box.top };
}

/** One pointer drags, two pinch, one that hardly moves clicks. */
function pointers(element: HTMLElement, gestures: Gestures, signal: AbortSignal): void {
  const down = new Map<number, Point>();
  let start: Point | null = null;
  let moved = false;

  element.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    element.setPointerCapture(event.pointerId);
    down.set(event.pointerId, local(element, event));
    moved = down.size > 1;
    start = local(element, event);
    gestures.hover(null);
  }, { signal });

  element.addEventListener("pointermove", (event) => {
    const now = local(element, event);
    const before = down.get(event.pointerId);
    if (!before) {
      if (event.pointerType !== "touch") gestures.hover(now);
      return;
    }
    if (start && Math.hypot(now.x - start.x, now.y - start.y) > CLICK_SLOP) moved = true;
    down.set(event.pointerId, now);
    if (!moved) return;
    const other = [...down].find(([id]) => id !== event.pointerId)?.[1];
    if (!other) {
      gestures.pan(now.x - before.x, now.y - before.y);
      return;
    }
    const ratio = Math.hypot(now.x - other.x, now.y - other.y) / Math.max(1, Math.hypot(before.x - other.x, before.y - other.y));
    gestures.pan((now.x - before.x) / 2, (now.y - before.y) / 2);
    gestures.zoom(ratio, { x: (now.x + other.x) / 2, y: (now.y + other.y) / 2 }, false);
  }, { signal });

  const up = (event: PointerEvent): void => {
    if (!down.delete(event.pointerId)) return;
    if (event.type === "pointerup" && !moved && down.size === 0) gestures.click(local(element, event), event.pointerType === "touch");
  };
  element.addEventListener("pointerup", up, { signal });
  element.addEventListener("pointercancel", up, { signal });
  element.addEventListener("pointerleave", () => { gestures.hover(null); }, { signal });
}
