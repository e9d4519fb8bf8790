declare module "virtual:basemap" {
  /** Polylines of delta-coded 1/1000 degrees: longitude, latitude, longitude, … See build/basemap.ts. */
  const basemap: { land: number[][]; states: number[][]; borders: number[][]; coast: number[][] };
  export default basemap;
}
