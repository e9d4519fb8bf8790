// Colours of the map, read from the stylesheet so that themes live in one place.
import { ALL_KINDS, type Kind } from "../fleet/position.ts";

export interface Palette {
  water: string;
  land: string;
  foreign: string;
  border: string;
  coast: string;
  graticule: string;
  label: string;
  labelStrong: string;
  labelHalo: string;
  airport: string;
  halo: string;
  accent: string;
  emergency: string;
  emergencyInk: string;
  kinds: Record<Kind, string>;
  font: string;
}

export function readPalette(): Palette {
  const style = getComputedStyle(document.documentElement);
  const get = (name: string): string => style.getPropertyValue(`--${name}`).trim();
  return {
    water: get("map-water"),
    land: get("map-land"),
    foreign: get("map-foreign"),
    border: get("map-border"),
    coast: get("map-coast"),
    graticule: get("map-graticule"),
    label: get("map-label"),
    labelStrong: get("map-label-strong"),
    labelHalo: get("map-label-halo"),
    airport: get("map-airport"),
    halo: get("map-halo"),
    accent: get("accent"),
    emergency: get("danger"),
    emergencyInk: get("on-danger"),
    kinds: Object.fromEntries(ALL_KINDS.map((kind) => [kind, get(`kind-${kind}`)])) as Record<Kind, string>,
    font: get("font"),
  };
}
